"""The client alone: one file without JAX, its codec, and how it comes back to a server."""

import pathlib
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import websockets.sync.server

from ambient_jax.serve import client as client_module
from ambient_jax.serve.client import Client, Refused, pack, unpack
from ambient_jax.serve.server import Options, running
from tests.serve import made


def test_the_file_alone_drives_a_policy_without_jax(tmp_path):
    shutil.copy(client_module.__file__, tmp_path / "robot_client.py")
    script = """
import sys
import numpy as np
import robot_client

with robot_client.Client("127.0.0.1", int(sys.argv[1]), patience=0) as client:
    seen = {"state": np.zeros(3), "goal": np.ones(2), "seed": 4}
    print(client.infer(seen)["actions"].tolist())
print(sorted({name.split(".")[0] for name in sys.modules}))
"""
    with running(made.policy(), Options(port=0, max_batch=1)) as port:
        done = subprocess.run(
            [sys.executable, "-c", script, str(port)], cwd=tmp_path, capture_output=True, text=True
        )
    assert not done.returncode, done.stderr
    chunk, loaded = map(eval, done.stdout.splitlines())
    seen = {"state": np.zeros((1, 3)), "goal": np.ones((1, 2))}
    assert made.close(np.float32(chunk), made.local(made.policy(), seen, 4))
    assert {"numpy", "msgpack", "websockets"} <= set(loaded)
    assert not {"jax", "flax", "ambient_jax", "absl", "pickle5"} & set(loaded)


def test_nothing_here_unpickles():
    for path in pathlib.Path(client_module.__file__).parent.glob("*.py"):
        text = path.read_text()
        assert "import pickle" not in text and "np.load" not in text, path


VALUES = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.zeros((0, 3), np.int16),
    np.array(3.5),
    np.array([True, False]),
    np.array(["go", "stop"]),
    np.arange(3, dtype=">f8"),
    np.float16(0.5),
    np.arange(12).reshape(3, 4)[:, ::2],
]


@pytest.mark.parametrize("value", VALUES, ids=lambda v: f"{v.dtype}{v.shape}")
def test_arrays_come_back_as_they_were(value):
    got = unpack(pack({"x": value}))["x"]
    assert got.dtype == value.dtype and got.shape == value.shape
    np.testing.assert_array_equal(got, value)


def test_plain_values_come_back():
    message = {"a": [1, 2.5, None, True], "b": {"c": "text"}, "d": np.int64(3)}
    assert unpack(pack(message)) == message


@pytest.mark.parametrize("bad", (object(), {1, 2}, np.array([None]), np.zeros(2, complex), 2**70))
def test_what_has_no_form_is_not_packed(bad):
    with pytest.raises(ValueError, match="the message cannot be packed"):
        pack({"x": bad})


def test_a_server_that_is_not_there_is_told_in_one_line():
    with pytest.raises(ConnectionError, match=r"no answer of a policy server at ws://127.0.0.1:9"):
        Client("127.0.0.1", 9, patience=0)
    with pytest.raises(ValueError, match="the address is no websocket's"):
        Client("ws://", None, patience=0)


def test_an_error_of_the_server_leaves_the_client_usable():
    with running(made.policy(), Options(port=0, max_batch=1, max_message=5000)) as port:
        with Client(f"ws://127.0.0.1:{port}", None, patience=0) as robot:
            with pytest.raises(Refused, match="observation 'goal' is missing"):
                robot.infer({"state": np.zeros(3)})
            with pytest.raises(ValueError, match="has 8.*bytes, the server takes 5000"):
                robot.infer({"state": np.zeros(1000)})
            robot.metadata.pop("max_message")
            with pytest.raises(Refused, match="exceeds limit of 5000 bytes"):
                robot.infer({"state": np.zeros(1000)})
            assert robot.infer(made.observation())["actions"].shape == (made.HORIZON, 2)
            robot.close()
            assert robot.infer(made.observation())["actions"].shape == (made.HORIZON, 2)


def test_it_waits_for_a_server_that_starts_again():
    seen = {n: v[None] for n, v in made.observation(1).items()}
    expected = made.local(made.policy(), seen, 2)
    with running(made.policy(), Options(port=0, max_batch=1)) as port:
        robot = Client("127.0.0.1", port, patience=60)
        assert made.close(robot.infer({**made.observation(1), "seed": 2})["actions"], expected)
    answers = []
    ask = lambda: answers.append(robot.infer({**made.observation(1), "seed": 2}))  # noqa: E731
    waiting = threading.Thread(target=ask)
    waiting.start()
    time.sleep(0.3)
    assert waiting.is_alive()
    with running(made.policy(), Options(port=port, max_batch=1)):
        waiting.join(30)
        robot.close()
    assert made.close(answers[0]["actions"], expected)


def test_a_server_that_falls_silent_counts_as_lost():
    asked = []

    def silent_once(connection):
        connection.send(pack({"history": 1}))
        for message in connection:
            asked.append(unpack(message))
            if len(asked) > 1:
                connection.send(pack({"actions": np.ones((1, 1))}))

    with websockets.sync.server.serve(silent_once, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        port = server.socket.getsockname()[1]
        with Client("127.0.0.1", port, timeout=0.3, patience=20) as robot:
            assert robot.infer({"x": 1})["actions"] == 1
        server.shutdown()
        thread.join(10)
    assert asked == [{"x": 1}, {"x": 1}]
