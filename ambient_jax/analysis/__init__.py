"""Analysis: how laws contract under noise, their spectra, and what an assignment of bounds does."""

from ambient_jax import _names

__getattr__ = _names.renamed(
    __name__, {name: f"ambient_jax.annotate.{name}" for name in ("locality", "mismatch")}
)
