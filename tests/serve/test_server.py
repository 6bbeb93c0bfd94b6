"""The server beside the policy that it serves: answers, histories, batches, limits."""

import concurrent.futures
import http.client
import logging
import threading
import time

import jax
import numpy as np
import pytest
import websockets.sync.client
from absl import logging as absl_logging

from ambient_jax.policy.policy import Policy
from ambient_jax.serve.client import Client, Refused, pack, unpack
from ambient_jax.serve.server import Options, Server, running
from ambient_jax.transforms.chain import Chain
from ambient_jax.transforms.normalizer import Normalizer
from ambient_jax.transforms.steps import Mask, Role
from tests.serve import made


def connect(port, **options):
    address = f"ws://127.0.0.1:{port}"
    return websockets.sync.client.connect(address, compression=None, proxy=None, **options)


def client(port, **options):
    return Client("127.0.0.1", port, **{"patience": 0, **options})


@pytest.fixture(scope="module")
def port():
    with running(made.policy(), Options(port=0, max_batch=4)) as number:
        yield number


@pytest.fixture(scope="module")
def seeing():
    with running(made.policy(2, True), Options(port=0, max_batch=4)) as number:
        yield number


def test_metadata_tell_what_to_send(seeing):
    with client(seeing) as robot:
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
    with client(port) as robot:
        first, second = (robot.infer({**seen, "seed": 5}) for _ in range(2))
    expected = made.local(made.policy(), {n: v[None] for n, v in seen.items()}, 5)
    assert first["actions"].dtype == np.float32 and made.close(first["actions"], expected)
    np.testing.assert_array_equal(first["actions"], second["actions"])
    assert first["policy_timing"]["infer_ms"] > 0 and first["server_timing"]["infer_ms"] > 0
    assert "prev_total_ms" not in first["server_timing"]
    assert second["server_timing"]["prev_total_ms"] > 0


def test_a_request_may_have_the_rows_own_key(port):
    seen, key = made.observation(2), jax.random.fold_in(jax.random.key(3), 7)
    with client(port) as robot:
        got = robot.infer({**seen, "key": np.asarray(jax.random.key_data(key))})["actions"]
    row = {n: v[None, None] for n, v in seen.items()}
    assert made.close(got, np.asarray(made.policy()(row, key[None]))[0])


def test_without_a_seed_every_answer_is_another_draw(port):
    seen = made.observation(3)
    with client(port) as robot:
        one, other = (robot.infer(seen)["actions"] for _ in range(2))
    assert np.abs(one - other).max() > 1e-3


def test_names_and_types_of_openpi_clients(seeing):
    seen = made.observation(0, sees=True)
    whole = {n: v if isinstance(v, str) else np.stack([v, v]) for n, v in seen.items()}
    expected = made.local(made.policy(2, True), whole, 0)
    with client(seeing) as robot:

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
    with client(seeing) as robot, client(seeing) as other:
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
    with client(seeing) as robot:
        got = robot.infer({**seen, "seed": 1})["actions"]
    assert made.close(got, made.local(made.policy(2, True), seen, 1))


class Held:
    """A policy whose calls wait for a permission, so that requests gather."""

    def __init__(self, policy):
        self._policy, self.calls = policy, []
        self.go = threading.Event()
        self.go.set()

    def __getattr__(self, name):
        return getattr(self._policy, name)

    def __call__(self, observation, key):
        self.calls.append(len(observation["state"]))
        self.go.wait(20)
        return self._policy(observation, key)


def wait_until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_robots_share_batches_without_mixing_them_up_and_nothing_is_compiled():
    policy = Held(made.policy(2, True))
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
        robots = [client(port) for _ in range(8)]
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


