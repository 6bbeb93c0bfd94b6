"""From a trained network to actions: solvers of the reverse process, and the policy around them."""

from ambient_jax import _names

__getattr__ = _names.renamed(
    __name__,
    {"form": "ambient_jax.transforms.chain", "stored": "ambient_jax.policy.policy"},
)
