"""Open X-Embodiment: tables of the data sets, and their conversion to one common form."""

from ambient_jax import _names

__getattr__ = _names.renamed(__name__, {"dataset": "ambient_jax.open_x.source"})
