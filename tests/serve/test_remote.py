"""A served policy in place of a local one, in the receding horizon."""

import jax
import numpy as np
import pytest

from ambient_jax.policy.control import RecedingHorizon
from ambient_jax.serve.remote import RemotePolicy
from ambient_jax.serve.server import Options, running
from tests.serve import made

ROBOTS = 5


@pytest.fixture(scope="module")
def policy():
    return made.policy(2, True)


@pytest.fixture(scope="module")
def remote(policy):
    with running(policy, Options(port=0, max_batch=4)) as port:
        yield RemotePolicy.connect("127.0.0.1", port, connections=3, patience=0)


def newest(step):
    rows = [made.observation(3 * step + i, sees=True) for i in range(ROBOTS)]
    whole = {n: np.stack([row[n] for row in rows]) for n in rows[0] if n != "instruction"}
    return {**whole, "instruction": [row["instruction"] for row in rows]}


def test_the_receding_horizon_acts_as_with_the_policy_itself(policy, remote):
    loops = [RecedingHorizon(p, execute=2) for p in (policy, remote)]
    for step in range(3):
        seen, key = newest(step), jax.random.key(step)
        here, there = (loop(seen, key) for loop in loops)
        assert made.close(here, there), step
        for loop in loops:
            loop.observe(newest(step + 10))
    for loop in loops:
        loop.reset(np.arange(ROBOTS) == 2)
    here, there = (loop(newest(7), jax.random.key(9)) for loop in loops)
    assert made.close(here, there)


def test_wrong_observations_are_named(remote):
    seen = newest(0)
    with pytest.raises(ValueError, match="observation is 'stat', .*did you mean 'state'"):
        remote.check({**seen, "stat": seen["state"]}, ())
    with pytest.raises(ValueError, match="observation 'goal' is missing"):
        remote.check({n: v for n, v in seen.items() if n != "goal"}, ())
    with pytest.raises(ValueError, match=r"'state' has shape \(5, 3\), expected \(B, 2, 3\)"):
        remote(seen, 0)
    with pytest.raises(ValueError, match="not finite"):
        RecedingHorizon(remote, 1)({**seen, "goal": np.full((ROBOTS, 2), np.nan)}, 0)
