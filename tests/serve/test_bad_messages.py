"""No bad message ends the server, or changes what another robot is answered."""

import itertools
import socket
import struct
import threading

import pytest
import websockets.exceptions

from ambient_jax.serve.client import Client, pack, unpack
from ambient_jax.serve.server import Options, running
from tests.serve import made
from tests.serve.bad_messages import BROKEN, FRAMES, MESSAGES, MOST, WHOLE


@pytest.fixture(scope="module")
def policy():
    return made.policy(2, True)


@pytest.fixture(scope="module")
def port(policy):
    with running(policy, Options(port=0, max_batch=4, max_message=MOST)) as number:
        yield number


@pytest.fixture(scope="module", autouse=True)
def bystander(port, policy):
    """A robot that asks all the time: every answer must be the policy's, of one connection."""
    asked = [made.observation(s, history=2, sees=True) for s in range(5)]
    expected = [made.local(policy, o, s) for s, o in enumerate(asked)]
    stop, wrong, count = threading.Event(), [], itertools.count()

    def ask():
        try:
            with Client("127.0.0.1", port, patience=0) as robot:
                while not stop.is_set():
                    seed = next(count) % 5
                    got = robot.infer({**asked[seed], "seed": seed})["actions"]
                    if not made.close(got, expected[seed]):
                        wrong.append(seed)
                    stop.wait(0.005)
        except Exception as error:
            wrong.append(repr(error))

    thread = threading.Thread(target=ask)
    thread.start()
    yield
    stop.set()
    thread.join(20)
    assert not wrong and next(count) > len(MESSAGES)


def check(connection, policy, seed=3):
    """Asks a good question and compares the answer with the policy's."""
    connection.send(pack({**WHOLE, "seed": seed}))
    assert made.close(unpack(connection.recv(20))["actions"], made.local(policy, WHOLE, seed))


def test_there_are_many_kinds():
    assert len(MESSAGES) + len(FRAMES) + len(BROKEN) > 60


@pytest.mark.parametrize("kind", MESSAGES)
def test_is_answered_with_one_line_and_the_connection_goes_on(kind, port, policy):
    message, expected = MESSAGES[kind]
    with made.connect(port) as connection:
        connection.recv(20)
        connection.send(message)
        answer = connection.recv(20)
        assert isinstance(answer, str) and "\n" not in answer and len(answer) < 1000
        assert expected in answer
        check(connection, policy)


@pytest.mark.parametrize("kind", FRAMES)
def test_ends_its_own_connection(kind, port, policy):
    data, code = FRAMES[kind]
    with made.connect(port) as connection:
        connection.recv(20)
        connection.socket.sendall(data)
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            connection.recv(20)
    assert closed.value.rcvd.code == code and (closed.value.rcvd.reason or code == 1002)
    with made.connect(port) as connection:
        connection.recv(20)
        check(connection, policy)


@pytest.mark.parametrize("reset", (False, True))
@pytest.mark.parametrize("kind", BROKEN)
def test_a_message_that_breaks_off_holds_nobody(kind, reset, port, policy):
    broken = made.connect(port)
    broken.recv(20)
    broken.socket.sendall(BROKEN[kind])
    with made.connect(port) as connection:  # while the other waits for the rest of its message
        connection.recv(20)
        check(connection, policy)
    if reset:
        broken.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    broken.close_socket()
    with made.connect(port) as connection:
        connection.recv(20)
        check(connection, policy)


@pytest.mark.parametrize(
    "data",
    (
        b"",
        b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"POST /infer HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        b"GET /healthz HTTP/0.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 10_000,
        b"GET /" + b"a" * 100_000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # the first bytes of TLS
        b"SSH-2.0-OpenSSH_9.0\r\n",
    ),
)
def test_what_is_no_websocket_is_turned_away(data, port, policy):
    with socket.create_connection(("127.0.0.1", port), 20) as stranger:
        stranger.sendall(data)
        stranger.shutdown(socket.SHUT_WR)
        try:
            answer = stranger.recv(4096)
        except ConnectionResetError:
            answer = b""
        assert not answer or answer.startswith(b"HTTP/1.1 4")
    with made.connect(port) as connection:
        connection.recv(20)
        check(connection, policy)