def test_a_failing_policy_fails_the_request_alone():
    class Moody(Held):
        def __call__(self, observation, key):
            if (np.asarray(observation["state"]) == 7).all():
                raise RuntimeError("out of memory\non the device")
            answer = np.array(self._policy(observation, key))
            return answer * np.where(observation["goal"][:, :1, :1] == 9, np.nan, 1)

    absl_logging.get_absl_logger().setLevel(logging.CRITICAL)
    seen = made.observation(0)
    with running(Moody(made.policy()), Options(port=0, max_batch=1)) as port:
        with client(port) as robot:
            with pytest.raises(Refused, match=r"the policy failed \(RuntimeError\)"):
                robot.infer({**seen, "state": np.full(3, 7.0)})
            with pytest.raises(Refused, match="actions for this request are not finite"):
                robot.infer({**seen, "goal": np.full(2, 9.0)})
            assert robot.infer(seen)["actions"].shape == (made.HORIZON, 2)


def get(port, path, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_health(port):
    assert get(port, "/healthz") == (200, b"OK\n")


def test_the_number_of_clients_is_limited_and_a_place_is_free_again():
    with running(made.policy(), Options(port=0, max_batch=1, max_clients=2)) as port:
        with client(port), client(port):
            with pytest.raises(ConnectionError, match="503 2 clients are connected, the most"):
                client(port)
            assert get(port, "/healthz") == (200, b"OK\n")
            waiting = concurrent.futures.ThreadPoolExecutor(1).submit(client, port, patience=20)
            time.sleep(0.1)
        waiting.result(20).close()


def test_a_token_is_asked_for_but_not_for_health():
    with running(made.policy(), Options(port=0, max_batch=1, token="geheim")) as port:
        for wrong in ("", "geheimer", "Geheim", "x" * 5000):
            with pytest.raises(PermissionError, match="401 expected the header 'Authorization"):
                client(port, token=wrong)
        bearer = {"Authorization": "Bearer geheim"}
        with pytest.raises(websockets.exceptions.InvalidStatus):
            connect(port, additional_headers=bearer)
        with client(port, token="geheim") as robot:
            assert robot.infer(made.observation())["actions"].shape == (made.HORIZON, 2)
        assert get(port, "/healthz")[0] == 200


def test_a_page_in_a_browser_is_refused(port):
    with pytest.raises(websockets.exceptions.InvalidStatus, match="403"):
        connect(port, origin="http://evil.example")


def test_idle_and_slow_senders_are_closed_and_hold_nobody():
    options = Options(port=0, max_batch=1, idle_timeout=0.4)
    frame = b"\x82\xfe\x03\xe8" + bytes(4) + bytes(10)  # 10 of 1000 bytes
    with running(made.policy(), options) as port:
        idle, slow = connect(port), connect(port)
        assert unpack(idle.recv())["horizon"] == unpack(slow.recv())["horizon"]
        slow.socket.sendall(frame)
        with client(port) as robot:
            assert robot.infer(made.observation())["actions"].shape == (made.HORIZON, 2)
        for connection in (idle, slow):
            with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
                connection.recv(10)
            assert closed.value.rcvd.code == 1001
            assert closed.value.rcvd.reason == "no request for too long"


def test_who_does_not_read_answers_is_closed_and_holds_nobody():
    wide = 5000  # actions in a chunk: answers fill the sockets' buffers

    class Wide(Held):
        horizon = wide

        def __call__(self, observation, key):
            return np.zeros((len(observation["state"]), wide, 200), np.float32)

    absl_logging.get_absl_logger().setLevel(logging.CRITICAL)
    options = Options(port=0, max_batch=1, send_timeout=0.5)
    with running(Wide(made.policy()), options) as port:
        deaf = connect(port, max_size=None, max_queue=1)
        for _ in range(8):
            deaf.send(pack(made.observation()))
        with client(port) as robot:
            for _ in range(3):
                assert len(robot.infer(made.observation())["actions"]) == wide
        time.sleep(1)
        with pytest.raises(websockets.exceptions.ConnectionClosed):
            for _ in range(9):
                deaf.recv(10)


def test_the_policy_does_not_hold_the_loop():
    policy = Held(made.policy())
    with running(policy, Options(port=0, max_batch=1)) as port, client(port) as robot:
        policy.go.clear()
        waiting = concurrent.futures.ThreadPoolExecutor(1).submit(robot.infer, made.observation())
        assert get(port, "/healthz") == (200, b"OK\n")
        with client(port) as other:
            with pytest.raises(Refused, match="is missing"):
                other.infer({})
        assert not waiting.done()
        policy.go.set()
        assert waiting.result(20)["actions"].shape == (made.HORIZON, 2)


def test_stopping_answers_what_is_queued_and_closes_with_1001():
    policy = Held(made.policy())
    server, ready = Server(policy, Options(port=0, max_batch=1)), concurrent.futures.Future()
    thread = threading.Thread(target=server.run, args=(ready.set_result,), daemon=True)
    thread.start()
    port = ready.result(60)
    idle, robots = connect(port), [connect(port) for _ in range(3)]
    for connection in (idle, *robots):
        connection.recv()
    policy.go.clear()
    for seed, robot in enumerate(robots):
        robot.send(pack({**made.observation(seed), "seed": seed}))
    time.sleep(0.3)
    server.stop()
    with pytest.raises(websockets.exceptions.ConnectionClosedOK) as closed:
        idle.recv(10)
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "the server stops")
    with pytest.raises(OSError):
        connect(port)
    policy.go.set()
    for seed, robot in enumerate(robots):
        seen = {n: v[None] for n, v in made.observation(seed).items()}
        got = unpack(robot.recv(10))["actions"]
        assert made.close(got, made.local(made.policy(), seen, seed))
        with pytest.raises(websockets.exceptions.ConnectionClosedOK) as closed:
            robot.recv(10)
        assert closed.value.rcvd.code == 1001
    thread.join(20)
    assert not thread.is_alive() and server.answered == 3


