"""Rollouts whose outcome is known, and that nothing beside an episode changes it."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax.policy import chunks
from ambient_jax.policy.control import RecedingHorizon
from ambient_jax.rollout import episodes as episodes_lib
from ambient_jax.rollout import rollout
from ambient_jax.rollout.environment import MakeEnv, Outcome
from tests.rollout import envs

QUIET = dict(execute=2, progress=False)


def make(**kwargs):
    return MakeEnv(envs.ENV, "tests.rollout.envs", kwargs)


def towards_goal(observation, x_t):
    """Half the way, then all of it, whatever the noise."""
    state, goal = observation["state"][:, -1:], observation["goal"][:, -1:]
    return jnp.broadcast_to(state + 0.5 * (goal - state), x_t.shape)


def away(observation, x_t):
    return jnp.full(x_t.shape, 3.0)


class Network(nn.Module):
    """Has random parameters: its chunks depend on the noise and the whole history."""

    @nn.compact
    def __call__(self, x_t, sigma, observation):
        rows = [v.reshape(len(v), -1) for v in (x_t, sigma, *observation.values())]
        hidden = nn.tanh(nn.Dense(32)(jnp.concatenate(rows, axis=1)))
        return nn.Dense(8)(hidden).reshape(x_t.shape)


def network():
    policy = envs.policy(towards_goal)
    inputs = {name: jnp.zeros((1, *s.shape)) for name, s in policy.chain.inputs(2).items()}
    model = Network()
    params = model.init(jax.random.key(0), jnp.zeros((1, 4, 2)), jnp.zeros(1), inputs)["params"]
    options = dict(model=model, params=params, steps=3, solver="ddpm", clip=1.0)
    return dataclasses.replace(policy, **options)


def columns(found):
    fields = {name: np.asarray(v).tolist() for name, v in vars(found).items() if name != "infos"}
    return fields | {name: values.tolist() for name, values in found.infos.items()}


def test_outcomes_are_those_of_an_episode_run_by_hand():
    found = rollout(envs.policy(towards_goal), make(), episodes=5, envs=2, seed=3, **QUIET)
    for e in range(5):
        env = envs.Reach()
        observation, _ = env.reset(seed=3 + e)
        rewards, over, step = [], False, 0
        while not over:
            if step % 2 == 0:
                action = (observation["state"] + observation["goal"]) / 2
            observation, reward, terminated, truncated, info = env.step(action)
            rewards, step, over = [*rewards, reward], step + 1, terminated or truncated
        assert (found.lengths[e], found.terminated[e]) == (step, terminated)
        assert found.success[e] == info["is_success"]
        assert found.returns[e] == pytest.approx(sum(rewards), rel=1e-6)
        assert found.best_rewards[e] == pytest.approx(max(rewards), rel=1e-6)
        assert found.infos["distance"][e] == pytest.approx(info["distance"], rel=1e-6)
    assert found.seeds.tolist() == [3, 4, 5, 6, 7] and found.success_from == "is_success"
    assert set(found.infos) == {"distance", "is_success"}
    assert found.success.all() and 0 < found.rate.low < found.rate.value == found.rate.high == 1


def test_every_counted_step_is_one_of_an_episode():
    envs.Reach.calls = 0
    found = rollout(envs.policy(towards_goal), make(), episodes=7, envs=3, **QUIET)
    assert envs.Reach.calls == found.lengths.sum()
    assert len(set(found.lengths.tolist())) > 1  # they end at different steps


@pytest.mark.parametrize("count", [1, 5])
def test_an_episode_depends_on_its_seed_alone(count):
    policy = network()
    expected = rollout(policy, make(), episodes=8, envs=3, **QUIET)
    found = rollout(policy, make(), episodes=8, envs=count, **QUIET)
    assert columns(found) == columns(expected)
    # Of another seed, the episodes in common are the same starts with other noise.
    later = rollout(policy, make(), episodes=2, envs=2, seed=1, **QUIET)
    assert later.seeds.tolist() == [1, 2]
    assert later.infos["distance"][0] != expected.infos["distance"][1]


@pytest.mark.slow
def test_processes_give_the_same_episodes():
    policy = network()
    expected = rollout(policy, make(), episodes=4, envs=3, **QUIET)
    found = rollout(policy, make(), episodes=4, envs=2, vectorization="async", **QUIET)
    assert columns(found) == columns(expected)


def test_a_history_has_no_step_of_the_episode_before():
    seen = []

    def ramp(observation, x_t):
        state, goal = observation["state"][:, -1:], observation["goal"][:, -1:]
        return state + jnp.array([0.1, 0.2, 0.3])[:, None] * (goal - state)

    class Seeing:
        def __init__(self, policy):
            self.policy, self.history, self.horizon = policy, policy.history, policy.horizon
            self.check, self.dims = policy.check, policy.dims

        def __call__(self, observation, keys):
            seen.append({name: value.copy() for name, value in observation.items()})
            return self.policy(observation, keys)

    policy = Seeing(envs.policy(ramp, history=3, horizon=3))
    options = dict(episodes=3, envs=2, execute=3, batch=1, progress=False)
    rollout(policy, make(noise=0.0), **options)
    starts = [(h["state"] == 0).all() for h in seen]
    assert sum(starts) == 3 < len(seen)  # a first plan sees the start, repeated
    for history, is_start in zip(seen, starts, strict=True):
        assert (history["goal"] == history["goal"][:, :1]).all()  # of one episode
        assert is_start or (np.diff(history["state"], axis=1) != 0).all()  # a step each, once


@pytest.mark.parametrize(
    "kwargs, option, key, share",
    [
        ({"success": "is_success", "ends": False}, "", "is_success", 1),  # at any step
        ({"success": "success"}, "", "success", 1),
        ({"success": ""}, "", "terminated", 1),
        ({"success": "won"}, "", "terminated", 1),
        ({"success": "won", "ends": False}, "", "terminated", 0),
        ({"success": "won", "ends": False}, "won", "won", 1),
        ({"success": "success", "ends": False}, "terminated", "terminated", 0),
    ],
)
def test_which_key_says_success(kwargs, option, key, share):
    policy = envs.policy(towards_goal)
    found = rollout(policy, make(**kwargs), episodes=3, envs=3, success=option, **QUIET)
    assert (found.success_from, found.rate.value) == (key, share)


def test_a_key_that_some_episodes_lack_is_false_there():
    ended = lambda flags: Outcome(0.0, 0.0, 3, True, 0, flags, {})  # noqa: E731
    found = episodes_lib.gathered({0: ended({}), 1: ended({"success": True})}, seed=0)
    assert found.success.tolist() == [False, True] and found.success_from == "success"
    with pytest.raises(ValueError, match="success is 'won', which no info has; .* have no numbers"):
        episodes_lib.gathered({0: ended({})}, seed=0, success="won")


def test_actions_outside_of_the_space_are_counted_or_clipped():
    found = rollout(envs.policy(away), make(noise=0.0), episodes=2, envs=2, **QUIET)
    assert found.outside.tolist() == [1, 1] and found.lengths.tolist() == [1, 1]
    found = rollout(envs.policy(away), make(noise=0.0), episodes=2, envs=2, clip=True, **QUIET)
    assert found.outside.tolist() == [1, 1] and found.lengths.tolist() == [12, 12]


def test_episodes_that_were_run_are_not_run_again():
    policy, told = envs.policy(towards_goal), {}
    keep = dict(on_episode=told.__setitem__, **QUIET)
    first = rollout(policy, make(), episodes=3, envs=2, **keep)
    assert sorted(told) == [0, 1, 2]
    envs.Reach.calls, done = 0, dict(told)
    more = rollout(policy, make(), episodes=5, envs=2, done=done, **keep)
    assert envs.Reach.calls == more.lengths[3:].sum()
    assert columns(rollout(policy, make(), episodes=5, envs=5, **QUIET)) == columns(more)
    envs.Reach.calls = 0
    again = rollout(policy, make(), episodes=3, envs=2, done=told, **QUIET)
    assert envs.Reach.calls == 0 and columns(again) == columns(first)


def test_a_control_may_return_an_action_a_step():
    class Acts(RecedingHorizon):
        plan = None

        def act(self, key):
            return RecedingHorizon.plan(self, key)[:, 0]

    policy = network()
    options = dict(episodes=5, envs=2, progress=False)
    found = rollout(policy, make(), control=lambda p: Acts(p, 1), **options)
    assert columns(found) == columns(rollout(policy, make(), execute=1, **options))


def test_a_policy_needs_only_what_a_control_uses():
    class Remote:
        history, horizon = 1, 4

        def check(self, observation, between):
            return {name: np.asarray(value, np.float32) for name, value in observation.items()}

        def __call__(self, observation, keys):
            assert keys.shape == (8,) and observation["robot/xy"].shape == (8, 1, 2)
            return np.repeat(observation["target"], 4, axis=1)

    found = rollout(Remote(), make(form="nested", noise=0.0), episodes=2, envs=1, **QUIET)
    assert found.success.all() and found.lengths.tolist() == [1, 1]


def test_a_control_is_told_how_much_the_policy_may_know():
    class Short:
        history, horizon, most_known = 1, 4, 1

    control = lambda p: chunks.Control(p, chunks.RealTime(), execute=2, delay=2)  # noqa: E731
    with pytest.raises(ValueError, match="delay is 2 with RealTime, expected at most 1"):
        rollout(Short(), make(), episodes=1, control=control, progress=False)


def test_a_bad_argument_is_one_clear_line():
    policy = envs.policy(towards_goal)
    with pytest.raises(ValueError, match="envs is 0, expected a whole number at least 1|envs is 0"):
        rollout(policy, make(), envs=0)
    with pytest.raises(ValueError, match="execute is 9, expected 1 to 4"):
        rollout(policy, make(), execute=9)
    with pytest.raises(ValueError, match="vectorization is 'threads', expected one of sync, async"):
        rollout(policy, make(), vectorization="threads", **QUIET)
    bad = envs.policy(lambda observation, x_t: jnp.full(x_t.shape, jnp.nan))
    with pytest.raises(ValueError, match="the plan of episode 0 is not finite"):
        rollout(bad, make(), **QUIET)
    wide = dataclasses.replace(policy, chain=wider(policy.chain))
    with pytest.raises(ValueError, match="the policy's actions have 3 numbers"):
        rollout(wide, make(), **QUIET)


def wider(chain):
    """The chain of a policy with three actions."""
    normalizer = chain.normalizer
    grown = [
        {n: np.pad(v, (0, 1), constant_values=1) if n == "action" else v for n, v in maps.items()}
        for maps in (normalizer.shift, normalizer.scale)
    ]
    changed = dataclasses.replace(normalizer, shift=grown[0], scale=grown[1])
    return dataclasses.replace(chain, normalizer=changed)
