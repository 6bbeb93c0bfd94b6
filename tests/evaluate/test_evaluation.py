"""Losses and action errors of policies whose answers are known."""

import dataclasses
import types

import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax.data import rlds
from ambient_jax.data.rlds_source import RldsSource
from ambient_jax.evaluate import evaluation
from ambient_jax.policy.policy import Policy
from ambient_jax.transforms.normalizer import Normalizer

SCALE = 2.0


def policy_of(x0, horizon=4):
    """A policy that is sure of x0(observation), [B, H, D] in normalised units."""
    names = ("action", "observation/state", "observation/goal")
    maps = [{name: np.full(2, value, np.float32) for name in names} for value in (0.0, SCALE)]
    model = types.SimpleNamespace(apply=lambda _, x_t, sigma, o: x0(x_t, o))
    normalizer = Normalizer("gaussian", *maps)
    return Policy(model, None, normalizer, horizon=horizon, history=1, prediction="x0")


def chunks(n=400, off=0.0):
    rng = np.random.default_rng(0)
    observation = {name: rng.normal(size=(n, 1, 2)) for name in ("state", "goal")}
    action = np.repeat(observation["state"], 4, axis=1) + np.array([off, 0.0])
    mask = np.arange(4) < rng.integers(1, 5, (n, 1))
    return evaluation.Chunks(observation, action, mask)


def test_a_constant_offset_is_the_action_error_of_its_dimension():
    sure = policy_of(lambda x_t, o: jnp.broadcast_to(o["state"], x_t.shape))
    error, ahead = evaluation.action_error(sure, chunks(off=0.6))
    np.testing.assert_allclose(error, [0.6, 0.0], atol=1e-5)
    np.testing.assert_allclose(ahead, np.full(4, 0.6 / np.sqrt(2)), rtol=1e-5)


def test_masked_actions_count_nowhere():
    sure = policy_of(lambda x_t, o: jnp.broadcast_to(o["state"], x_t.shape))
    data = chunks()
    data.action[~data.mask] = 100.0
    assert np.all(evaluation.action_error(sure, data)[0] < 1e-5)
    loss = evaluation.denoising_loss(sure, *data[:3], levels=(0.1, 0.9))
    np.testing.assert_allclose(loss, 0, atol=1e-9)
    data.action[data.mask] += 0.6
    loss = evaluation.denoising_loss(sure, *data[:3], levels=(0.1, 0.9))
    np.testing.assert_allclose(loss, (0.6 / SCALE) ** 2, rtol=1e-4)


def test_losses_are_those_of_the_data_without_a_large_offset():
    """Two dimensions of range 10 about 1.7e9, where neighbours in float32 are 128 apart."""

    def measured(offset):
        like = policy_of(lambda x_t, o: jnp.broadcast_to(o["state"], x_t.shape))
        maps = like.normalizer.shift, like.normalizer.scale
        shift, scale = (
            {**m, "observation/state": np.full(2, v)}
            for m, v in zip(maps, (offset + 5, 5.0), strict=True)
        )
        policy = dataclasses.replace(like, chain=Normalizer("bounds", shift, scale))
        rng = np.random.default_rng(0)
        place = rng.uniform(0, 10, (2, 300, 1, 2))
        goal = rng.normal(size=(300, 1, 2))
        seen, other = ({"state": offset + one, "goal": goal} for one in place)
        data = evaluation.Chunks(seen, rng.normal(size=(300, 4, 2)), np.ones((300, 4), bool))
        options = dict(levels=(0.1, 0.9))
        losses = evaluation.row_losses(policy, data, **options)
        return losses, evaluation.differences(policy, data, other, **options)

    for far, near in zip(measured(1.7e9), measured(0.0), strict=True):
        np.testing.assert_allclose(far, near, rtol=1e-5, atol=1e-6)


def test_recorded_chunks_are_those_of_the_data_set(toy_data):
    dataset = rlds.open_dataset(toy_data["good"])
    policy = policy_of(lambda x_t, o: x_t)
    source = RldsSource(dataset, observation=("state", "goal"))
    found = evaluation.recorded(source, policy, episodes=3, samples=10**6)
    lengths = sorted(len(dataset[i]["steps"]["action"]) for i in range(len(dataset)))
    assert sum(lengths[:3]) <= len(found.action) <= sum(lengths[-3:])
    known = np.concatenate([dataset[i]["steps"]["action"] for i in range(len(dataset))])
    first = {tuple(np.round(row, 5)) for row in found.action[:, 0]}
    assert first <= {tuple(np.round(row, 5)) for row in known}
    again = evaluation.recorded(source, policy, episodes=3, samples=10**6)
    np.testing.assert_array_equal(found.action, again.action)
    with pytest.raises(ValueError, match="nowhere"):
        rlds.open_dataset(toy_data["good"], "nowhere")
