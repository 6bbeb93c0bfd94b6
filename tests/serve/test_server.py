"""The server beside the policy that it serves: answers, histories, batches, limits."""

import concurrent.futures
import time

import jax
import numpy as np
import pytest

from ambient_jax.policy.policy import Policy
from ambient_jax.serve.client import Refused
from ambient_jax.serve.server import Options, running
from ambient_jax.transforms.chain import Chain
from ambient_jax.transforms.normalizer import Normalizer
from ambient_jax.transforms.steps import Mask, Role
from tests.serve import made


@pytest.fixture(scope="module")
def port():
    with running(made.policy(), Options(port=0, max_batch=4)) as number:
        yield number


@pytest.fixture(scope="module")
def seeing():
    with running(made.policy(2, True), Options(port=0, max_batch=4)) as number:
        yield number


def test_metadata_tell_what_to_send(seeing):
    with made.client(seeing) as robot:
        told = robot.metadata
    assert told["observations"]["state"] == {"shape": [3], "dtype": "float32", "optional": False}
    image = {"shape": [8, 6, 3], "dtype": "uint8", "optional": True}
    assert told["observations"]["image_wrist"] == image
    text = {"shape": [], "dtype": "str", "optional": False}
    assert told["observations"]["instruction"] == text
    assert (told["history"], told["horizon"], told["action_dim"]) == (2, made.HORIZON, 2)
    assert (told["solver"], told["solver_steps"], told["max_batch"]) == ("ddim", 2, 4)
    assert told["version"] and told["max_message"] == 16 * 2**20


def test_an_answer_is_the_local_chunk_with_the_times_of_openpi(port):
    seen = made.observation(1)
    with made.client(port) as robot:
        first, second = (robot.infer({**seen, "seed": 5}) for _ in range(2))
    expected = made.local(made.policy(), {n: v[None] for n, v in seen.items()}, 5)
    assert first["actions"].dtype == np.float32 and made.close(first["actions"], expected)
    np.testing.assert_array_equal(first["actions"], second["actions"])
    assert first["policy_timing"]["infer_ms"] > 0 and first["server_timing"]["infer_ms"] > 0
    assert "prev_total_ms" not in first["server_timing"]
    assert second["server_timing"]["prev_total_ms"] > 0


def test_a_request_may_have_the_rows_own_key(port):
    seen, key = made.observation(2), jax.random.fold_in(jax.random.key(3), 7)
    with made.client(port) as robot:
        got = robot.infer({**seen, "key": np.asarray(jax.random.key_data(key))})["actions"]
    row = {n: v[None, None] for n, v in seen.items()}
    assert made.close(got, np.asarray(made.policy()(row, key[None]))[0])


def test_without_a_seed_every_answer_is_another_draw(port):
    seen = made.observation(3)
    with made.client(port) as robot:
        one, other = (robot.infer(seen)["actions"] for _ in range(2))
    assert np.abs(one - other).max() > 1e-3


def test_names_and_types_of_openpi_clients(seeing):
    seen = made.observation(0, sees=True)
    whole = {n: v if isinstance(v, str) else np.stack([v, v]) for n, v in seen.items()}
    expected = made.local(made.policy(2, True), whole, 0)
    with made.client(seeing) as robot:

        def ask(**fields):
            return robot.infer({**fields, "reset": True, "seed": 0})["actions"]

        renamed = {f"observation/{n}": v for n, v in seen.items() if n != "instruction"}
        assert made.close(ask(**renamed, prompt=seen["instruction"]), expected)
        listed = {n: v.tolist() if n in ("state", "goal") else v for n, v in seen.items()}
        assert made.close(ask(**listed), expected)
        other = {
            **seen,
            "state": seen["state"].astype(">f8"),
            "instruction": np.str_("open the drawer"),
        }
        assert made.close(ask(**other), expected)


def test_the_server_keeps_the_history_of_each_connection(seeing):
    policy = made.policy(2, True)
    steps = [made.observation(s, sees=True) for s in (0, 3, 6)]  # of one instruction
    others = [made.observation(s, sees=True) for s in (1, 4)]

    def chunk(before, now, seed):
        pair = {n: v if isinstance(v, str) else np.stack([before[n], v]) for n, v in now.items()}
        return made.local(policy, pair, seed)

    def ask(robot, step, seed, **more):
        return robot.infer({**step, "seed": seed, **more})["actions"]

    # front is of a size that differs from the network's: shapes of all steps agree
    with made.client(seeing) as robot, made.client(seeing) as other:
        assert made.close(ask(robot, steps[0], 0), chunk(steps[0], steps[0], 0))
        assert made.close(ask(other, others[0], 1), chunk(others[0], others[0], 1))
        assert made.close(ask(robot, steps[1], 2), chunk(steps[0], steps[1], 2))
        assert made.close(ask(other, others[1], 3), chunk(others[0], others[1], 3))
        with pytest.raises(Refused, match="'state' of environment 0 is not finite"):
            robot.infer({**steps[0], "state": np.full(3, np.nan)})
        assert made.close(ask(robot, steps[2], 4), chunk(steps[1], steps[2], 4))
        robot.reset()
        assert made.close(ask(robot, steps[1], 5), chunk(steps[1], steps[1], 5))
        whole = {n: v if isinstance(v, str) else np.stack([v, v]) for n, v in steps[0].items()}
        assert made.close(ask(robot, whole, 6), chunk(steps[0], steps[0], 6))
        assert made.close(ask(robot, steps[2], 7), chunk(steps[0], steps[2], 7))
        assert "actions" not in robot.infer({"reset": True})
        assert made.close(ask(robot, steps[2], 8), chunk(steps[2], steps[2], 8))


