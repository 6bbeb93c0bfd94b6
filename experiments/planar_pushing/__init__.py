"""Planar pushing: demonstrations from a simulator whose physics are not quite right."""

from experiments import opengl

opengl.choose()
