"""Annotation: the noise levels at which each datum may train. Import the modules you need."""
