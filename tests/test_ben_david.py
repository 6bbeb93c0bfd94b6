"""The best share of clean data against a search over a grid."""

import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax import ben_david


def grid_search(n_p, n_q, divergence, capacity=1.0):
    """alpha by direct minimisation of the bound of Ben-David et al., on a grid."""
    alpha = np.linspace(0, 1, 20_001)
    bound = capacity * np.sqrt(alpha**2 / n_p + (1 - alpha) ** 2 / n_q) + (1 - alpha) * divergence
    return alpha[np.argmin(bound)]


@pytest.mark.parametrize("capacity", (0.5, 1.0, 3.0))
def test_best_alpha_minimises_the_bound(capacity):
    for n_clean, n_corrupt in ((50, 2000), (10, 10), (1000, 30), (50, 10_000_000)):
        for divergence in (0.0, 1e-3, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 1e3, 1e12):
            got = float(ben_david.best_alpha(n_clean, n_corrupt, divergence, capacity))
            assert 0 <= got <= 1
            want = grid_search(n_clean, n_corrupt, divergence, capacity)
            assert abs(got - want) < 2e-4  # the grid's step is 5e-5
    for value in (0.0, 0.3, 1.0):
        bound = ben_david.bound(value, 50, 2000, 0.1, capacity)
        want = capacity * np.sqrt(value**2 / 50 + (1 - value) ** 2 / 2000) + (1 - value) * 0.1
        np.testing.assert_allclose(bound, want, rtol=1e-5)
    np.testing.assert_allclose(ben_david.best_alpha(50, 200, 0.0, capacity), 0.2, rtol=1e-6)
    assert ben_david.best_alpha(50, 200, jnp.inf, capacity) == 1
