"""Training with data and workdir in an emulated bucket: the run of a disk, whatever fails."""

import json
import pathlib
import signal
import socket
import time

import numpy as np
import pytest

from ambient_jax.policy.policy import Policy
from ambient_jax.train import (
    checkpoint,
    lock,
    metrics,
    remote_files,
    trainer,
)
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
        *("checkpoints", "config.json", "metrics", "policy", "tensorboard", "timing")
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


@pytest.mark.slow
@pytest.mark.parametrize("kill", [["step", 11], ["save", 8]])
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
    _hosts(worker, job | {"kill": ["step", 11]}, dies=True)
    assert checkpoint.steps_in(folder / "run" / "checkpoints")  # the save of step 8 waited for it
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
