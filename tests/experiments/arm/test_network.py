"""The network: waves are a basis; without its blocks it is the best linear denoiser."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.arm.network import Encoder, PlanDenoiser, waves

STEPS, JOINTS = 8, 7


def test_waves_are_an_orthonormal_basis_from_slow_to_fast():
    basis = waves(STEPS)
    np.testing.assert_allclose(basis.T @ basis, np.eye(STEPS), atol=1e-12)
    signs = np.sign(basis[:-1, :-1])
    turns = (np.diff(signs, axis=0) != 0).sum(0)
    assert turns[0] == 0 and (np.diff(turns) >= 0).all()
    np.testing.assert_array_equal(basis[-1, :-1], 0)  # they vanish at the goal


@pytest.fixture(scope="module")
def network():
    """A denoiser whose blocks predict 0, with its parameters, and start and goal [4, 7]."""
    model = PlanDenoiser(width=8, blocks=1)
    rng = np.random.default_rng(0)
    ends = rng.normal(size=(2, 4, JOINTS)).astype(np.float32)
    condition = jnp.concatenate([jnp.ones((4, 3)), *ends], -1)
    blank = jnp.zeros((4, 1, STEPS * JOINTS)), jnp.full(4, 0.5), condition
    params = model.init(jax.random.key(0), *blank)["params"]
    params["out"] = jax.tree.map(jnp.zeros_like, params["out"])
    return model, params, condition, ends


@pytest.mark.parametrize("sigma", [0.001, 0.1, 0.7, 0.999])
def test_without_blocks_it_is_the_linear_denoiser(network, sigma):
    """Of waves r ~ N(0, s^2): E[r | x] = alpha s^2 / (alpha^2 s^2 + sigma^2) (x - alpha m)."""
    model, params, condition, (start, goal) = network
    rng = np.random.default_rng(1)
    x_t = rng.normal(size=(4, STEPS, JOINTS))
    v = model.apply(
        {"params": params},
        jnp.float32(x_t).reshape(4, 1, -1),
        jnp.full(4, sigma, jnp.float32),
        condition,
    )
    alpha = np.sqrt(1 - sigma**2)
    x0_hat = alpha * x_t - sigma * np.asarray(v, float).reshape(x_t.shape)  # v = alpha eps - ...
    share = np.arange(1, STEPS + 1)[:, None] / STEPS
    mean = (1 - share) * start[:, None] + share * goal[:, None]
    size = np.append(0.5 / np.arange(1, STEPS) ** 1.5, 0.01)[:, None]
    wave = np.einsum("ts,btj->bsj", waves(STEPS), x_t - alpha * mean)
    wave *= alpha * size**2 / ((alpha * size) ** 2 + sigma**2)
    expected = mean + np.einsum("ts,bsj->btj", waves(STEPS), wave)
    np.testing.assert_allclose(x0_hat, expected, atol=2e-5)


def test_the_encoder_hands_on_start_and_goal():
    rng = np.random.default_rng(2)
    sizes = {"start": JOINTS, "goal": JOINTS, "hands": 6, "scene": 22}
    seen = {n: jnp.float32(rng.normal(size=(3, 1, d))) for n, d in sizes.items()}
    model = Encoder(width=8, depth=1)
    condition, _ = model.init_with_output(jax.random.key(0), seen)
    np.testing.assert_array_equal(condition[:, -2 * JOINTS : -JOINTS], seen["start"][:, 0])
    np.testing.assert_array_equal(condition[:, -JOINTS:], seen["goal"][:, 0])
    moved, _ = model.init_with_output(jax.random.key(0), seen | {"scene": seen["scene"] + 1})
    assert not np.allclose(condition[:, :-14], moved[:, :-14])
