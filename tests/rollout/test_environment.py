"""Environments by name, and one that a vector environment steps beside others."""

import numpy as np
import pytest

from ambient_jax.rollout import environment
from tests.rollout import envs


def test_an_environment_is_made_by_its_name():
    env = environment.MakeEnv(envs.ENV, "tests.rollout.envs", {"limit": 3})()
    assert env.unwrapped.limit == 3 and env.render_mode is None
    env = environment.MakeEnv(f"tests.rollout.envs:{envs.ENV}").rendering()()
    assert env.render_mode == "rgb_array"
    assert environment.MakeEnv("CartPole-v1")().spec.id == "CartPole-v1"


@pytest.mark.parametrize(
    "make, message",
    [
        (environment.MakeEnv("Nowhere-v0"), "env is 'Nowhere-v0', expected an id that gymnasium"),
        (environment.MakeEnv("nowhere:Nowhere-v0"), "ModuleNotFoundError"),
        (environment.MakeEnv(envs.ENV, "no.module"), "env_module is 'no.module', expected a mod"),
        (environment.MakeEnv(envs.ENV, "", {"speed": 1}), "does not take .*{'speed': 1}"),
    ],
)
def test_what_cannot_be_made_is_one_line(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_episode_ends_at_the_limit_of_its_steps():
    env = environment.Held(envs.Reach(limit=10**9, success=""), index=0, max_steps=4)
    env.reset(seed=0)
    outcomes = [env.step(np.zeros(2, np.float32))[-1].get("outcome") for _ in range(5)]
    assert [outcome is not None for outcome in outcomes] == [False, False, False, True, False]
    assert (outcomes[3].length, outcomes[3].terminated) == (4, False)


def test_it_stays_as_it_is_until_it_is_seeded_again():
    env = environment.Held(envs.Reach(limit=3, success="success"), index=1)
    first, _ = env.reset(seed=4)
    infos = [env.step(np.zeros(2, np.float32))[-1] for _ in range(3)]
    assert [bool(info) for info in infos] == [False, False, True]
    outcome = infos[-1]["outcome"]
    assert (outcome.length, outcome.terminated, outcome.flags) == (3, False, {"success": False})
    envs.Reach.calls = 0
    last, reward, terminated, truncated, info = env.step(np.ones(2, np.float32))
    assert (reward, terminated, truncated, info, envs.Reach.calls) == (0, False, False, {}, 0)
    again, _ = env.reset()
    assert again is last
    begun, _ = env.reset(seed=4)
    np.testing.assert_array_equal(begun["goal"], first["goal"])
    assert env.step(np.zeros(2, np.float32))[-1] == {}


def test_a_vector_environment_never_resets_it():
    vector = environment.vectorised(lambda: envs.Reach(limit=2), 2)
    vector.reset(seed=[0, 1], options={})
    vector.reset(seed=[None, None], options={})  # changes nothing
    seen = [vector.step(np.zeros((2, 2), np.float32)) for _ in range(4)]
    assert not any(step[2].any() or step[3].any() for step in seen)
    ended = [step[4].get("outcome") for step in seen]
    assert [e is not None for e in ended] == [False, True, False, False]
    assert [outcome.length for outcome in ended[1]] == [2, 2]
    vector.close()


def test_only_single_numbers_are_kept_and_a_success_is_one_boolean():
    class Informed(envs.Reach):
        def step(self, action):
            result = super().step(action)
            result[-1].update(flag=np.True_, count=np.int64(3), one=np.array([0.5]), two=np.ones(2))
            return result

    env = environment.Held(Informed(limit=1, success=""), index=0)
    env.reset(seed=0)
    outcome = env.step(np.zeros(2, np.float32))[-1]["outcome"]
    assert {"flag": 1.0, "count": 3.0, "one": 0.5}.items() <= outcome.infos.items()
    assert not {"two", "text"} & set(outcome.infos)
    env = environment.Held(Informed(limit=1), index=0, success="two")
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"info\['two'\] has shape \(2,\), expected one boolean"):
        env.step(np.zeros(2, np.float32))
