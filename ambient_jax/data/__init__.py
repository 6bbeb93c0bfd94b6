"""Reads data sets from disk as batches: sources, mixtures, bounds. Import the modules you need."""

from ambient_jax import _names

__getattr__ = _names.renamed(
    __name__,
    {
        "augment": "ambient_jax.transforms.augment",
        "image_worker": "ambient_jax.data.images",
        "instructions": "ambient_jax.transforms.instructions",
        "open_x": "ambient_jax.open_x",
        "sources": "ambient_jax.data.mixture",
        "units": "ambient_jax.data.groups",
    },
)
