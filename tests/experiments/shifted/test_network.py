"""The dense denoiser."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax.models.denoiser import build_denoiser

FIELDS = {"name": "experiments.shifted.network:Residual", "width": 8, "depth": 1}


def test_every_action_depends_on_chunk_level_and_observation():
    model = build_denoiser({**FIELDS, "encoder": {"frequencies": 0, "width": 8, "depth": 1}})
    inputs = jnp.ones((2, 4, 3)), jnp.array([0.2, 0.7]), {"state": jnp.ones((2, 1, 5))}
    params = model.init(jax.random.key(0), *inputs)
    y = model.apply(params, *inputs)
    assert y.shape == (2, 4, 3)
    x_t, sigma, observation = inputs
    for changed in (
        (x_t.at[:, 3].add(1), sigma, observation),
        (x_t, sigma + 0.1, observation),
        (x_t, sigma, {"state": observation["state"] + 1}),
    ):
        assert (np.abs(model.apply(params, *changed) - y) > 1e-5).all()


def test_wrong_sizes_are_named():
    with pytest.raises(ValueError, match="depth"):
        build_denoiser({**FIELDS, "depth": 0})
