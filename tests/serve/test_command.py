"""The command, as its own process: start, SIGTERM, kill -9 and restart, one-line errors."""

import contextlib
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from ambient_jax.policy.policy import Policy
from ambient_jax.serve.client import Client, pack, unpack
from tests.serve import made

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return made.save(tmp_path_factory.mktemp("run"))


def command(*flags, **environment):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", **environment}
    arguments = [sys.executable, "-m", "ambient_jax.serve", *flags]
    return subprocess.Popen(arguments, env=env, stderr=subprocess.PIPE, text=True)


@contextlib.contextmanager
def started(*flags, **environment):
    """(process, port, lines of its log, which a thread goes on reading)"""
    process, lines, port = command(*flags, **environment), [], None
    try:
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r" at ws://[\d.]+:(\d+) in batches of", line):
                port = int(found[1])
                break
        assert port, "".join(lines)
        threading.Thread(target=lambda: lines.extend(process.stderr), daemon=True).start()
        yield process, port, lines
    finally:
        process.kill()
        process.wait()


def test_a_checkpoint_is_served_and_sigterm_drains(workdir):
    policy, seen = Policy.from_checkpoint(workdir), made.observation(1)
    flags = (f"--checkpoint={workdir}", "--port=0", "--max_batch=4", "--host=0.0.0.0", "--steps=3")
    with started(*flags, AMBIENT_JAX_SERVE_TOKEN="") as (process, port, lines):
        assert "listening on 0.0.0.0 without a token" in "".join(lines)
        with Client("127.0.0.1", port, patience=0) as robot:
            assert robot.metadata["checkpoint_step"] == 20
            assert robot.metadata["solver_steps"] == 3
            got = robot.infer({**seen, "seed": 3})["actions"]
            three = Policy.from_checkpoint(workdir, steps=3)
            assert made.close(got, made.local(three, {n: v[None] for n, v in seen.items()}, 3))
        with made.connect(port) as waiting:
            waiting.recv()
            waiting.send(pack(seen))
            process.send_signal(signal.SIGTERM)
            assert unpack(waiting.recv(20))["actions"].shape == (policy.horizon, 2)
            with pytest.raises(Exception, match="1001"):
                waiting.recv(20)
        assert process.wait(30) == 0
        time.sleep(0.1)
        assert "answered 2 requests, refused 0" in "".join(lines)


def test_clients_go_on_after_kill_9_and_a_restart(workdir):
    policy, count = Policy.from_checkpoint(workdir), 4
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = (f"--checkpoint={workdir}", f"--port={port}", "--max_batch=4", "--token=secret")
    seen = {s: made.observation(s) for s in range(5)}
    expected = {
        s: made.local(policy, {n: v[None] for n, v in o.items()}, s) for s, o in seen.items()
    }
    stop, wrong, answers = threading.Event(), [], [0] * count

    def robot(index):
        try:
            with Client("127.0.0.1", port, token="secret", patience=120) as client:
                while not stop.is_set():
                    seed = (answers[index] + index) % 5
                    got = client.infer({**seen[seed], "seed": seed})["actions"]
                    wrong.extend([] if made.close(got, expected[seed]) else [(index, seed)])
                    answers[index] += 1
        except Exception as error:
            wrong.append(repr(error))

    robots = [threading.Thread(target=robot, args=(i,)) for i in range(count)]
    for _ in range(2):
        with started(*flags) as (process, _, _):
            if not robots[0].ident:
                for thread in robots:
                    thread.start()
            before, end = list(answers), time.monotonic() + 60
            while min(np.subtract(answers, before)) < 20 and not wrong:
                assert time.monotonic() < end
                time.sleep(0.05)
            process.kill()  # SIGKILL, in the middle of requests
            assert process.wait(10) == -signal.SIGKILL
    with started(*flags):
        before, end = list(answers), time.monotonic() + 60
        while min(np.subtract(answers, before)) < 20 and not wrong:
            assert time.monotonic() < end
            time.sleep(0.05)
        stop.set()
        for thread in robots:
            thread.join(30)
    assert not wrong


def error_of(*flags, **environment):
    process = command(*flags, **environment)
    _, text = process.communicate(timeout=120)
    assert process.returncode
    return next(line for line in text.splitlines() if line.startswith("error: "))


def test_errors_are_one_line(workdir, tmp_path):
    assert "expected --checkpoint=<workdir" in error_of()
    assert f"no finished checkpoint at {tmp_path}" in error_of(f"--checkpoint={tmp_path}")
    given = f"--checkpoint={workdir}"
    assert "port is 99999, expected at most 65535" in error_of(given, "--port=99999")
    assert "solver" in error_of(given, "--solver=huen")
    (tmp_path / "websockets.py").write_text("raise ImportError('no websockets')\n")
    without = error_of(given, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert "no websockets: pip install 'ambient_jax[serve]'" in without
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"cannot listen on 127.0.0.1:{port}: [Errno 98] Address" in error_of(
            given, f"--port={port}"
        )