def test_a_stuck_policy_does_not_keep_the_server_from_ending():
    policy = Held(made.policy())
    with running(policy, Options(port=0, max_batch=1, drain_timeout=0.3)) as port:
        robot = connect(port)
        robot.recv()
        policy.go.clear()
        robot.send(pack(made.observation()))
        time.sleep(0.2)
    policy.go.set()
    with pytest.raises(websockets.exceptions.ConnectionClosed):
        robot.recv(10)


def test_names_of_the_protocol_are_no_observations():
    maps = {"action": np.zeros(2, np.float32), "observation/seed": np.zeros(1, np.float32)}
    policy = Policy(made.Sees(), {}, Normalizer("none", maps, maps), horizon=4, history=1)
    with pytest.raises(ValueError, match="has an observation 'seed', a name of the protocol"):
        Server(policy, Options())


def test_wrong_options_are_told():
    with pytest.raises(ValueError, match="the token has spaces"):
        Options(token="two words")
    with pytest.raises(ValueError, match="max_batch is 0, expected at least 1"):
        Options(max_batch=0)
    with pytest.raises(ValueError, match="port is 70000, expected at most 65535"):
        Options(port=70000)
    with pytest.raises(ValueError, match="idle_timeout is 0, expected above 0"):
        Options(idle_timeout=0)


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
    with running(policy, Options(port=0, max_batch=4)) as port, client(port) as robot:
        jax.monitoring.register_event_duration_secs_listener(count)
        got = robot.infer({**narrow, "seed": 1})["actions"]
        asked = [robot.infer({**narrow, "seed": 1, "is_clean": c})["actions"] for c in (0.0, 1.0)]
        jax.monitoring.unregister_event_duration_listener(count)
        assert {"state_mask", "is_clean"} < set(robot.metadata["observations"])
    assert made.close(got, expected) and made.close(asked[1], expected)
    assert made.close(asked[0], corrupt)
    assert not compiled
