"""Training with data and workdir in an emulated bucket: the run of a disk, whatever fails."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from ambient_jax import optim
from ambient_jax.data import bucket, statistics
from ambient_jax.data.bucket import BucketPath
from ambient_jax.policy.policy import Policy
from ambient_jax.train import (
    checkpoint,
    lock,
    metrics,
    mirror,
    remote_checkpoint,
    remote_files,
    state,
    trainer,
)
from ambient_jax.train import config as config_lib
from tests import emulated
from tests.train import worker as job_of_worker

ROOT = pathlib.Path(__file__).parents[2]
_LIMIT = 900  # s until hosts that wait for one another count as stuck, many times what they take
CHANGES = {
    "data.placement": "stream",
    "data.prefetch": 0,
    "train.steps": 12,
    "train.log_every": 2,
    "train.checkpoint_every": 4,
    "train.keep": 2,
}


@pytest.fixture(scope="module", params=["gs", pytest.param("s3", marks=pytest.mark.slow)])
def emulator(request):
    with emulated.store(request.param) as running:
        yield running


@pytest.fixture
def place(emulator, request, monkeypatch, tmp_path):
    """(a folder of the test in the bucket, the faults)"""
    monkeypatch.setattr(bucket, "FIRST_WAIT", 0.001)
    monkeypatch.setenv(statistics.CACHE_VARIABLE, str(tmp_path / "cache"))
    url, faults = emulator
    faults.rate = 0.0
    yield BucketPath.of(url) / request.node.name.translate(str.maketrans("[]", "__")), faults
    faults.rate = 0.0


@pytest.fixture
def data(write_source):
    """Local paths of a clean data set in TFRecord and a corrupt one in array_record."""
    formats = {"good": "tfrecord", "bad": "array_record"}
    return {
        name: write_source(name, [9, 7, 8, 6, 11], file_format=file_format, shards=2)
        for name, file_format in formats.items()
    }


def uploaded(data, folder):
    """The data sets' URLs in a bucket."""
    for name, path in data.items():
        for file in pathlib.Path(path).rglob("*"):
            if file.is_file():
                (folder / "data" / name / file.relative_to(path).as_posix()).upload(file)
    return {name: f"{folder / 'data' / name}" for name in data}


def in_both(data, changes=CHANGES):
    return job_of_worker.config_for({"data": data, "changes": changes})


def same_run(local, remote):
    rows = metrics.read(remote / "metrics.jsonl")
    assert rows == metrics.read(local / "metrics.jsonl") and len(rows) > 3
    assert [r["step"] for r in metrics.read(remote / "timing.jsonl")] == [r["step"] for r in rows]
    first, second = (checkpoint.load_policy_assets(path)["params"] for path in (local, remote))
    for name, value in checkpoint.by_name(first).items():
        np.testing.assert_array_equal(value, checkpoint.by_name(second)[name], err_msg=name)


@pytest.mark.slow
def test_a_run_in_a_bucket_is_the_run_on_a_disk(place, data, tmp_path):
    folder, faults = place
    trainer.train(in_both(data), tmp_path / "run")
    config = in_both(uploaded(data, folder))
    faults.rate, run = 0.05, folder / "run"
    trainer.train(config, str(run))
    faults.rate = 0.0
    same_run(tmp_path / "run", run)
    names = run.files()
    assert {name.partition("/")[0] for name in names} == {
        *("checkpoints", "config.json", "metrics", "tensorboard", "timing")
    }
    assert {n for n in names if n.startswith("metrics/")} == {
        f"metrics/{step:08d}.jsonl" for step in (2, 4, 6, 8, 10, 12)
    }
    assert remote_files.steps_in(run / "checkpoints") == [8, 12]
    assert json.loads((run / "config.json").read_bytes()) == json.loads(
        (tmp_path / "run" / "config.json").read_bytes()
    ) | {"data": json.loads((run / "config.json").read_bytes())["data"]}
    policy = Policy.from_checkpoint(str(run), source="good")
    assert policy.dims == Policy.from_checkpoint(tmp_path / "run", source="good").dims
    # A copy of the folder is a workdir like any other.
    copy = tmp_path / "copy"
    for name in names:
        (run / name).download(copy / name)
    same_run(copy, run)


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


