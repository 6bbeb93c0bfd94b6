"""Matrix products and 1-D convolutions of short signals that are fast on the CPU.

XLA's CPU convolution is ten times slower where the kernel is longer than the signal. On the CPU a
convolution is one matrix product of the shifted signal or, where it needs fewer products, minimal
filtering (Toom 1963, Cook 1966; Lavin and Gray 2016): signal window and kernel are evaluated as
polynomials with one product per point, 8 instead of 20 for four outputs of five taps. It costs two
bits of float32, so bfloat16 uses the direct method.
"""

import contextlib
import contextvars
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_TILE = 4
# Small fractions keep the sums well conditioned; the last point of every rule is infinity.
_POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)
# With fewer input channels the products save less than the sums cost.
_THIN = 16
_TARGET = contextvars.ContextVar("target", default="")


@contextlib.contextmanager
def traced_for(platform: str) -> Iterator[None]:
    """Traces networks in the block for another platform than the host's, such as "tpu"."""
    token = _TARGET.set(platform)
    try:
        yield
    finally:
        _TARGET.reset(token)


def on_cpu() -> bool:
    """Whether networks are traced for the CPU."""
    return (_TARGET.get() or jax.default_backend()) == "cpu"


def product(x: jax.Array, w: jax.Array) -> jax.Array:
    """Returns x [..., K] times w [K, N], [..., N]. On XLA's CPU the weight gradient needs no
    transposed copy, which makes it three times faster."""
    if not on_cpu():
        return x @ w
    return _rows_product(x.reshape(-1, x.shape[-1]), w).reshape(*x.shape[:-1], w.shape[-1])


@jax.custom_vjp
def _rows_product(x: jax.Array, w: jax.Array) -> jax.Array:
    return x @ w


def _product_backward(residuals, g: jax.Array):
    x, w = residuals
    rows = (((0,), (0,)), ((), ()))
    if x.shape[1] <= g.shape[1]:
        dw = lax.dot_general(x, lax.optimization_barrier(g), rows)
    else:
        # The narrower factor comes first; the barrier keeps the compiler from swapping them.
        dw = lax.optimization_barrier(lax.dot_general(g, lax.optimization_barrier(x), rows)).T
    return g @ w.T, dw


_rows_product.defvjp(lambda x, w: (x @ w, (x, w)), _product_backward)


def conv1d(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Convolves x [B, L, C], padded by k // 2, with a kernel [k, C, F] of odd k. Returns [B, (L -
    1) // stride + 1, F], as `lax.conv_general_dilated` does."""
    if not on_cpu():
        half = kernel.shape[0] // 2
        return lax.conv_general_dilated(
            x, kernel, (stride,), [(half, half)], dimension_numbers=("NWC", "WIO", "NWC")
        )
    length, k = x.shape[1], kernel.shape[0]
    points = _TILE + k - 1
    minimal = (
        stride == 1
        and 1 < k
        and points <= len(_POINTS) + 1
        and x.dtype == jnp.float32
        and x.shape[2] >= _THIN
        and math.ceil(length / _TILE) * points < length * min(k, 2 * length - 1)
    )
    return _minimal_filtering(x, kernel) if minimal else _direct(x, kernel, stride)


def _direct(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    length, k = x.shape[1], kernel.shape[0]
    half = k // 2
    out = (length - 1) // stride + 1
    # Omit taps that only multiply padding.
    lo, hi = max(0, half - (out - 1) * stride), min(k, half + length)
    left, right = half - lo, max(0, (out - 1) * stride + hi - half - length)
    padded = jnp.pad(x, ((0, 0), (left, right), (0, 0)))
    span = (out - 1) * stride + 1
    shifted = [padded[:, i : i + span : stride] for i in range(hi - lo)]
    return product(jnp.concatenate(shifted, axis=-1), kernel[lo:hi].reshape(-1, kernel.shape[-1]))


def _minimal_filtering(x: jax.Array, kernel: jax.Array) -> jax.Array:
    batch, length, channels = x.shape
    k, _, features = kernel.shape
    interpolate, evaluate_kernel, evaluate_signal = minimal_rule(_TILE, k)
    points = _TILE + k - 1
    tiles = math.ceil(length / _TILE)
    x = jnp.pad(x, ((0, 0), (0, tiles * _TILE - length), (0, 0)))
    # The transpose of a split is a concatenation; that of indexing is a sum of padded arrays.
    steps = jnp.split(x.reshape(batch, tiles, _TILE * channels), _TILE, axis=-1)
    window = [_step(steps, offset - k // 2) for offset in range(points)]
    taps = [tap[0] for tap in jnp.split(kernel, k)]
    products = []
    for point in range(points):
        signal = _weighted_sum(evaluate_signal[point], window).reshape(batch * tiles, channels)
        products.append(product(signal, _weighted_sum(evaluate_kernel[point], taps)))
    y = [_weighted_sum(weights, products) for weights in interpolate]
    return jnp.stack(y, axis=1).reshape(batch, tiles * _TILE, features)[:, :length]


def _step(steps: Sequence[jax.Array], offset: int) -> jax.Array | None:
    """Returns step `offset` from the start of each tile, [B, tiles, C]; None if all are padding."""
    shift, index = divmod(offset, _TILE)
    step = steps[index]
    if abs(shift) >= step.shape[1]:
        return None
    if shift < 0:
        return jnp.pad(step[:, :shift], ((0, 0), (-shift, 0), (0, 0)))
    return jnp.pad(step[:, shift:], ((0, 0), (0, shift), (0, 0)))


def _weighted_sum(weights: np.ndarray, terms: Sequence[jax.Array | None]) -> jax.Array:
    total: Any = None
    for weight, term in zip(weights, terms, strict=True):
        if weight and term is not None:
            term = term if weight == 1 else term * np.float32(weight)
            total = term if total is None else total + term
    return total


@functools.cache
def minimal_rule(tile: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (A, G, B) with `correlate(d, g) = A @ ((G @ g) * (B @ d))`, g [k], d [tile + k - 1].

    Polynomials multiply by evaluation, products and interpolation. Correlation is the transpose, so
    A is the transposed evaluation and B the transposed interpolation.
    """
    n = tile + k - 1

    def evaluate(count: int) -> np.ndarray:
        finite = np.vander(_POINTS[: n - 1], count, increasing=True)
        return np.vstack([finite, np.eye(count)[-1]])

    a, g = evaluate(tile).T.copy(), evaluate(k)
    b = np.linalg.inv(evaluate(n)).T
    b[np.abs(b) < 1e-12] = 0
    # The three matrices may share the scale of a point in any way; equal sizes round least.
    for point in range(n):
        for row in (g[point], b[point]):
            size = np.abs(row).max()
            row /= size
            a[:, point] *= size
    return a, g, b
