"""The denoiser: an observation encoder and a backbone, built from a config."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from ambient_jax import _checks, _names, observations
from ambient_jax.models import prefix as prefixes
from ambient_jax.models.multimodal import MultimodalEncoder
from ambient_jax.models.observation import ObservationEncoder
from ambient_jax.models.transformer import TransformerDenoiser
from ambient_jax.models.unet import UNet1D

BACKBONES = {"unet": UNet1D, "transformer": TransformerDenoiser}
ENCODERS = {"observation": ObservationEncoder, "multimodal": MultimodalEncoder}
_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class Denoiser(nn.Module):
    """Predicts x0, eps or v (the loss decides) from a noised chunk, its level and the observation.
    ``encoder`` maps the observation, which has no noise, to the condition [B, C]; ``backbone(x_t,
    sigma, condition)`` predicts. The last layer does not start at zero, which would stop all
    gradients below it in the first step.

    ``prefix``: the largest number of first actions that may be known (real-time chunking learned in
    training, Black et al. 2025, https://arxiv.org/abs/2512.05964). Above 0 the observation may have
    ``prefix.KNOWN`` [B, H, D + 1], see ``prefix.join``. Known actions take the place of noised
    ones, and the backbone sees beside the chunk which they are.

    ``noised``: names of the observations that training noises (``observations``). With any, the
    encoder also sees ``observations.LEVEL`` [B, 1, 1], which is 0 where it is not given."""

    backbone: nn.Module
    encoder: nn.Module = dataclasses.field(default_factory=ObservationEncoder)
    prefix: int = 0
    noised: tuple[str, ...] = ()

    def __call__(
        self, x_t: jax.Array, sigma: jax.Array, observation: Mapping[str, jax.Array]
    ) -> jax.Array:
        """Predicts [B, H, D] float32 from x_t [B, H, D] at noise level sigma [B] in [0, 1].
        ``observation`` has histories {name: [B, T, d]}, or other inputs of the encoder."""
        return self.decode(x_t, sigma, self.encode(observation))

    def encode(self, observation: Mapping[str, jax.Array]) -> Any:
        """Returns the condition, which a solver computes once for all its steps: [B, C], with a
        ``prefix`` beside the known actions."""
        if self.noised:
            observation = observations.with_level(observation)
        if not self.prefix:
            return self.encoder(observation)
        rest = {name: value for name, value in observation.items() if name != prefixes.KNOWN}
        return self.encoder(rest), observation.get(prefixes.KNOWN)

    def decode(self, x_t: jax.Array, sigma: jax.Array, condition: Any) -> jax.Array:
        """Returns the prediction [B, H, D] for a condition; its known part means nothing."""
        if not self.prefix:
            return self.backbone(x_t, sigma, condition)
        condition, known = condition
        if known is None:
            known = jnp.zeros((*x_t.shape[:-1], x_t.shape[-1] + 1), x_t.dtype)
        actions, is_known = prefixes.split(known)
        x_t = jnp.where(is_known > 0, actions, x_t)
        inputs = jnp.concatenate([x_t, is_known], axis=-1)
        return self.backbone(inputs, sigma, condition)[..., :-1]


def build_denoiser(
    config: Mapping[str, Any], observation: Mapping[str, Any] | None = None
) -> Denoiser:
    """Builds a denoiser from `{"name": "unet" | "transformer", **fields of the backbone}`.

    The field `encoder` is `{"name": "observation" | "multimodal", **fields of the encoder}`.
    Without a name it is the `MultimodalEncoder` if `observation`, shapes of one row by name, has
    more than histories [T, d]. Both names may be `package.module:attribute` of a module, or of a
    function that makes one. `dtype` is "float32" or "bfloat16". `prefix` and `noised` are
    the denoiser's.
    """
    fields = _plain(config)
    prefix, noised = fields.pop("prefix", 0), fields.pop("noised", ())
    _checks.number("prefix", prefix, 0, whole=True)
    if noised:
        _checks.names("noised", noised)
        for name in noised:
            _checks.one_of("a name in noised", name, observation or noised)
    encoder = fields.pop("encoder", {})
    if not isinstance(encoder, dict):
        raise ValueError(f"encoder is {encoder!r}, expected a section of fields")
    vectors = all(len(value.shape) == 2 for value in (observation or {}).values())
    encoder = {"name": "observation" if vectors else "multimodal", **encoder}
    parts = _built("model", BACKBONES, fields), _built("encoder", ENCODERS, encoder)
    return Denoiser(*parts, prefix=prefix, noised=tuple(noised))


def _built(section, modules, fields):
    """Makes the module of a section, and calls its `check_sizes` if it has one."""
    name = fields.pop("name", None)
    if "dtype" in fields:
        _checks.one_of(f"dtype of {section} {name!r}", fields["dtype"], _DTYPES)
        fields["dtype"] = _DTYPES[fields["dtype"]]
    module = _names.make(section, name, modules, fields)
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"{section} {name!r} makes a {type(module).__name__}, expected a nn.Module"
        )
    if hasattr(module, "check_sizes"):
        module.check_sizes()
    return module


def _plain(fields):
    """Converts a ConfigDict and its lists to nested dicts and tuples."""
    if isinstance(fields, Mapping | ml_collections.ConfigDict):
        return {name: _plain(value) for name, value in fields.items()}
    return tuple(fields) if isinstance(fields, list) else fields
