"""What is executed at which step, against schedules written out by hand, and what a chunk knows."""

import math

import jax
import numpy as np
import pytest

from ambient_jax.policy import chunks
from ambient_jax.policy.chunks import Control, Ensemble, RealTime, Receding
from tests.policy.test_policy import Unsure, make, observation

HORIZON = 8


class Clock:
    """Its observation is the step, and its actions tell where they come from: 1000 times the step
    at which the chunk was begun, plus the step for which the action is meant."""

    history, horizon = 2, HORIZON
    most_known = HORIZON

    def __init__(self):
        self.calls = []

    def check(self, observation, between):
        assert between == ()
        return {name: np.asarray(value, np.float32) for name, value in observation.items()}

    def __call__(self, observation, key, **given):
        self.calls.append(given)
        now = observation["step"][:, -1]
        return (1000 * now + now + np.arange(HORIZON))[..., None]


def executed(strategy, execute, delay, steps=20, policy=None):
    """The steps at which the executed chunks were begun, those that actions are meant for, and
    where a chunk arrived; [steps] each, of two equal environments."""
    control = Control(policy or Clock(), strategy, execute=execute, delay=delay)
    actions, arrived = [], []
    for step in range(steps):
        control.observe({"step": np.full((2, 1), step)})
        actions.append(control.act(step)[:, 0])
        arrived.append(control.arrived)
    actions = np.array(actions)
    np.testing.assert_array_equal(actions[:, 0], actions[:, 1])
    return *np.divmod(actions[:, 0], 1000), np.array(arrived)[:, 0]


