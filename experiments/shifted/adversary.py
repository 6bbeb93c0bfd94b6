"""An encoder whose features do not tell the clean source from the shifted one: the baseline.

Domain-adversarial training (Ganin et al. 2016, https://arxiv.org/abs/1505.07818): a classifier of
the features learns which source a row is from, and the encoder gets its gradient reversed. The
config names it as ``model.encoder = {"name": "experiments.shifted.adversary:AdversarialEncoder"}``,
and the observations must have "is_clean", which only the classifier sees.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ambient_jax.models.layers import mish
from ambient_jax.models.observation import ObservationEncoder
from ambient_jax.transforms.steps import IS_CLEAN


@jax.custom_vjp
def attach(x: jax.Array, loss: jax.Array) -> jax.Array:
    """Returns x. In the gradient, ``loss`` [B] counts as if it were added to the loss of its row,
    wherever x goes: a module can so have a loss that the training does not know of."""
    del loss
    return x


attach.defvjp(lambda x, loss: (x, loss), lambda loss, g: (g, jnp.ones_like(loss)))


@jax.custom_vjp
def reverse(x: jax.Array, strength: float) -> jax.Array:
    """Returns x, and multiplies its gradient by ``-strength``."""
    del strength
    return x


reverse.defvjp(lambda x, strength: (x, strength), lambda strength, g: (-strength * g, None))


class AdversarialEncoder(nn.Module):
    """Encodes all observations but "is_clean", which the adversary learns to tell.

    Attributes:
        strength: factor of the adversary's gradient in the encoder.
        hidden: width of the adversary's hidden layer.
        frequencies, width, depth: of ``ObservationEncoder``.
    """

    strength: float = 0.1
    hidden: int = 64
    frequencies: int = 0
    width: int = 256
    depth: int = 2

    @nn.compact
    def __call__(self, observation: Mapping[str, jax.Array]) -> jax.Array:
        """Encodes `{name: [B, T, d]}` to the condition [B, C]; for errors see the encoder's."""
        if IS_CLEAN not in observation:
            raise ValueError(
                f"The observation has no {IS_CLEAN!r}, which the adversary learns to tell: add it "
                "to config.data.observation"
            )
        seen = {name: value for name, value in observation.items() if name != IS_CLEAN}
        encoder = ObservationEncoder(self.frequencies, self.width, self.depth, name="encoder")
        features = encoder(seen)
        hidden = mish(nn.Dense(self.hidden, name="hidden")(reverse(features, self.strength)))
        logit = nn.Dense(1, name="logit")(hidden)[:, 0]
        clean = observation[IS_CLEAN][:, -1, 0]
        return attach(features, optax.sigmoid_binary_cross_entropy(logit, clean))
