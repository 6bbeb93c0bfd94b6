"""Known first actions of a chunk as an input of the denoiser; needs no Flax."""

import jax
import jax.numpy as jnp

KNOWN = "known"  # name of the input among the observations


def join(actions: jax.Array, is_known: jax.Array) -> jax.Array:
    """Returns the input [B, H, D + 1] for ``actions`` [B, H, D], in normalised units, that are
    known where ``is_known`` [B, H] is True: 0 for the others, and a last column of 0 and 1."""
    column = is_known[..., None]
    return jnp.concatenate([jnp.where(column, actions, 0), column.astype(actions.dtype)], axis=-1)


def split(known: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the actions [B, H, D] and the column [B, H, 1] of ``join``."""
    return known[..., :-1], known[..., -1:]