@pytest.mark.parametrize("strategy", (Receding(), RealTime(), RealTime(soft=False)))
@pytest.mark.parametrize(("execute", "delay"), [(1, 0), (3, 0), (3, 2), (4, 4), (5, 3), (8, 0)])
def test_the_newest_chunk_that_is_there_is_executed(strategy, execute, delay):
    begun, meant, arrived = executed(strategy, execute, delay)
    steps = np.arange(20)
    np.testing.assert_array_equal(begun, np.maximum((steps - delay) // execute * execute, 0))
    np.testing.assert_array_equal(meant, steps)
    late = (steps % execute == delay % execute) & (steps >= execute + delay)
    np.testing.assert_array_equal(arrived, late | (steps == 0))


def test_by_hand():
    """execute 3, delay 2: the chunk of step 3 arrives at step 5."""
    begun, _, _ = executed(Receding(), 3, 2, 12)
    assert begun.tolist() == [0, 0, 0, 0, 0, 3, 3, 3, 6, 6, 6, 9]
    begun, meant, _ = executed(Receding(aligned=False), 3, 2, 9)
    assert begun.tolist() == [0, 0, 0, 0, 0, 3, 3, 3, 6]
    assert meant.tolist() == [0, 1, 2, 3, 4, 3, 4, 5, 6]  # two steps late


def test_ensemble_averages_by_hand():
    """Every 3 steps: at step 7 the chunks of steps 0, 3 and 6 have an action; with a delay of 2
    that of step 6 has not arrived. Weights exp(-0.5 i), the oldest first."""
    begun, _, _ = executed(Ensemble(0.5), 3, 0, 8)
    w = [1, math.exp(-0.5), math.exp(-1)]
    np.testing.assert_allclose(begun[7], (3 * w[1] + 6 * w[2]) // sum(w))
    control = Control(Clock(), Ensemble(0.5), execute=3, delay=2)
    for step in range(8):
        control.observe({"step": [[step]]})
        action = control.act(step)[0, 0]
    np.testing.assert_allclose(action, 7 + 1000 * 3 * w[1] / (w[0] + w[1]), rtol=1e-6)


def test_ensemble_of_late_chunks_begins_them_all_the_same():
    """A chunk a step, each 5 steps late: at step 7 those of steps 0 to 2 have arrived."""
    control = Control(Clock(), Ensemble(0.0), execute=1, delay=5)
    for step in range(8):
        control.observe({"step": [[step]]})
        action = control.act(step)[0, 0]
    np.testing.assert_allclose(action, 7 + 1000 * np.mean([0, 1, 2]))


def test_the_new_chunk_knows_the_rest_of_the_old_one():
    policy = Clock()
    executed(RealTime(), 3, 2, 7, policy)
    first, second, third = policy.calls
    assert first == {}
    np.testing.assert_array_equal(second["known"][0, :, 0], [3, 4, 5, 6, 7, 7, 7, 7])
    np.testing.assert_array_equal(third["known"][0, :5, 0], 3000 + np.arange(6, 11))
    # 2 are frozen; c = (5 - i) / 4 = 3/4, 2/4, 1/4 for the others that are known.
    soft = [c * (math.exp(c) - 1) / (math.e - 1) for c in (0.75, 0.5, 0.25)]
    want = [1, 1, *soft, 0, 0, 0]
    np.testing.assert_allclose(second["weights"], [want, want], rtol=1e-6)
    policy = Clock()
    executed(RealTime(soft=False), 3, 2, 7, policy)
    np.testing.assert_array_equal(policy.calls[1]["weights"][0], [1, 1, 0, 0, 0, 0, 0, 0])
    policy = Clock()
    executed(RealTime(), 4, 4, 7, policy)  # the rest is just the delay
    np.testing.assert_array_equal(policy.calls[1]["weights"][0], [1, 1, 1, 1, 0, 0, 0, 0])


def test_the_mask_falls_from_one_to_zero():
    for frozen, known in ((0, 8), (2, 6), (5, 5), (0, 0)):
        weights = chunks.mask(HORIZON, frozen, known)
        assert (weights[:frozen] == 1).all() and (weights[known:] == 0).all()
        between = weights[frozen:known]
        assert ((between > 0) & (between < 1)).all() and (np.diff(between) < 0).all()


def test_environments_restart_at_other_steps():
    """Environment 1 restarts at step 2; it plans by its own steps, and knows nothing of before."""
    policy = Clock()
    control = Control(policy, RealTime(), execute=3, delay=1)
    got = []
    for step in range(9):
        control.observe({"step": [[step], [step]]})
        got.append(control.act(step)[:, 0] // 1000)
        if step == 1:
            control.reset(np.array([False, True]))
    got = np.array(got)
    assert got[:, 0].tolist() == [0, 0, 0, 0, 3, 3, 3, 6, 6]
    assert got[:, 1].tolist() == [0, 0, 2, 2, 2, 2, 5, 5, 5]
    weights = [given.get("weights", np.zeros((2, HORIZON))).max(1) for given in policy.calls]
    np.testing.assert_array_equal(weights, [[0, 0], [0, 0], [1, 0], [0, 1], [1, 0], [0, 1]])
    control.reset()
    control.observe({"step": [[50]]})
    assert control.act(0).shape == (1, 1)


def test_an_environment_does_not_depend_on_the_others():
    seen = [{n: v[:, 0] for n, v in observation(seed=seed).items()} for seed in range(6)]

    def run(rows):
        control = Control(make(Unsure()), RealTime(), execute=4, delay=2)
        acts = []
        for step, now in enumerate(seen):
            control.observe({n: v[:rows] for n, v in now.items()})
            acts.append(control.act(jax.random.key(step)))
        return np.stack(acts)

    whole = run(5)
    np.testing.assert_array_equal(run(5), whole)
    np.testing.assert_allclose(run(2), whole[:, :2], atol=1e-4)
    assert np.abs(whole[0, 0] - whole[0, 1]).max() > 0.01


def test_frozen_actions_are_executed_as_they_were():
    """Of a real policy: a chunk that knows all that is left changes nothing until it ends."""
    seen = {n: v[:, 0] for n, v in observation().items()}
    policy = make(Unsure())
    control = Control(policy, RealTime(), execute=8, delay=8)
    acts = []
    for step in range(17):
        control.observe(seen)
        acts.append(control.act(jax.random.key(step)))
    history = {n: np.repeat(v[:, None], 2, 1) for n, v in seen.items()}
    first = np.asarray(policy(history, jax.random.key(0)))
    np.testing.assert_array_equal(np.stack(acts[:16], 1), first)
    weights = np.tile(chunks.mask(16, 8, 8), (5, 1))
    known = np.concatenate([first[:, 8:], first[:, 8:]], 1)
    second = np.asarray(policy(history, jax.random.key(8), known=known, weights=weights))
    np.testing.assert_array_equal(second[:, :8], first[:, 8:])
    np.testing.assert_array_equal(acts[16], second[:, 8])


def test_no_more_is_known_than_the_model_saw_in_training():
    policy = Clock()
    policy.most_known = 2
    with pytest.raises(ValueError, match="delay is 3 with RealTime, expected at most 2"):
        Control(policy, RealTime(), execute=4, delay=3)
    assert Control(policy, Receding(), execute=4, delay=3).delay == 3
    executed(RealTime(), 4, 2, policy=policy)
    assert max((given["weights"] == 1).sum(1).max() for given in policy.calls if given) == 2


def test_wrong_use_is_named():
    policy = Clock()
    with pytest.raises(ValueError, match="execute is 9"):
        Control(policy, execute=9)
    with pytest.raises(ValueError, match="delay is 4 with execute 3, expected 0 to 3"):
        Control(policy, execute=3, delay=4)
    with pytest.raises(ValueError, match="delay is 4 with execute 5, expected 0 to 3"):
        Control(policy, execute=5, delay=4)
    with pytest.raises(ValueError, match="delay is -1"):
        Control(policy, delay=-1)
    with pytest.raises(ValueError, match="rate is -1"):
        Ensemble(-1)
    control = Control(policy, execute=3)
    with pytest.raises(ValueError, match="nothing was observed since the reset"):
        control.act(0)
    control.observe({"step": [[0]]})
    control.act(0)
    with pytest.raises(ValueError, match=r"nothing was observed since the last act\(\)"):
        control.act(1)
