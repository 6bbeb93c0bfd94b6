import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax.data.normalizer import Normalizer
from ambient_jax.evaluate import evaluation
from ambient_jax.policy.policy import Policy
from experiments.maze import data, report

SCALE = 2.0
SIGMAS = (0.01, 0.1, 0.5, 0.9)


def gaussian_chunks(n, seed, noise=0.3):
    """Chunks [n, 4, 2] = now + a random walk: linear in the observation, Gaussian around it."""
    rng = np.random.default_rng(seed)
    state, goal = rng.normal(size=(n, 1, 2)), rng.normal(size=(n, 1, 2))
    walk = np.cumsum(noise * rng.normal(size=(n, 4, 2)), 1)
    return {"state": state, "goal": goal}, state + 0.5 * goal + walk


def policy_of(apply, prediction="x0"):
    """A policy whose network is a function (x_t, sigma, observation) of normalised inputs."""
    names = ("action", "observation/state", "observation/goal")
    maps = [{name: np.full(2, value, np.float32) for name in names} for value in (0.0, SCALE)]
    model = types.SimpleNamespace(apply=lambda _, x_t, sigma, o: apply(x_t, sigma, o))
    normalizer = Normalizer("gaussian", *maps)
    return Policy(model, None, normalizer, horizon=4, history=1, prediction=prediction)


def test_the_linear_loss_of_a_random_walk_is_that_of_its_modes():
    """Closed form: mean over modes of sigma^2 v / (alpha^2 v + sigma^2), v of a walk's covariance
    ``noise^2 min(i, j)``."""
    got = report.linear_loss(gaussian_chunks(200_000, 0), gaussian_chunks(50_000, 1), SCALE)
    v = np.linalg.eigvalsh(np.minimum.outer(np.arange(1, 5), np.arange(1, 5)) * (0.3 / SCALE) ** 2)
    sigma = np.array(evaluation.LEVELS)[:, None]
    want = np.mean(sigma**2 * v / ((1 - sigma**2) * v + sigma**2), 1)
    np.testing.assert_allclose(got, want, rtol=0.02)


def test_a_network_that_is_the_linear_denoiser_has_its_loss():
    test = gaussian_chunks(20_000, 1)
    want = report.linear_loss(gaussian_chunks(100_000, 0), test, SCALE, levels=SIGMAS)
    v, modes = np.linalg.eigh(
        np.minimum.outer(np.arange(1, 5), np.arange(1, 5)) * (0.3 / SCALE) ** 2
    )

    def wiener(x_t, sigma, observation):
        s = sigma[0]
        a = jnp.sqrt((1 - s) * (1 + s))
        mean = observation["state"] + 0.5 * observation["goal"]
        rest = jnp.einsum("bhd,hk->bkd", x_t - a * mean, jnp.asarray(modes))
        gain = a * v / (a**2 * v + s**2)
        return mean + jnp.einsum("bkd,hk->bhd", gain[:, None] * rest, jnp.asarray(modes))

    got = evaluation.denoising_loss(policy_of(wiener), *test, levels=SIGMAS, samples=20_000)
    np.testing.assert_allclose(got, want, rtol=0.03)


@pytest.mark.parametrize("prediction", ["x0", "eps", "v"])
def test_the_loss_is_that_of_x0_whatever_is_predicted(prediction):
    """A network that answers with the noised chunk's own content: x0_hat = x_t / alpha."""
    test = gaussian_chunks(20_000, 1)

    def apply(x_t, sigma, observation):
        s = sigma[:, None, None]
        a = jnp.sqrt(1 - s**2)
        return {"x0": x_t / a, "eps": 0 * x_t, "v": -s / a * x_t}[prediction]

    got = evaluation.denoising_loss(
        policy_of(apply, prediction), *test, levels=SIGMAS, samples=20_000
    )
    sigma = np.array(SIGMAS)
    np.testing.assert_allclose(got, sigma**2 / (1 - sigma**2), rtol=0.03)


def test_chunks_of_a_data_set(tmp_path):
    directory = data.build(tmp_path, clean=2, corrupt=2, progress=False, workers=1)["rrt"]
    first, second = data.load_positions(directory)
    observation, action = report.chunks(directory, history=2, horizon=5)
    assert len(action) == len(first) + len(second) - 2
    np.testing.assert_array_equal(observation["state"][0], [first[0], first[0]])
    np.testing.assert_array_equal(observation["state"][3], first[2:4])
    np.testing.assert_array_equal(action[3], first[4:9])
    np.testing.assert_array_equal(action[-1], np.tile(second[-1], (5, 1)))  # held
    np.testing.assert_array_equal(observation["goal"][-1], np.tile(second[-1], (2, 1)))
    assert jax.tree.map(np.shape, observation) == {n: (len(action), 2, 2) for n in observation}
