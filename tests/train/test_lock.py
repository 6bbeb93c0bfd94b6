"""One run to a workdir: a second one is refused in a line, and no lock outlives its owner."""

import contextlib
import errno
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from ambient_jax.train import lock

ROOT = pathlib.Path(__file__).parents[2]
OWNER = """
import sys, time
from ambient_jax.train import lock
with lock.hold(sys.argv[1]):
    print("held", flush=True)
    if sys.argv[2] == "fail":
        raise KeyError("x")
    if sys.argv[2] == "stay":
        time.sleep(300)
"""


@contextlib.contextmanager
def _owner(workdir, how="stay"):
    """A process that holds the workdir."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(workdir), how],
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _is_free(workdir):
    with lock.hold(workdir):
        return True


def _leave(workdir, **fields):
    """The file that a process left which was killed; of this one where the fields do not differ."""
    with lock.hold(workdir):
        about = json.loads((workdir / lock.NAME).read_text())
    (workdir / lock.NAME).write_text(json.dumps(about | {"token": "theirs"} | fields))


def test_a_second_run_is_told_who_holds_the_workdir_until_that_one_is_killed(tmp_path):
    with _owner(tmp_path) as owner:
        with pytest.raises(ValueError) as caught:
            _is_free(tmp_path)
        line = str(caught.value)
        for told in (f"process {owner.pid} on {socket.gethostname()}", " UTC", "another --workdir"):
            assert told in line
        assert "\n" not in line and str(tmp_path) in line
        owner.kill()  # not yet waited for: what is left of it has its number
        deadline = time.monotonic() + 60
        while pathlib.Path(f"/proc/{owner.pid}/stat").read_text().split()[2] != "Z":
            assert time.monotonic() < deadline
        assert (tmp_path / lock.NAME).exists() and _is_free(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("how", "code"), [("end", 0), ("fail", 1), ("stay", -signal.SIGTERM)])
def test_it_goes_with_its_owner(tmp_path, how, code):
    with _owner(tmp_path / "run", how) as owner:
        if how == "stay":
            owner.send_signal(signal.SIGTERM)
        assert owner.wait(60) == code
        assert not (tmp_path / "run" / lock.NAME).exists()
        # Nothing was left in a folder that was made for the run.
        assert how == "stay" or not (tmp_path / "run").exists()


def test_a_number_that_another_process_has_now_is_no_owner(tmp_path):
    _leave(tmp_path, started="1")
    assert _is_free(tmp_path)
    _leave(tmp_path)
    with pytest.raises(ValueError, match="in use by this very process"):
        _is_free(tmp_path)


def test_a_copy_of_a_running_workdir_is_free(tmp_path):
    with lock.hold(tmp_path / "run"):
        shutil.copytree(tmp_path / "run", tmp_path / "copy")
        assert (tmp_path / "copy" / lock.NAME).exists() and _is_free(tmp_path / "copy")
        (tmp_path / "run").rename(tmp_path / "moved")
        os.symlink(tmp_path / "moved", tmp_path / "run")
        assert (tmp_path / "run" / lock.NAME).exists()


def test_another_machine_is_known_by_its_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "SILENCE", 0.5)
    _leave(tmp_path, machine="another", host="far", pid=7)
    stop = threading.Event()

    def live():
        while not stop.wait(0.01):
            os.utime(tmp_path / lock.NAME)

    beat = threading.Thread(target=live)
    beat.start()
    told = f"process 7 on far .*gone for good, delete .*{lock.NAME}"
    with pytest.raises(ValueError, match=told):
        _is_free(tmp_path)
    stop.set()
    beat.join()
    assert _is_free(tmp_path)


def test_an_owner_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.01)
    with lock.hold(tmp_path):
        os.utime(tmp_path / lock.NAME, (0, 0))
        deadline = time.monotonic() + 60
        while os.stat(tmp_path / lock.NAME).st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_of_many_that_find_an_owner_gone_one_takes_over(tmp_path):
    for _ in range(20):
        _leave(tmp_path, started="1")
        start, end, found = threading.Barrier(8), threading.Event(), []

        def take(start=start, found=found, end=end):
            start.wait()
            try:
                with lock.hold(tmp_path):
                    found.append("held")
                    end.wait()
            except ValueError:
                found.append("refused")

        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 60
        while len(found) < 8:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        end.set()
        for thread in threads:
            thread.join()
        assert sorted(found) == ["held"] + 7 * ["refused"]
        assert not list(tmp_path.iterdir())


def test_one_that_was_killed_while_it_took_over_is_in_nobodys_way(tmp_path):
    _leave(tmp_path, started="1")
    shutil.copy(tmp_path / lock.NAME, tmp_path / f"{lock.NAME}.after.theirs")
    assert _is_free(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_that_says_nothing_is_no_owner_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "SILENCE", 0.1)
    for text in ("", "{", "[]"):
        (tmp_path / lock.NAME).write_text(text)
        assert _is_free(tmp_path)


def test_a_run_may_hold_what_it_holds(tmp_path):
    with lock.hold(tmp_path):
        with lock.hold(tmp_path / "." / "sub" / ".."):
            pass
        assert (tmp_path / lock.NAME).exists()
    assert not (tmp_path / lock.NAME).exists()


def test_what_was_taken_over_is_not_written_to(tmp_path):
    with lock.hold(tmp_path):
        lock.check(tmp_path)
        (tmp_path / lock.NAME).unlink()  # by hand, or a cleaning job
        lock.check(tmp_path)
        about = json.loads((tmp_path / lock.NAME).read_text())
        (tmp_path / lock.NAME).write_text(json.dumps(about | {"token": "theirs", "pid": 7}))
        with pytest.raises(OSError, match="was taken over by process 7"):
            lock.check(tmp_path)
    assert (tmp_path / lock.NAME).exists()  # theirs


def test_a_file_system_without_hard_links_will_do(tmp_path, monkeypatch):
    def link(*_):
        raise OSError(errno.EPERM, "no hard links")

    monkeypatch.setattr(os, "link", link)
    with lock.hold(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [lock.NAME]
        failed = []
        thread = threading.Thread(
            target=lambda: failed.append(pytest.raises(ValueError, _is_free, tmp_path))
        )
        thread.start()
        thread.join()
        assert "in use by this very process" in str(failed[0].value)


def test_all_hosts_are_told_by_the_first(tmp_path, toy_data, worker):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
    with lock.hold(tmp_path):
        job = {"workdir": str(tmp_path), "data": toy_data, "coordinator": address}
        hosts = [worker(job | {"num_processes": 2, "process_id": i}, 2) for i in range(2)]
        lines = []
        for finish in hosts:
            lines += [x for x in finish(1).splitlines() if x.startswith("ValueError: ")]
    assert len(lines) == 2 and lines[0] == lines[1]
    assert f"process {os.getpid()} on " in lines[0]
