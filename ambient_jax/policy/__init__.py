"""Policies: a trained network, and solvers of the reverse process that sample actions from it."""

from ambient_jax import _names

__getattr__ = _names.renamed(
    __name__,
    {"form": "ambient_jax.transforms.chain", "stored": "ambient_jax.policy.policy"},
)