def test_a_camera_may_be_missing(seeing):
    seen = made.observation(1, history=2, sees=True)
    del seen["image_front"]
    with made.client(seeing) as robot:
        got = robot.infer({**seen, "seed": 1})["actions"]
    assert made.close(got, made.local(made.policy(2, True), seen, 1))


def wait_until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_robots_share_batches_without_mixing_them_up_and_nothing_is_compiled():
    policy = made.Held(made.policy(2, True))
    seeds = range(7)
    asked = {s: made.observation(s, history=2, sees=True) for s in seeds}
    expected = {s: made.local(made.policy(2, True), asked[s], s) for s in seeds}
    compiled = []

    def count(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    with running(policy, Options(port=0, max_batch=8)) as port:
        assert set(policy.calls) == {1, 4, 8}  # warm before the port is open
        jax.monitoring.register_event_duration_secs_listener(count)
        jax.jit(lambda x: x * 3.25 + 1)(np.zeros(3))
        assert len(compiled) == 1  # the listener sees what is compiled
        before, pool = len(policy.calls), concurrent.futures.ThreadPoolExecutor(8)
        robots = [made.client(port) for _ in range(8)]
        policy.go.clear()
        first = pool.submit(robots[7].infer, {**asked[0], "seed": 0})
        wait_until(lambda: len(policy.calls) == before + 1)
        rest = [pool.submit(robots[s].infer, {**asked[s], "seed": s}) for s in seeds]
        time.sleep(0.3)
        policy.go.set()
        answers = [f.result(20) for f in rest]
        assert made.close(first.result(20)["actions"], expected[0])
        for seed, answer in zip(seeds, answers, strict=True):
            assert made.close(answer["actions"], expected[seed]), seed
        assert max(a["server_timing"]["batch"] for a in answers) >= 6
        assert set(policy.calls[before:]) <= {1, 4, 8} and 8 in policy.calls[before:]
        robots[0].infer({k: v for k, v in asked[1].items() if k != "image_wrist"})
        robots[0].infer({**asked[1], "key": np.zeros(2, np.uint32)})
        assert len(compiled) == 1
        for robot in robots:
            robot.close()
    jax.monitoring.unregister_event_duration_listener(count)


def test_a_failing_policy_fails_the_request_alone(quiet):
    class Moody(made.Held):
        def __call__(self, observation, key):
            if (np.asarray(observation["state"]) == 7).all():
                raise RuntimeError("out of memory\non the device")
            answer = np.array(self._policy(observation, key))
            return answer * np.where(observation["goal"][:, :1, :1] == 9, np.nan, 1)

    seen = made.observation(0)
    with running(Moody(made.policy()), Options(port=0, max_batch=1)) as port:
        with made.client(port) as robot:
            with pytest.raises(Refused, match=r"the policy failed \(RuntimeError\)"):
                robot.infer({**seen, "state": np.full(3, 7.0)})
            with pytest.raises(Refused, match="actions for this request are not finite"):
                robot.infer({**seen, "goal": np.full(2, 9.0)})
            assert robot.infer(seen)["actions"].shape == (made.HORIZON, 2)


def test_masks_roles_and_wide_numbers_are_served_without_compiling():
    shift = {"action": np.zeros(2), "observation/state": np.array([1.7e9 + 0.3, 0, 0])}
    scale = {name: np.ones(len(v), np.float32) for name, v in shift.items()}
    masks = {"action": np.array([True, False]), "observation/state": np.array([True, True, False])}
    steps = (Mask(masks), Role(("mine",), (True,)))
    chain = Chain(Normalizer("bounds", shift, scale), steps)
    params = {"gain": np.float32(0.3)}
    policy = Policy(made.Sees(), params, chain, horizon=made.HORIZON, history=1, steps=2)
    assert chain.wide == ("state",)
    narrow = {"state": np.array([1.7e9 + 0.9, 0.2])}  # of the robot's width
    expected = made.local(policy, {"state": narrow["state"][None]}, 1)
    corrupt = made.local(policy, {"state": narrow["state"][None], "is_clean": np.zeros((1, 1))}, 1)
    assert not made.close(expected, corrupt)
    compiled = []
    count = lambda event, _, **__: compiled.append(event) if "compile" in event else None  # noqa: E731
    with running(policy, Options(port=0, max_batch=4)) as port, made.client(port) as robot:
        jax.monitoring.register_event_duration_secs_listener(count)
        got = robot.infer({**narrow, "seed": 1})["actions"]
        asked = [robot.infer({**narrow, "seed": 1, "is_clean": c})["actions"] for c in (0.0, 1.0)]
        jax.monitoring.unregister_event_duration_listener(count)
        assert {"state_mask", "is_clean"} < set(robot.metadata["observations"])
    assert made.close(got, expected) and made.close(asked[1], expected)
    assert made.close(asked[0], corrupt)
    assert not compiled
