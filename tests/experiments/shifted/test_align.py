"""Cameras that are found by a policy whose denoiser is known."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax import schedules
from ambient_jax.data.normalizer import Normalizer
from ambient_jax.evaluate.evaluation import Chunks
from ambient_jax.policy.policy import Policy
from experiments.shifted import align, shifts
from experiments.shifted.shifts import Shift

HORIZON, WIDTHS = 6, {"action": 2, "observation/pusher": 2, "observation/slider": 10}
NORMALIZER = Normalizer(
    "bounds",
    {name: np.full(width, 0.05, np.float32) for name, width in WIDTHS.items()},
    {name: np.full(width, 0.2, np.float32) for name, width in WIDTHS.items()},
)
SPREAD = 0.02  # of actions, normalised


def corners(pusher, slider):
    """Where the slider's three points are in the world, twice, as a chunk [..., 6, 2]."""
    points = slider[..., 4:].reshape(*slider.shape[:-1], 3, 2) + pusher[..., None, :]
    return jnp.concatenate([points, points], -2)


class Corners(nn.Module):
    """The denoiser (eps) of actions that go to the slider's points, up to ``SPREAD``."""

    @nn.compact
    def __call__(self, x_t, sigma, observation):
        pusher, slider = (0.2 * observation[n][:, -1] + 0.05 for n in ("pusher", "slider"))
        centre, level = (corners(pusher, slider) - 0.05) / 0.2, sigma[:, None, None]
        a = schedules.signal(level)
        return level * (x_t - a * centre) / ((SPREAD * a) ** 2 + level**2)


def states(rng, count):
    pusher, position = rng.uniform(-0.1, 0.1, (2, count, 2))
    return shifts.reported(pusher, position, rng.uniform(-1, 1, count))


@pytest.mark.parametrize("turn", [0.0, 0.4])
def test_a_camera_is_that_of_the_shifts(turn):
    rng = np.random.default_rng(0)
    true = states(rng, 20)
    expected = shifts.split(Shift(offset=(0.03, -0.02), turn=turn)(true, rng))
    got = align.seen_from(shifts.split(true), jnp.array([0.03, -0.02, turn]))
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, atol=1e-6)


def test_cameras_of_episodes_are_found_from_actions():
    """Each episode's reports come from a camera of its own; its actions from the true slider."""
    rng, episodes, steps = np.random.default_rng(1), 6, 12
    true = [shifts.split(states(rng, steps)) for _ in range(episodes)]
    cameras = rng.normal(size=(episodes, 3)) * [0.025, 0.025, 0.15]
    reported = [align.seen_from(t, c) for t, c in zip(true, cameras, strict=True)]
    observation = {
        n: np.concatenate([np.asarray(r[n]) for r in reported])[:, None] for n in true[0]
    }
    centre = np.concatenate([corners(t["pusher"], t["slider"]) for t in true])
    action = centre + 0.2 * SPREAD * rng.normal(size=centre.shape)
    origin = np.stack(np.unravel_index(np.arange(episodes * steps), (episodes, steps)), 1)
    mask = np.ones(action.shape[:2], bool)
    order = rng.permutation(len(action))
    chunks = Chunks(
        {n: v[order] for n, v in observation.items()}, action[order], mask, origin[order]
    )
    policy = Policy(Corners(), {}, NORMALIZER, horizon=HORIZON, history=1)
    found = align.find(policy, chunks, align.Options(chunks=12, batch=12, steps=150, rate=0.2))
    for report, camera, t in zip(reported, found, true, strict=True):
        before = align.apart(report["slider"], t["slider"])
        after = align.apart(np.asarray(align.seen_from(report, camera)["slider"]), t["slider"])
        assert after[0] < 0.002 and after[1] < 0.02, (before, after)


def test_distance_and_angle_of_two_reports():
    one = shifts.reported(np.zeros((2, 2)), np.zeros((2, 2)), np.array([3.1, 0.1]))
    other = shifts.reported(np.zeros((2, 2)), np.array([(0.03, 0.04)] * 2), np.array([-3.1, 0.3]))
    got = align.apart(shifts.split(one)["slider"], shifts.split(other)["slider"])
    np.testing.assert_allclose(got, [0.05, (2 * np.pi - 6.2 + 0.2) / 2], rtol=1e-5)
