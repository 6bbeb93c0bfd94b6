"""The server's limits: health, tokens, clients, slow and silent robots, and its end."""

import concurrent.futures
import http.client
import threading
import time

import numpy as np
import pytest
import websockets.exceptions

from ambient_jax.policy.policy import Policy
from ambient_jax.serve.client import Refused, pack, unpack
from ambient_jax.serve.server import Options, Server, running
from ambient_jax.transforms.normalizer import Normalizer
from tests.serve import made


@pytest.fixture(scope="module")
def port():
    with running(made.policy(), Options(port=0, max_batch=4)) as number:
        yield number


def get(port, path, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_health(port):
    assert get(port, "/healthz") == (200, b"OK\n")


def test_the_number_of_clients_is_limited_and_a_place_is_free_again():
    with running(made.policy(), Options(port=0, max_batch=1, max_clients=2)) as port:
        with made.client(port), made.client(port):
            with pytest.raises(ConnectionError, match="503 2 clients are connected, the most"):
                made.client(port)
            assert get(port, "/healthz") == (200, b"OK\n")
            waiting = concurrent.futures.ThreadPoolExecutor(1).submit(
                made.client, port, patience=20
            )
            time.sleep(0.1)
        waiting.result(20).close()


def test_a_token_is_asked_for_but_not_for_health():
    with running(made.policy(), Options(port=0, max_batch=1, token="geheim")) as port:
        for wrong in ("", "geheimer", "Geheim", "x" * 5000):
            with pytest.raises(PermissionError, match="401 expected the header 'Authorization"):
                made.client(port, token=wrong)
        bearer = {"Authorization": "Bearer geheim"}
        with pytest.raises(websockets.exceptions.InvalidStatus):
            made.connect(port, additional_headers=bearer)
        with made.client(port, token="geheim") as robot:
            assert robot.infer(made.observation())["actions"].shape == (made.HORIZON, 2)
        assert get(port, "/healthz")[0] == 200


def test_a_page_in_a_browser_is_refused(port):
    with pytest.raises(websockets.exceptions.InvalidStatus, match="403"):
        made.connect(port, origin="http://evil.example")


def test_a_client_may_idle_too_long_in_the_moment_of_the_stop():
    server = Server(made.policy(), Options(port=0, max_batch=1, idle_timeout=0.2))
    port = concurrent.futures.Future()

    def late():
        time.sleep(0.3)  # the loop then sees the stop and the end of the client's time at once
        server.stop()

    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        ended = thread.submit(server.run, port.set_result)
        with made.connect(port.result(60)) as idle:
            idle.recv()
            while not server._receiving:
                time.sleep(0.001)
            server._loop.call_soon_threadsafe(late)
            ended.result(20)


def test_idle_and_slow_senders_are_closed_and_hold_nobody():
    options = Options(port=0, max_batch=1, idle_timeout=0.4)
    frame = b"\x82\xfe\x03\xe8" + bytes(4) + bytes(10)  # 10 of 1000 bytes
    with running(made.policy(), options) as port:
        idle, slow = made.connect(port), made.connect(port)
        assert unpack(idle.recv())["horizon"] == unpack(slow.recv())["horizon"]
        slow.socket.sendall(frame)
        with made.client(port) as robot:
            assert robot.infer(made.observation())["actions"].shape == (made.HORIZON, 2)
        for connection in (idle, slow):
            with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
                connection.recv(10)
            assert closed.value.rcvd.code == 1001
            assert closed.value.rcvd.reason == "no request for too long"


def test_who_does_not_read_answers_is_closed_and_holds_nobody(quiet):
    wide = 5000  # actions in a chunk: answers fill the sockets' buffers

    class Wide(made.Held):
        horizon = wide

        def __call__(self, observation, key):
            return np.zeros((len(observation["state"]), wide, 200), np.float32)

    options = Options(port=0, max_batch=1, send_timeout=0.5)
    with running(Wide(made.policy()), options) as port:
        deaf = made.connect(port, max_size=None, max_queue=1)
        for _ in range(8):
            deaf.send(pack(made.observation()))
        with made.client(port) as robot:
            for _ in range(3):
                assert len(robot.infer(made.observation())["actions"]) == wide
        time.sleep(1)
        with pytest.raises(websockets.exceptions.ConnectionClosed):
            for _ in range(9):
                deaf.recv(10)


def test_the_policy_does_not_hold_the_loop():
    policy = made.Held(made.policy())
    with running(policy, Options(port=0, max_batch=1)) as port, made.client(port) as robot:
        policy.go.clear()
        waiting = concurrent.futures.ThreadPoolExecutor(1).submit(robot.infer, made.observation())
        assert get(port, "/healthz") == (200, b"OK\n")
        with made.client(port) as other:
            with pytest.raises(Refused, match="is missing"):
                other.infer({})
        assert not waiting.done()
        policy.go.set()
        assert waiting.result(20)["actions"].shape == (made.HORIZON, 2)


def test_stopping_answers_what_is_queued_and_closes_with_1001():
    policy = made.Held(made.policy())
    server, ready = Server(policy, Options(port=0, max_batch=1)), concurrent.futures.Future()
    thread = threading.Thread(target=server.run, args=(ready.set_result,), daemon=True)
    thread.start()
    port = ready.result(60)
    idle, robots = made.connect(port), [made.connect(port) for _ in range(3)]
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
        made.connect(port)
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
    policy = made.Held(made.policy())
    with running(policy, Options(port=0, max_batch=1, drain_timeout=0.3)) as port:
        robot = made.connect(port)
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
