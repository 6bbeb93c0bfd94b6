"""Beam as the engine: its options, its workers, and what happens when one dies."""

import pathlib
import subprocess
import sys

import pytest

from ambient_jax.data.prepare import engine, worker
from ambient_jax.open_x import fixtures
from ambient_jax.train import config as train_config
from ambient_jax.train import mixtures
from tests.data.prepare import slow_format


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ([], []),
        (["--runner=FlinkRunner,--parallelism=8"], ["--runner=FlinkRunner", "--parallelism=8"]),
        (["runner=FlinkRunner,flink_master=a:1"], ["--runner=FlinkRunner", "--flink_master=a:1"]),
        (["--a=1 --b=2", "--c"], ["--a=1", "--b=2", "--c"]),
        (["--experiments=x,y"], ["--experiments=x,y"]),
        ([' --set={"a":1,"b":[2, 3]} '], ['--set={"a":1,"b":[2, 3]}']),
    ],
)
def test_options(given, options):
    assert engine.split(given) == options


def test_without_beam_it_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ImportError, match=r"'apache_beam' .*ambient_jax\[beam\].*--processes=0"):
        engine.run(print, [("a", 0)], int, processes=2)


def test_a_worker_ends_with_the_process_that_started_it(tmp_path):
    """The parent starts a worker and is killed; the worker, which waits for ever, ends."""
    child = (
        "import sys, time\n"
        f"sys.path.insert(0, {str(pathlib.Path(worker.__file__).parent)!r})\n"
        "import worker\n"
        "worker._POLL = 0.05\n"
        "worker.end_with(int(sys.argv[1]))\n"
        "print('up', flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = (
        "import os, subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}, str(os.getpid())])\n"
        "time.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", parent], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "up\n"
    process.kill()
    process.wait()
    assert process.stdout.read() == ""  # the end of the pipe: the worker has closed it too


@pytest.fixture
def data(tmp_path):
    fixtures.write_fixture(
        tmp_path / "oxe", "bridge_orig", lengths=[4] * 8, shards=8, file_format="tfrecord"
    )
    made = train_config.default().data
    mixtures.add(made, {"bridge_orig": 1.0})
    made.root, made.placement = str(tmp_path / "oxe"), "stream"
    made.sources.bridge_orig.path = fixtures.folder("bridge_orig")
    made.sources.bridge_orig.format = slow_format.NAME
    return made


def need_beam():
    pytest.importorskip("apache_beam", reason="no apache-beam: pip install '.[beam]'")


@pytest.mark.slow
def test_a_broken_shard_fails_the_command_and_the_rest_is_kept(command, data, tmp_path):
    need_beam()
    file = sorted((tmp_path / "oxe").rglob("*tfrecord*"))[5]
    whole = file.read_bytes()
    file.write_bytes(whole[:-30])
    process = command(data, tmp_path / "cache")
    out = process.finish()
    assert process.returncode == 1
    (line,) = [line for line in out.splitlines() if line.startswith("failed: ")]
    assert line.startswith("failed: source 'bridge_orig', shard 5 of 8: ")
    assert f"{file}: truncated in record 0" in line
    assert "Traceback" not in out and "7 shards were measured now" in out
    file.write_bytes(whole)
    process = command(data, tmp_path / "cache")
    out = process.finish()
    assert process.returncode == 0 and "1 shards were measured now" in out


@pytest.mark.slow
def test_a_worker_that_dies_ends_the_command(command, data, tmp_path):
    """For which DirectRunner alone would wait for ever; what was measured is kept."""
    need_beam()
    process = command(data, tmp_path / "cache", deadly="5")
    out = process.finish()
    assert process.returncode == 1
    assert "shard 5 of 8: it was not reached, the pipeline ended (Worker subprocess exited" in out
    process = command(data, tmp_path / "cache")
    out = process.finish()
    assert process.returncode == 0 and "1 of 1 sources are prepared" in out


@pytest.mark.slow
def test_a_runner_of_choice(command, data, tmp_path):
    """One of Beam's own, in the process itself."""
    need_beam()
    options = ["--beam_options=--runner=DirectRunner,--direct_running_mode=in_memory"]
    process = command(data, tmp_path / "cache", processes=1, extra=options)
    out = process.finish()
    assert process.returncode == 0 and "8 shards were measured now" in out
