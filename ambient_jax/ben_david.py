"""Computes the best share of clean data in a mixture, by Ben-David et al. (2010)."""

import jax
import jax.numpy as jnp
import numpy as np

from ambient_jax import _checks

Array = jax.Array


def bound(alpha, n_clean, n_corrupt, divergence, capacity=1.0) -> Array:
    """Returns the part of the error bound (theorem 3) that depends on alpha, estimation plus bias:

    ``capacity sqrt(alpha^2 / n_clean + (1 - alpha)^2 / n_corrupt) + (1 - alpha) divergence``.

    Args:
      alpha: share of clean data in [0, 1].
      n_clean, n_corrupt: numbers of samples, > 0.
      divergence: between the two distributions, >= 0.
      capacity: complexity of the hypothesis class, > 0.
    """
    alpha = _checks.level("alpha", alpha, "a share")
    _check(n_clean, n_corrupt, divergence, capacity)
    spread = alpha**2 / n_clean + (1 - alpha) ** 2 / n_corrupt
    return capacity * jnp.sqrt(spread) + (1 - alpha) * divergence


def best_alpha(n_clean, n_corrupt, divergence, capacity=1.0) -> Array:
    """Returns the alpha in [0, 1] that minimises ``bound`` (section 5.1, eq. 1).

    With D = capacity / divergence: 1 if n_clean >= D^2, else min(1, nu) with
    ``nu = n_clean / n (1 + n_corrupt / sqrt(D^2 n - n_clean n_corrupt))``, n = n_clean + n_corrupt.
    Zero divergence gives the natural share n_clean / n.
    """
    _check(n_clean, n_corrupt, divergence, capacity)
    n_clean = jnp.asarray(n_clean) * 1.0
    n = n_clean + n_corrupt
    # All terms are multiplied by divergence^2, so that divergence = 0 is no special case.
    radicand = capacity**2 * n - n_clean * n_corrupt * divergence**2
    root = jnp.sqrt(jnp.where(radicand > 0, radicand, 1.0))
    nu = n_clean / n * (1 + n_corrupt * divergence / root)
    enough = n_clean * divergence**2 >= capacity**2
    return jnp.where(enough | (radicand <= 0), 1.0, jnp.minimum(nu, 1.0))


def _check(n_clean, n_corrupt, divergence, capacity):
    """Raises ValueError if a number is known (outside ``jit``) and out of range."""
    sizes = {"n_clean": n_clean, "n_corrupt": n_corrupt, "capacity": capacity}
    for name, value in sizes.items():
        if not isinstance(value, jax.core.Tracer) and not np.all(np.asarray(value) > 0):
            raise ValueError(f"{name} is {value}, expected a number > 0")
    if not isinstance(divergence, jax.core.Tracer) and not np.all(np.asarray(divergence) >= 0):
        raise ValueError(f"divergence is {divergence}, expected a number >= 0")
