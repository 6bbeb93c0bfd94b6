"""Bin sorting: corrupt data with the wrong rule but the right motions (sigma_max, locality)."""

from experiments import opengl

opengl.choose()
