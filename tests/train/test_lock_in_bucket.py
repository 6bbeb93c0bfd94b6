"""The lock of a workdir in an emulated bucket."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from ambient_jax.train import lock

ROOT = pathlib.Path(__file__).parents[2]
HOLD = """
import sys, time
from ambient_jax.train import lock
lock.BEAT, lock.SILENCE = 0.2, float(sys.argv[2])
if len(sys.argv) > 3:
    lock._machine = lambda: sys.argv[3]
with lock.hold(sys.argv[1]):
    print("held", flush=True)
    time.sleep(300)
"""


@contextlib.contextmanager
def holder(run, silence=120, machine=""):
    command = [sys.executable, "-c", HOLD, f"{run}", f"{silence}", *([machine] if machine else [])]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_workdir_that_is_held_is_refused_until_its_owner_is_killed(place):
    folder, faults = place
    faults.rate = 0.1
    with holder(folder / "run") as process:
        with pytest.raises(ValueError) as caught, lock.hold(f"{folder / 'run'}"):
            pass
        line = str(caught.value)
        assert f"workdir {folder / 'run'} is in use by process {process.pid} on" in line
        assert "\n" not in line and "another --workdir" in line
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (folder / "run" / lock.NAME).exists()
        with lock.hold(f"{folder / 'run'}"):
            lock.check(f"{folder / 'run'}")
    with holder(folder / "run") as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM
    assert not folder.files()


@pytest.mark.slow
def test_an_owner_on_another_machine_is_gone_after_its_silence(place, monkeypatch):
    folder, _ = place
    monkeypatch.setattr(lock, "SILENCE", 3.0)
    with holder(folder / "run", machine="another") as process:
        hint = f"should it be gone for good, delete {folder / 'run' / lock.NAME}"
        with pytest.raises(ValueError, match=hint), lock.hold(f"{folder / 'run'}"):
            pass
        process.kill()
        process.wait()
        begin = time.monotonic()
        with lock.hold(f"{folder / 'run'}"):
            assert 3.0 <= time.monotonic() - begin < 60
    assert not folder.files()


@pytest.mark.slow
def test_of_many_that_find_an_owner_gone_one_takes_over(place):
    folder, _ = place
    run = folder / "run"
    for _ in range(3):
        with lock.hold(f"{run}"):
            about = json.loads((run / lock.NAME).read_bytes())
        (run / lock.NAME).write_text(json.dumps(about | {"token": "theirs", "started": "1"}))
        start, end, found = threading.Barrier(4), threading.Event(), []

        def take(start=start, found=found, end=end):
            start.wait()
            try:
                with lock.hold(f"{run}"):
                    found.append("held")
                    end.wait()
            except ValueError:
                found.append("refused")

        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 120
        while len(found) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        end.set()
        for thread in threads:
            thread.join()
        assert sorted(found) == ["held"] + 3 * ["refused"]
        assert not folder.files()
