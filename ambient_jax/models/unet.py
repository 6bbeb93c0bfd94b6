"""The conditional 1-D U-Net of Diffusion Policy (Chi et al. 2023), for any horizon."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ambient_jax.models import layers
from ambient_jax.models.layers import Conv1D, Dense, Dtype, GroupNorm, NoiseEmbedding, mish


class ResidualBlock(nn.Module):
    """(Conv, GroupNorm, Mish) twice with FiLM in between, and a shortcut."""

    features: int
    kernel_size: int
    groups: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, scale: jax.Array, shift: jax.Array) -> jax.Array:
        """Maps [B, L, C] to [B, L, features]; scale and shift are [B, features]."""
        h = Conv1D(self.features, self.kernel_size, dtype=self.dtype, name="conv_0")(x)
        h = mish(GroupNorm(self.groups, name="norm_0")(h))
        h = h * (1 + scale[:, None]) + shift[:, None]
        h = Conv1D(self.features, self.kernel_size, dtype=self.dtype, name="conv_1")(h)
        h = mish(GroupNorm(self.groups, name="norm_1")(h))
        if x.shape[-1] != self.features:
            x = Conv1D(self.features, 1, dtype=self.dtype, name="shortcut")(x)
        return h + x


class UNet1D(nn.Module):
    """Conditional 1-D U-Net over the horizon.

    Each level down halves the length, rounding up; each level up doubles it and crops it to that of
    the skip. So every horizon H >= 1 works and no padded step enters a statistic. One dense layer
    computes scale and shift of all blocks from noise-level embedding and condition.

    Attributes:
        features: channels of each level, multiples of `groups`.
        kernel_size: odd width of the residual blocks' convolutions.
        groups: groups of the normalisations.
        blocks: residual blocks of each level on the way down, in the middle and on the way up.
        embed_dim: size of the noise-level embedding, even.
        dtype: type of the computation; parameters, statistics and the output are float32.
    """

    features: tuple[int, ...] = (64, 128, 256)
    kernel_size: int = 5
    groups: int = 8
    blocks: int = 2
    embed_dim: int = 128
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x_t: jax.Array, sigma: jax.Array, condition: jax.Array) -> jax.Array:
        """Predicts [B, H, D] from x_t [B, H, D], sigma [B] in [0, 1] and condition [B, C]."""
        self.check_sizes()
        layers.check_denoiser_inputs(x_t, sigma, condition)
        levels = len(self.features)
        path = [*self.features, self.features[-1], *reversed(self.features[:-1])]
        widths = np.repeat(path, self.blocks)
        embedding = NoiseEmbedding(self.embed_dim, self.dtype, name="noise_embedding")(sigma)
        inputs = mish(jnp.concatenate([embedding, condition.astype(self.dtype)], axis=-1))
        film = Dense(2 * int(widths.sum()), self.dtype, name="film")(inputs)
        films = iter(jnp.split(film, np.cumsum(np.repeat(widths, 2))[:-1], axis=-1))

        def block(x: jax.Array, width: int, name: str) -> jax.Array:
            residual = ResidualBlock(width, self.kernel_size, self.groups, self.dtype, name=name)
            return residual(x, next(films), next(films))

        h = x_t.astype(self.dtype)
        skips = []
        for level, width in enumerate(self.features):
            for i in range(self.blocks):
                h = block(h, width, f"down_{level}_{i}")
            skips.append(h)
            if level < levels - 1:
                h = Conv1D(width, 3, stride=2, dtype=self.dtype, name=f"downsample_{level}")(h)
        for i in range(self.blocks):
            h = block(h, self.features[-1], f"middle_{i}")
        for level in reversed(range(1, levels)):
            width = self.features[level - 1]
            h = jnp.concatenate([h, skips[level]], axis=-1)
            for i in range(self.blocks):
                h = block(h, width, f"up_{level}_{i}")
            h = layers.UpConv1D(width, dtype=self.dtype, name=f"upsample_{level}")(h)
            h = h[:, : skips[level - 1].shape[1]]
        h = Conv1D(self.features[0], self.kernel_size, dtype=self.dtype, name="final_conv")(h)
        h = mish(GroupNorm(self.groups, name="final_norm")(h))
        return Conv1D(x_t.shape[-1], 1, dtype=self.dtype, name="out")(h).astype(jnp.float32)

    def check_sizes(self) -> None:
        """Raises ValueError, naming the field, unless the sizes fit each other."""
        fields = ("groups", "embed_dim", "blocks", "kernel_size")
        layers.check_positive("UNet1D", **{name: getattr(self, name) for name in fields})
        layers.check_widths("UNet1D", "features", self.features)
        layers.check_multiple("UNet1D", groups=self.groups, features=self.features)
        layers.check_odd("UNet1D", self.kernel_size)
        layers.check_even("UNet1D", "embed_dim", self.embed_dim)
