"""See ``ambient_jax.estimates``."""

from ambient_jax.estimates import Estimate, mean, paired, wilson

__all__ = ["Estimate", "mean", "paired", "wilson"]
