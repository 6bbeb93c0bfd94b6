"""The matrix product behind every layer, with a weight gradient that XLA's CPU runs at full speed.

Differentiated as usual, `x @ w` gives the weight gradient as a product of transposes, and the
compiler then copies the larger factor into transposed layout: the gradient ran at a third of the
forward product's speed. Asked for in the one form that needs no copy, it runs level with it.
"""

import jax
from jax import lax


def product(x: jax.Array, w: jax.Array) -> jax.Array:
    """x [..., K] times w [K, N]: [..., N]."""
    if jax.default_backend() != "cpu":
        return x @ w
    return _rows_product(x.reshape(-1, x.shape[-1]), w).reshape(*x.shape[:-1], w.shape[-1])


@jax.custom_vjp
def _rows_product(x: jax.Array, w: jax.Array) -> jax.Array:
    return x @ w


def _forward(x: jax.Array, w: jax.Array):
    return x @ w, (x, w)


def _backward(residuals, g: jax.Array):
    x, w = residuals
    rows = (((0,), (0,)), ((), ()))
    if x.shape[1] <= g.shape[1]:
        dw = lax.dot_general(x, lax.optimization_barrier(g), rows)
    else:
        # The narrower factor comes first; the barrier keeps the compiler from turning it round.
        dw = lax.optimization_barrier(lax.dot_general(g, lax.optimization_barrier(x), rows)).T
    return g @ w.T, dw


_rows_product.defvjp(_forward, _backward)
