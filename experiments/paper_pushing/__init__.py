"""Planar pushing as the paper has it: a tight tolerance, the pusher back at its place, cameras."""

from experiments import opengl

opengl.choose()
