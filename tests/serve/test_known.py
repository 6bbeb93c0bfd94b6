"""Real-time chunking through the server: requests with known actions, alone and among others."""

import concurrent.futures
import dataclasses

import jax
import numpy as np
import pytest

from ambient_jax.models.denoiser import build_denoiser
from ambient_jax.policy.chunks import Control, RealTime
from ambient_jax.serve import batching
from ambient_jax.serve.client import Refused, pack
from ambient_jax.serve.remote import RemotePolicy
from ambient_jax.serve.server import Options, running
from ambient_jax.serve.session import Session
from tests.serve import made
from tests.serve.test_server import wait_until

ROBOTS = 3


@pytest.fixture(scope="module")
def port():
    with running(made.policy(2), Options(port=0, max_batch=4)) as number:
        yield number


def test_the_chunk_is_that_of_the_policy(port):
    seen, given = made.observation(1, history=2), made.known(0)
    plain, with_known = (made.local(made.policy(2), seen, 5, **more) for more in ({}, given))
    with made.client(port) as robot:
        assert robot.metadata["real_time"] is True
        got = robot.infer({**seen, **given, "seed": 5})["actions"]
        lists = {n: v.tolist() for n, v in given.items()}
        assert made.close(robot.infer({**seen, **lists, "seed": 5})["actions"], with_known)
        nothing = {**given, "weights": np.zeros(made.HORIZON)}
        assert made.close(robot.infer({**seen, **nothing, "seed": 5})["actions"], plain)
    assert made.close(got, with_known)
    np.testing.assert_array_equal(got[0], given["known"][0])
    assert np.abs(with_known - plain)[:3].min() > 1e-3  # else this test could not fail


def test_robots_with_and_without_known_actions_share_a_batch_and_nothing_is_compiled():
    policy, compiled, asked, expected = made.Held(made.policy(2)), [], [], []
    for seed in range(6):
        seen, given = made.observation(seed, history=2), made.known(seed) if seed % 2 else {}
        asked.append({**seen, **given, "seed": seed})
        expected.append(made.local(made.policy(2), seen, seed, **given))
    rows = [Session(policy, 10**6).read(pack(one)) for one in asked]
    count = lambda event, _, **__: compiled.append(event) if "compile" in event else None  # noqa: E731
    batcher = batching.Batcher(policy, 8)
    batcher.start()
    jax.monitoring.register_event_duration_secs_listener(count)
    before = len(policy.calls)

    def submit(row):
        answer = concurrent.futures.Future()
        batcher.submit(row, answer.set_result)
        return answer

    policy.go.clear()
    first = submit(rows[1])
    wait_until(lambda: len(policy.calls) == before + 1)
    rest = [submit(row) for row in rows]  # wait while the first one is in work
    policy.go.set()
    answers = [one.result(20) for one in rest]
    without = submit(rows[0]).result(20)
    jax.monitoring.unregister_event_duration_listener(count)
    batcher.close()
    assert policy.calls[before:] == [1, 8, 1] and answers[0].rows == 6
    for answer, one in zip(answers, expected, strict=True):
        assert made.close(answer.actions, one)
    assert made.close(first.result().actions, expected[1])
    assert made.close(without.actions, expected[0])
    assert not compiled


def test_wrong_known_actions_leave_the_history_as_it_was(port):
    steps = [made.observation(s) for s in (0, 1)]
    pair = {n: np.stack([steps[0][n], v]) for n, v in steps[1].items()}
    with made.client(port) as robot:
        robot.infer(steps[0])
        with pytest.raises(Refused, match=r"known has shape \(3, 2\), expected \(4, 2\)"):
            given = made.known(0)
            robot.infer({**made.observation(7), **given, "known": given["known"][1:]})
        got = robot.infer({**steps[1], "seed": 3})["actions"]
    assert made.close(got, made.local(made.policy(2), pair, 3))


def test_control_in_real_time_acts_as_with_the_policy_itself(port):
    with RemotePolicy.connect("127.0.0.1", port, connections=2, patience=0) as remote:
        both = [Control(p, RealTime(), execute=2, delay=1) for p in (made.policy(2), remote)]
        for step in range(7):
            rows = [made.observation(step * ROBOTS + row) for row in range(ROBOTS)]
            seen = {n: np.stack([row[n] for row in rows]) for n in rows[0]}
            for control in both:
                if step == 4:
                    control.reset(np.arange(ROBOTS) == 1)  # has no old chunk: its weights are 0
                control.observe(seen)
            here, there = (control.act(jax.random.key(step)) for control in both)
            assert made.close(here, there), step


def test_a_server_without_it_says_so():
    class Old:
        """A policy that knows nothing of known actions."""

        def __init__(self, policy):
            self._policy = policy

        def __getattr__(self, name):
            return getattr(self._policy, name)

        def __call__(self, observation, key):
            return self._policy(observation, key)

    assert not batching.takes_known(Old(made.policy()))
    assert batching.takes_known(made.policy()) and batching.takes_known(made.Held(made.policy()))
    seen = made.observation(0)
    for policy, chosen in ((Old(made.policy()), True), (made.policy(), False)):
        with running(policy, Options(port=0, max_batch=1, real_time=chosen)) as port:
            with made.client(port) as robot:
                assert robot.metadata["real_time"] is False
                with pytest.raises(Refused, match="takes no known actions"):
                    robot.infer({**seen, **made.known(0)})
                assert robot.infer(seen)["actions"].shape == (made.HORIZON, 2)
            rows = {n: v[None, None] for n, v in seen.items()}
            with RemotePolicy.connect("127.0.0.1", port, connections=1, patience=0) as remote:
                with pytest.raises(ValueError, match="use another strategy than RealTime"):
                    remote(rows, 0, **{n: v[None] for n, v in made.known(0).items()})


def test_a_policy_that_learned_to_continue_takes_as_many_as_it_saw():
    model = build_denoiser({"name": "transformer", "width": 8, "depth": 1, "heads": 1, "prefix": 2})
    empty = dataclasses.replace(made.policy(), model=model)
    draw = np.random.default_rng(0)
    params = jax.tree.map(lambda p: 0.3 * draw.normal(size=p.shape), empty.parameter_shapes())
    policy = dataclasses.replace(empty, params=params)
    seen, given = made.observation(0, history=1), made.known(0)
    given["weights"] = np.float32([1, 1, 0.5, 0])
    with running(policy, Options(port=0, max_batch=2)) as port, made.client(port) as robot:
        assert robot.metadata["most_known"] == 2
        got = robot.infer({**seen, **given, "seed": 5})["actions"]
        assert made.close(got, made.local(policy, seen, 5, **given))
        np.testing.assert_array_equal(got[:2], given["known"][:2])
        with pytest.raises(
            Refused, match="known has 3 actions of weight 1, expected at most the 2"
        ):
            robot.infer({**seen, **given, "weights": np.float32([1, 1, 1, 0])})
