"""Open X-Embodiment: the data sets as tables, and one interpreter that makes them alike."""

from ambient_jax import _names

__getattr__ = _names.renamed(__name__, {"dataset": "ambient_jax.open_x.source"})