def test_rows_are_joined_and_those_after_the_checkpoint_dropped(place, tmp_path):
    folder, _ = place
    writer = metrics.Writer(f"{folder}")
    for step in (10, 20, 30):
        writer.write({"step": step, "loss": 0.5 * step}, {"step": step, "steps_per_second": 1.0})
    writer.flush()
    assert [row["step"] for row in metrics.read(f"{folder}/metrics.jsonl")] == [10, 20, 30]
    writer.close()
    writer = metrics.Writer(f"{folder}", step=20)
    writer.write({"step": 30, "loss": 7.0}, {"step": 30, "steps_per_second": 2.0})
    writer.close()
    rows = metrics.read(folder / "metrics.jsonl", ("loss",))
    assert [row["loss"] for row in rows] == [5.0, 10.0, 7.0]
    assert len([name for name in folder.files() if name.startswith("tensorboard/")]) == 2
    # A copy goes on in a folder, and that one in the bucket.
    for name in folder.files():
        (folder / name).download(tmp_path / name)
    writer = metrics.Writer(tmp_path, step=20)
    writer.write({"step": 25, "loss": 8.0}, {"step": 25, "steps_per_second": 2.0})
    writer.close()
    steps = [row["step"] for row in metrics.read(tmp_path / "metrics.jsonl")]
    assert steps == [10, 20, 25] and not (tmp_path / "metrics").exists()
    other = folder / "other"
    (other / "metrics.jsonl").upload(tmp_path / "metrics.jsonl")
    writer = metrics.Writer(other, step=20)
    writer.write({"step": 26, "loss": 8.0}, {"step": 26, "steps_per_second": 2.0})
    writer.close()
    assert [row["step"] for row in metrics.read(other / "metrics.jsonl")] == [10, 20, 26]


def test_a_store_that_fails_is_one_line_with_the_object(place, monkeypatch):
    folder, faults = place
    writer = metrics.Writer(f"{folder}")
    monkeypatch.setattr(bucket, "PATIENCE", 0.05)
    faults.rate, faults.kinds = 1.0, ("503",)
    writer.write({"step": 1}, {"step": 1})
    told = f"{folder / 'metrics' / '00000001.jsonl'}: it cannot be written, the store has not ans"
    with pytest.raises(bucket.StoreError, match=told):
        writer.flush()
    with pytest.raises(bucket.StoreError, match=f"{folder / 'timing'}"):
        writer.close()
    faults.rate = 0.0
    saver = remote_checkpoint.open_run(folder / "checkpoints", keep=2, keep_every=None)
    made, config = jax.tree.map(np.asarray, _state()), ml_collections.ConfigDict()
    faults.rate, faults.methods = 1.0, ("POST", "PUT")
    saver.save(1, made, checkpoint.make_assets(config, "{}"))
    with pytest.raises(bucket.StoreError, match=f"{folder / 'checkpoints'}/") as caught:
        saver.close()
    assert "\n" not in str(caught.value)
    faults.rate, faults.methods, faults.kinds = 0.0, (), emulated.KINDS
    assert not checkpoint.steps_in(folder / "checkpoints")


def _saved(folder, *steps):
    made = jax.tree.map(np.asarray, _state())
    saver = remote_checkpoint.open_run(folder / "checkpoints", keep=2, keep_every=30)
    config = ml_collections.ConfigDict({"name": "x"})
    for step in steps:
        saver.save(step, made.replace(step=np.int32(step)), checkpoint.make_assets(config, "{}"))
    saver.close()


def _state():
    params = {"dense": {"kernel": jnp.arange(6.0).reshape(2, 3)}}
    return state.create(params, optim.make_optimizer(config_lib.default().train), 2)


