"""Observation histories to one condition vector."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp


class ObservationEncoder(nn.Module):
    """Flattens and concatenates low-dimensional observation histories.

    The names are taken in sorted order, so the condition does not depend on the order in which a
    data pipeline happened to build the dictionary. It has no parameters.
    """

    @nn.compact
    def __call__(self, observation: Mapping[str, jax.Array]) -> jax.Array:
        """Encodes `{name: [B, T, d]}` to `[B, C]`, C the sum of T * d over the names.

        T and d may differ between names; B may not.

        Raises:
            ValueError: no observation, an entry that is not [B, T, d], or unequal B.
        """
        if not observation:
            raise ValueError(
                "The observation is empty; expected at least one entry {name: [B, T, d]}."
            )
        names = sorted(observation)
        batch = None
        columns = []
        for name in names:
            value = jnp.asarray(observation[name])
            if value.ndim != 3:
                raise ValueError(
                    f"Observation {name!r} has shape {value.shape}; expected [B, T, d], a history"
                    " of T steps of d numbers for each of B samples."
                )
            if batch is None:
                batch = value.shape[0]
            elif value.shape[0] != batch:
                raise ValueError(
                    f"Observation {name!r} has batch size {value.shape[0]}, but"
                    f" {names[0]!r} has {batch}; they must agree."
                )
            columns.append(value.reshape(batch, -1).astype(jnp.float32))
        return jnp.concatenate(columns, axis=-1)
