"""Bin sorting: the wrong rule, the right motions (sigma_max and locality)."""

from experiments import opengl

opengl.choose()
