"""Analysis: how laws contract under noise, their spectra, and the effect of assigning bounds."""

from ambient_jax import _names

__getattr__ = _names.renamed(
    __name__, {name: f"ambient_jax.annotate.{name}" for name in ("locality", "mismatch")}
)
