"""Training with data and workdir in an emulated bucket: the same run as on a disk, whatever fails."""

import json
import pathlib
import signal
import socket
import time

import numpy as np
import pytest

from ambient_jax.data import bucket, statistics
from ambient_jax.data.bucket import BucketPath
from ambient_jax.policy.policy import Policy
from ambient_jax.train import checkpoint, lock, metrics, mirror, remote_files, trainer
from tests import emulated
from tests.train import worker as job_of_worker

CHANGES = {
    "data.placement": "stream",
    "data.prefetch": 0,
    "train.steps": 12,
    "train.log_every": 2,
    "train.checkpoint_every": 4,
    "train.keep": 2,
}


@pytest.fixture(scope="module", params=["gs", "s3"])
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
    twin = Policy.from_checkpoint(tmp_path / "run", source="good")
    observation = {"state": np.ones((1, 2)), "goal": np.ones((1, 1))}
    np.testing.assert_array_equal(policy.sample(observation, 3), twin.sample(observation, 3))
    # A copy of the folder is a workdir like any other.
    copy = tmp_path / "copy"
    for name in names:
        (run / name).download(copy / name)
    same_run(copy, run)