@pytest.mark.slow
def test_checkpoints_are_kept_found_and_set_aside(place):
    folder, faults = place
    faults.rate = 0.05
    directory = folder / "checkpoints"
    _saved(folder, 10)
    checkpoint.record_best(folder, 10, loss=0.1)
    _saved(folder, 20, 30, 40, 50)
    assert checkpoint.steps_in(directory) == [10, 30, 40, 50]
    # What a killed process left: a step without its digests.
    (directory / "60" / "state" / "manifest.ocdbt").write_bytes(b"x")
    for path, step in ((folder, 50), (directory / "40", 40), (folder / "best", 10)):
        found, number = checkpoint.find(f"{path}")
        assert number == step and checkpoint.load_policy_assets(f"{path}")["step"] == step
        assert (found / str(step)).is_dir()
    (directory / "50" / "assets" / "metadata").write_bytes(b"{}")
    remote_files.forget()
    told = (
        f"checkpoint {directory}/50 is damaged: assets/metadata is not what was saved; step 40 is "
        f"sound: give {directory}/40"
    )
    with pytest.raises(ValueError, match=told):
        checkpoint.load_assets(f"{folder}")
    remote_files.forget()
    saver = remote_checkpoint.open_run(directory, keep=2, keep_every=30)
    assert saver.sound_step() == 40
    saver.drop_after(40)
    assert saver.all_steps() == [10, 30, 40] and not (directory / "60").exists()
    assert (directory / "50.damaged" / "digests.json").is_file()
    restored, position = saver.restore(40, jax.eval_shape(_state))
    assert restored.step == 40 and position is None
    saver.close()
    with pytest.raises(FileNotFoundError, match=f"no finished checkpoint at {folder / 'none'}"):
        checkpoint.find(f"{folder / 'none'}")


@pytest.mark.slow
def test_an_evaluation_writes_its_files_to_the_bucket(place):
    folder, _ = place
    _saved(folder, 10, 20)
    (folder / "config.json").write_text("{}")
    with mirror.local_copy(f"{folder}") as local:
        assert checkpoint.steps_in(local / "checkpoints") == [20]
        assert (local / "config.json").read_text() == "{}"
        (local / "report").mkdir()
        (local / "report" / "table.md").write_text("done")
    assert (folder / "report" / "table.md").read_text() == "done"
    for path in (folder, folder / "checkpoints"):
        with mirror.local_path(f"{path}", every_step=True) as local:
            assert checkpoint.steps_in(local) or checkpoint.find(local)[1] == 20
            directory, _ = checkpoint.find(local)
            assert checkpoint.steps_in(directory) == [10, 20]
            checkpoint.record_best(directory.parent, 10)
    for path, step in ((folder / "checkpoints" / "10", 10), (folder / "best", 10)):
        with mirror.local_path(path) as local:
            assert checkpoint.find(local)[1] == step


@pytest.mark.slow
@pytest.mark.parametrize("kill", [["step", 7], ["save", 8]])
def test_a_killed_run_carries_on_to_the_same_metrics(place, data, tmp_path, worker, kill):
    folder, faults = place
    job = {"changes": CHANGES}
    worker(job | {"data": data, "workdir": str(tmp_path / "run")})(0)
    faults.rate, faults.latency = 0.03, 0.002
    job |= {"data": uploaded(data, folder), "workdir": f"{folder / 'run'}"}
    worker(job | {"kill": kill})(-signal.SIGKILL)
    assert (folder / "run" / lock.NAME).exists()
    worker(job)(0)
    assert not (folder / "run" / lock.NAME).exists()
    faults.rate = 0.0
    same_run(tmp_path / "run", folder / "run")


@pytest.mark.slow
def test_two_hosts_are_killed_and_carry_on_to_the_same_metrics(place, data, tmp_path, worker):
    folder, faults = place
    job = {"changes": CHANGES}
    _hosts(worker, job | {"data": data, "workdir": str(tmp_path / "run")})
    faults.rate, faults.latency = 0.03, 0.002
    job |= {"data": uploaded(data, folder), "workdir": f"{folder / 'run'}"}
    _hosts(worker, job | {"kill": ["step", 7]}, dies=True)
    _hosts(worker, job)
    faults.rate = 0.0
    same_run(tmp_path / "run", folder / "run")


def _hosts(worker, job, dies=False):
    """Runs a job on two hosts of one device each; where one dies the other is killed as well."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        job = job | {"coordinator": f"127.0.0.1:{s.getsockname()[1]}", "num_processes": 2}
    running = [worker(job | {"process_id": i}) for i in range(2)]
    limit, ended = time.monotonic() + _LIMIT, any if dies else all
    while not ended(f.process.poll() is not None for f in running) and time.monotonic() < limit:
        time.sleep(0.1)
    for finish in running:
        if dies or finish.process.poll() is None:
            finish.process.kill()
    for finish in running:
        finish(None if dies else 0)
