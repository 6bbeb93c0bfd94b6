"""Layers shared by the denoisers: Mish, convolutions, normalisation, noise-level embedding."""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import lecun_normal, ones, zeros

from ambient_jax.models.convolution import conv1d, on_cpu, product

Dtype = Any


@jax.custom_vjp
def mish(x: jax.Array) -> jax.Array:
    """Computes Mish, x * tanh(softplus(x)) (Misra 2019), as x * w / (w + 2), w = n (n + 2). n is
    exp(x); the exponent is clipped at 20, where the ratio already rounds to one."""
    n = jnp.exp(jnp.minimum(x, 20))
    w = n * (n + 2)
    return x * (w / (w + 2))


def _mish_backward(x: jax.Array, g: jax.Array) -> tuple[jax.Array]:
    x = jax.lax.optimization_barrier(x)
    n = jnp.exp(jnp.minimum(x, 20))
    w = n * (n + 2)
    r = 1 / (w + 2)
    return (g * r * (w + 4 * x * n * (n + 1) * r),)


# Only x is stored; the barrier keeps the compiler from storing the exponential as well. At these
# sizes another exponential costs less than another array in memory.
mish.defvjp(lambda x: (mish(x), x), _mish_backward)


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """Computes GELU in its tanh form (Hendrycks and Gimpel 2016) as x sigmoid(2u)."""
    return x * jax.nn.sigmoid(_gelu_argument(x))


def _gelu_backward(x: jax.Array, g: jax.Array) -> tuple[jax.Array]:
    x = jax.lax.optimization_barrier(x)
    gate = jax.nn.sigmoid(_gelu_argument(x))
    slope = 2 * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
    return (g * gate * (1 + x * slope * (1 - gate)),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_backward)


def _gelu_argument(x: jax.Array) -> jax.Array:
    return 2 * math.sqrt(2 / math.pi) * x * (1 + 0.044715 * x * x)


class Dense(nn.Module):
    """Affine map of the last axis, with the parameters of `nn.Dense`."""

    features: int
    dtype: Dtype = jnp.float32
    kernel_init: Any = lecun_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        bias = self.param("bias", zeros, (self.features,), jnp.float32)
        return product(x.astype(self.dtype), kernel.astype(self.dtype)) + bias.astype(self.dtype)


class Conv1D(nn.Module):
    """1-D convolution of [B, L, C], odd kernel, zero padding, with the parameters of `nn.Conv`."""

    features: int
    kernel_size: int
    stride: int = 1
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", lecun_normal(in_axis=(0, 1)), shape, jnp.float32)
        bias = self.param("bias", zeros, (self.features,), jnp.float32)
        x = x.astype(self.dtype)
        return conv1d(x, kernel.astype(self.dtype), self.stride) + bias.astype(self.dtype)


class UpConv1D(nn.Module):
    """Doubles the length of [B, L, C], as `torch.nn.ConvTranspose1d(C, F, 4, stride=2, padding=1)`.

    y[2i] depends on x[i-1] and x[i], y[2i+1] on x[i] and x[i+1]: one product computes both.
    `kernel[0]` reaches back furthest.
    """

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, length, channels = x.shape
        shape = (4, channels, self.features)
        kernel = self.param("kernel", _halved_fan_in, shape, jnp.float32).astype(self.dtype)
        bias = self.param("bias", zeros, (self.features,), jnp.float32)
        padded = jnp.pad(x.astype(self.dtype), ((0, 0), (1, 1), (0, 0)))
        windows = jnp.concatenate([padded[:, :-1], padded[:, 1:]], axis=-1)
        odd = jnp.concatenate([kernel[2], kernel[0]], axis=0)
        even = jnp.concatenate([kernel[3], kernel[1]], axis=0)
        y = product(windows, jnp.concatenate([odd, even], axis=1))
        y = y.reshape(batch, 2 * (length + 1), self.features)[:, 1:-1]
        return y + bias.astype(self.dtype)


def _halved_fan_in(key, shape, dtype):
    """Draws initial weights; an output depends on only two of the four taps."""
    return math.sqrt(2.0) * lecun_normal(in_axis=(0, 1))(key, shape, dtype)


