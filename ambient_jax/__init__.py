"""Ambient Diffusion for robot actions: train on a little good data and a lot of bad data."""

from ambient_jax import admission, corruption, losses, mixing, schedules, targets

__version__ = "0.1.0"
__all__ = ["admission", "corruption", "losses", "mixing", "schedules", "targets"]
