"""Encodes observation histories as one condition vector."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from ambient_jax.models.layers import check_positive, mish


class ObservationEncoder(nn.Module):
    """Encodes low-dimensional histories by sines and cosines of several periods and dense layers.

    The backbone uses the condition only through scales and shifts that are linear in it, which is
    too little for positions: without the sines training takes a third longer to the same loss.

    Attributes:
        frequencies: number of octaves; a normalised input x in about [-1, 1] adds sin(pi 2^k x) and
            cos(pi 2^k x) for k below it; 0 adds none.
        width: width of the hidden layers and of the condition; 0: no layers.
        depth: number of hidden layers.
    """

    frequencies: int = 4
    width: int = 256
    depth: int = 2

    @nn.compact
    def __call__(self, observation: Mapping[str, jax.Array]) -> jax.Array:
        """Encodes `{name: [B, T, d]}`, in sorted order, to the condition [B, C]."""
        self.check_sizes()
        if not observation:
            raise ValueError("The observation is empty; expected at least one {name: [B, T, d]}.")
        columns = []
        for name in sorted(observation):
            value = jnp.asarray(observation[name])
            if value.ndim != 3:
                raise ValueError(
                    f"Observation {name!r} has shape {value.shape}; expected [B, T, d], a history"
                    " of T steps of d numbers for each of B samples."
                )
            columns.append(value.reshape(value.shape[0], -1).astype(jnp.float32))
        check_rows(observation)
        x = jnp.concatenate(columns, axis=-1)
        if self.frequencies:
            angles = x[..., None] * (jnp.pi * 2.0 ** jnp.arange(self.frequencies))
            angles = angles.reshape(x.shape[0], -1)
            x = jnp.concatenate([x, jnp.sin(angles), jnp.cos(angles)], axis=-1)
        if self.width:
            for i in range(self.depth):
                x = mish(nn.Dense(self.width, name=f"hidden_{i}")(x))
            x = nn.Dense(self.width, name="out")(x)
        return x

    def check_sizes(self) -> None:
        """Raises ValueError that names a field which is out of range."""
        for name in ("frequencies", "width", "depth"):
            if getattr(self, name) != 0:
                check_positive("ObservationEncoder", **{name: getattr(self, name)})


def check_rows(observation: Mapping[str, jax.Array]) -> None:
    """Raises ValueError unless all entries have one batch size."""
    first = min(observation)
    for name in sorted(observation):
        rows, expected = (observation[n].shape[:1] for n in (name, first))
        if not rows:
            raise ValueError(f"Observation {name!r} is a scalar; expected one row per sample.")
        if rows != expected:
            raise ValueError(
                f"Observation {name!r} has batch size {rows[0]}, but {first!r} has {expected[0]};"
                " they must agree."
            )
