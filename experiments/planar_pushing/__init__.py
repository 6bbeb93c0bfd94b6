"""Planar pushing: demonstrations from a simulator with inaccurate physics."""

from experiments import opengl

opengl.choose()