class GroupNorm(nn.Module):
    """Group normalisation over length and channels of [B, L, C]; statistics in float32."""

    groups: int
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, length, channels = x.shape
        if channels % self.groups:
            raise ValueError(
                f"GroupNorm got {channels} channels and {self.groups} groups; the number of"
                " channels must be a multiple of the number of groups."
            )
        scale = self.param("scale", ones, (channels,), jnp.float32)
        bias = self.param("bias", zeros, (channels,), jnp.float32)
        per_group = channels // self.groups
        x32 = x.astype(jnp.float32)
        # Sum over the length first, along whole rows of channels.
        total = x32.sum(1).reshape(batch, self.groups, per_group).sum(-1)
        square = (x32 * x32).sum(1).reshape(batch, self.groups, per_group).sum(-1)
        mean = total / (length * per_group)
        variance = jnp.maximum(square / (length * per_group) - mean * mean, 0)
        inverse = jax.lax.rsqrt(variance + self.epsilon)
        a = jnp.repeat(inverse, per_group, axis=1) * scale
        b = bias - jnp.repeat(mean, per_group, axis=1) * a
        return (x32 * a[:, None] + b[:, None]).astype(x.dtype)


class Attention(nn.Module):
    """Multi-head self-attention over steps of [B, L, C] where a mask [B, L] is True (None: all).

    A fully masked row stays finite.
    """

    heads: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        batch, length, width = x.shape
        qkv = Dense(3 * width, self.dtype, name="qkv")(x)
        heads = (batch, length, self.heads, width // self.heads)
        parts = (part.reshape(heads) for part in jnp.split(qkv, 3, axis=-1))
        if on_cpu() and qkv.dtype == jnp.float32:
            by_head = (part.transpose(0, 2, 1, 3) for part in parts)
            mixed = attend(*by_head, mask).transpose(0, 2, 1, 3).reshape(batch, length, width)
            return Dense(width, self.dtype, name="out")(mixed)
        q, k, v = parts
        q = q * (width // self.heads) ** -0.5
        logits = jnp.einsum("bihd,bjhd->bhij", q, k).astype(jnp.float32)
        if mask is not None:
            # The weight is exactly zero, as with minus infinity.
            logits = jnp.where(mask[:, None, None], logits, -1e9)
        weights = jax.nn.softmax(logits, axis=-1).astype(self.dtype)
        mixed = jnp.einsum("bhij,bjhd->bihd", weights, v).reshape(batch, length, width)
        return Dense(width, self.dtype, name="out")(mixed)


@jax.custom_vjp
def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Returns softmax(q k^T / sqrt(d)) v of [B, heads, L, d] where a mask [B, L] is True.

    On XLA's CPU a product that sums over its first factor's rows takes three times as long as one
    of a transposed copy, and a transposition that is part of a product as long as the product.
    Its derivatives are those of reverse mode (``jax.grad``, ``jax.vjp``), not of ``jax.jvp``.
    """
    return _attend_forward(q, k, v, mask)[0]


def _attend_forward(q, k, v, mask):
    q, k, v = jax.lax.optimization_barrier((q, k, v))
    logits = jnp.einsum("bhid,bhjd->bhij", q, k) * q.shape[-1] ** -0.5
    if mask is not None:
        # The weight is exactly zero, as with minus infinity.
        logits = jnp.where(mask[:, None, None], logits, -1e9)
    weights = jax.nn.softmax(logits, axis=-1)
    return weights @ v, (q, k, v, weights, mask)


def _attend_backward(residuals, g):
    q, k, v, weights, mask = residuals

    def transposed(x):
        return jax.lax.optimization_barrier(jnp.swapaxes(x, -1, -2))

    g = jax.lax.optimization_barrier(g)
    slope = jnp.einsum("bhid,bhjd->bhij", g, v)
    slope = slope - jnp.sum(slope * weights, axis=-1, keepdims=True)
    if mask is not None:  # else the logits of a fully masked row would have slopes
        slope = jnp.where(mask[:, None, None], slope, 0)
    slope = jax.lax.optimization_barrier(weights * slope * q.shape[-1] ** -0.5)
    return slope @ k, transposed(slope) @ q, transposed(weights) @ g, None


attend.defvjp(_attend_forward, _attend_backward)


class NoiseEmbedding(nn.Module):
    """Embeds the noise level sigma [B] in [0, 1] as [B, features].

    The input is t = (2 / pi) arcsin(sigma) in [0, 1], the time of the cosine schedule, which
    resolves the clean and the noisy end equally. Sines and cosines of a quarter of a cycle to 32
    cycles, which separate sigma 0.002 from 0, feed a two-layer network.
    """

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, sigma: jax.Array) -> jax.Array:
        # Just below one the slope of the arcsine, and so the gradient in sigma, is finite.
        sigma = jnp.clip(sigma.astype(jnp.float32), 0.0, 1.0 - 2.0**-23)
        t = (2 / math.pi) * jnp.arcsin(sigma)
        half = self.features // 2
        cycles = jnp.geomspace(0.25, 32.0, half, dtype=jnp.float32)
        angle = 2 * math.pi * t[:, None] * cycles
        h = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1).astype(self.dtype)
        h = Dense(4 * self.features, self.dtype, name="hidden")(h)
        return Dense(self.features, self.dtype, name="out")(mish(h))


def check_denoiser_inputs(x_t: jax.Array, sigma: jax.Array, condition: jax.Array) -> None:
    """Raises ValueError unless the shapes are x_t [B, H, D], sigma [B], condition [B, C]."""
    if x_t.ndim != 3 or 0 in x_t.shape[1:]:
        raise ValueError(f"x_t has shape {x_t.shape}; expected [B, H, D] with H, D >= 1.")
    batch = x_t.shape[0]
    for name, shape, expected, fits in (
        ("sigma", sigma.shape, f"[{batch}]", sigma.shape == (batch,)),
        ("condition", condition.shape, f"[{batch}, C]", condition.shape[:-1] == (batch,)),
    ):
        if not fits:
            raise ValueError(f"{name} has shape {shape}; expected {expected} for x_t {x_t.shape}.")


def layer_norm(x: jax.Array, epsilon: float = 1e-5) -> jax.Array:
    """Normalises the last axis, without scale or shift; statistics in float32."""
    x32 = x.astype(jnp.float32)
    centred = x32 - x32.mean(-1, keepdims=True)
    variance = (centred * centred).mean(-1, keepdims=True)
    return (centred * jax.lax.rsqrt(variance + epsilon)).astype(x.dtype)


def check_widths(owner: str, name: str, widths: Any) -> None:
    """Raises ValueError unless the widths are a tuple or list of integers of at least one."""
    if not isinstance(widths, Sequence) or isinstance(widths, str) or not widths:
        raise ValueError(f"{owner} {name} is {widths!r}; expected a list of widths, one per level.")
    for width in widths:
        check_positive(owner, **{name: width})


def check_odd(owner: str, kernel_size: int) -> None:
    """Raises ValueError for an even kernel."""
    if kernel_size % 2 == 0:
        raise ValueError(
            f"{owner} kernel_size is {kernel_size}; expected an odd number, which keeps the length."
        )


def check_even(owner: str, name: str, size: int) -> None:
    """Raises ValueError for an odd width of a sinusoidal embedding."""
    if size % 2:
        raise ValueError(
            f"{owner} {name} is {size}; expected an even number, half sines and half cosines."
        )


def check_multiple(owner: str, **sizes: Any) -> None:
    """Raises ValueError unless the first size divides all numbers of the second, a list."""
    (divisor, size), (name, numbers) = sizes.items()
    for number in numbers:
        if number % size:
            raise ValueError(
                f"{owner} {name}: {number} is not a multiple of {divisor} = {size}; change {name}"
                f" or {divisor}."
            )


def check_positive(owner: str, **sizes: Any) -> None:
    """Raises ValueError for the first size that is not an integer of at least one."""
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"{owner} {name} is {size!r}; expected an integer >= 1.")
