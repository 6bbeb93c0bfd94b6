"""A served policy in place of a local one, in the receding horizon."""

import contextlib
import dataclasses

import jax
import numpy as np
import pytest

from ambient_jax.policy.control import RecedingHorizon
from ambient_jax.rollout import rollout
from ambient_jax.rollout.environment import MakeEnv
from ambient_jax.serve.client import Refused
from ambient_jax.serve.remote import Pool, RemotePolicy
from ambient_jax.serve.server import Options, running
from ambient_jax.transforms.chain import Chain
from ambient_jax.transforms.steps import Role
from tests.rollout import envs
from tests.serve import made

ROBOTS = 5


@pytest.fixture(scope="module")
def policy():
    return made.policy(2, True)


@pytest.fixture(scope="module")
def remote(policy):
    with running(policy, Options(port=0, max_batch=4)) as port:
        with RemotePolicy.connect("127.0.0.1", port, connections=3, patience=0) as remote:
            yield remote


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
    with pytest.raises(ValueError, match=r"'state' has shape \(5, 3\), expected \(5, 2, 3\)"):
        remote(seen, 0)
    with pytest.raises(ValueError, match="not finite"):
        RecedingHorizon(remote, 1)({**seen, "goal": np.full((ROBOTS, 2), np.nan)}, 0)


def test_cameras_come_and_go_and_a_text_may_be_one_for_all(policy, remote):
    """The larger camera is absent at first: its frames are black there, of the policy's size."""
    loops = [RecedingHorizon(p, execute=2) for p in (policy, remote)]
    for step, left_out in enumerate((("image_front",), (), ("image_wrist", "image_front"), ())):
        seen = {n: v for n, v in newest(step).items() if n not in ("instruction", *left_out)}
        seen = {"instruction": "open", **dict(reversed(seen.items()))}
        here, there = (loop(seen, jax.random.key(step)) for loop in loops)
        assert made.close(here, there), step
        for one in (p.check(seen, ()) for p in (policy, remote)):
            np.testing.assert_array_equal(one["image_front_mask"], "image_front" in seen)


def test_a_role_is_asked_for_in_all_steps_or_in_none():
    chain = Chain(made.NORMALIZER, (Role(("mine",), (True,)),))
    policy = dataclasses.replace(made.policy(2), chain=chain)
    seen = {n: v[None] for n, v in made.observation(0).items()}
    with running(policy, Options(port=0, max_batch=1)) as port:
        with RemotePolicy.connect("127.0.0.1", port, connections=1, patience=0) as remote:
            asked = [RecedingHorizon(p, 2)({**seen, "is_clean": 0}, 1) for p in (policy, remote)]
            assert made.close(*asked)
            control = RecedingHorizon(remote, 2)
            control.observe(seen)
            with pytest.raises(ValueError, match="has state, goal, is_clean, expected the names"):
                control.observe({**seen, "is_clean": 0})


def test_a_text_may_be_bytes(policy, remote):
    seen = {n: v[:, None].repeat(2, 1) for n, v in newest(0).items() if n != "instruction"}
    here, there = (p({**seen, "instruction": b"open"}, 3) for p in (policy, remote))
    assert made.close(np.asarray(here), there)


def test_a_rollout_of_a_served_policy_takes_a_constant_text():
    policy = made.policy(1, True)
    options = dict(episodes=2, envs=2, batch=2, execute=2, progress=False)
    options["constant"] = {"instruction": "open", "state": [0.5, 0.0, 1.0]}
    env = MakeEnv(envs.ENV, "tests.rollout.envs", {"limit": 4})
    with running(policy, Options(port=0, max_batch=2)) as port:
        with RemotePolicy.connect("127.0.0.1", port, connections=1, patience=0) as remote:
            here, there = (rollout(p, env, **options) for p in (policy, remote))
    np.testing.assert_allclose(here.returns, there.returns, rtol=1e-4)


def test_every_row_has_a_key_and_is_of_the_same_number(remote):
    seen = {n: v[:, None].repeat(2, 1) for n, v in newest(0).items() if n != "instruction"}
    seen["instruction"] = "open"
    with pytest.raises(ValueError, match="key has 4 keys, expected one, or one for each of 5"):
        remote(seen, jax.random.split(jax.random.key(0), 4))
    with pytest.raises(ValueError, match=r"'goal' has shape \(4, 2, 2\), expected \(5, 2, 2\)"):
        remote({**seen, "goal": seen["goal"][:4]}, 0)
    with pytest.raises(ValueError, match="the instruction has 3 texts, expected 5 texts"):
        remote({**seen, "instruction": ["", "", ""]}, 0)
    with pytest.raises(ValueError, match="'image_front' is missing where its mask is True"):
        hidden = {n: v for n, v in seen.items() if n != "image_front"}
        remote({**hidden, "image_front_mask": np.ones((5, 2), bool)}, 0)
    with pytest.raises(ValueError, match="the observation is empty, expected state, goal, image"):
        remote({n: v if n == "instruction" else v[:0] for n, v in seen.items()}, 0)


def test_an_error_leaves_no_request_in_work():
    policy = made.Held(made.policy())
    with running(policy, Options(port=0, max_batch=1)) as port, contextlib.ExitStack() as opened:
        clients = [opened.enter_context(made.client(port)) for _ in range(2)]
        with contextlib.closing(Pool(clients)) as pool:
            before, good = len(policy.calls), made.observation(0)
            with pytest.raises(Refused, match="'goal' is missing"):
                pool([{"state": good["state"]}, good] * 10)
            assert len(policy.calls) - before == 10  # all that the other client had to ask
            assert len(pool([good, good])) == 2


def test_connections_end_with_the_policy_and_where_one_of_them_fails():
    with running(made.policy(), Options(port=0, max_batch=1, max_clients=2)) as port:
        with pytest.raises(ConnectionError, match="2 clients are connected"):
            RemotePolicy.connect("127.0.0.1", port, connections=3, patience=0)
        seen = {n: v[None] for n, v in made.observation(0, history=1).items()}
        for _ in range(2):
            # The server takes a moment to see that a client has gone.
            with RemotePolicy.connect("127.0.0.1", port, connections=2, patience=5) as remote:
                assert remote(seen, 0).shape == (1, made.HORIZON, 2)
