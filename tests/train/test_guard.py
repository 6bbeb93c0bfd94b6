"""A run that meets a number it cannot hold stops, and says at which step and on which rows.

One action of the source "bad" is 3e38, which float32 holds and whose square it does not: the first
step that draws it has an infinite loss. Which one that is, the tests find by their own drawing.
"""

import importlib.util
import itertools
import json
import pathlib
import socket

import jax
import numpy as np
import pytest

from ambient_jax import mixing, schedules
from ambient_jax.data import device, pipeline, rlds
from ambient_jax.data import mixture as mixtures
from ambient_jax.data.write import rlds_features, write_dataset
from ambient_jax.train import checkpoint, guard, metrics, sweep, trainer

_SPEC = importlib.util.spec_from_file_location(
    "worker_module", pathlib.Path(__file__).parent / "worker.py"
)
worker_module = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(worker_module)

EPISODE, STEP, HUGE = 17, 3, 3e38
CHANGES = {
    "seed": 2,
    "data.normalization": "none",
    "objective.prediction": "x0",
    "train.log_every": 7,
    "train.checkpoint_every": 2,  # divides no interval
    "train.steps": 100,
}


@pytest.fixture(scope="module")
def poisoned(toy_data, tmp_path_factory):
    episodes = [rlds.open_dataset(toy_data["bad"])[i] for i in range(40)]
    episodes[EPISODE]["steps"]["action"] = episodes[EPISODE]["steps"]["action"].copy()
    episodes[EPISODE]["steps"]["action"][STEP, 1] = HUGE
    vector = np.zeros(2, np.float32)
    path = write_dataset(
        tmp_path_factory.mktemp("poisoned"),
        name="bad",
        version="1.0.0",
        features=rlds_features({"state": vector, "goal": vector}, vector),
        episodes=episodes,
        shards=4,
    )
    return toy_data | {"bad": str(path)}


def _job(poisoned, workdir, **changes):
    return {"workdir": str(workdir), "data": poisoned, "changes": CHANGES | changes}


def _batches(config, hosts=1):
    """The batches of steps 1, 2, ..., drawn without a trainer."""
    law = trainer.build(mixing, config.law)
    mixture, schedule = mixtures.open_mixture(config.data, law), schedules.vp()
    key, size = jax.random.key(config.seed), config.train.batch_size
    if config.data.placement == "device":
        data = device.load_device_data(mixture)
        sampler = jax.jit(mixture.sampler(law, schedule))
        return (sampler(data, key, n, np.arange(size)) for n in itertools.count())
    streams = [
        pipeline.stream_batches(
            *(mixture, law, schedule),
            seed=config.seed,
            batch_size=size,
            process_index=i,
            process_count=hosts,
        )
        for i in range(hosts)
    ]
    return (
        jax.tree.map(lambda *x: np.concatenate(x), *parts) for parts in zip(*streams, strict=True)
    )


def _first_bad(config, hosts=1):
    """(step, ids [B, 3], rows) of the first batch with the huge action in it."""
    for step, batch in enumerate(_batches(config, hosts), 1):
        inside = np.asarray(batch["mask"])[..., None] & (np.asarray(batch["action"]) > 1e30)
        if rows := np.flatnonzero(inside.any((1, 2))).tolist():
            return step, np.asarray(batch["id"]), rows


def _check_rows(workdir, message, expected):
    step, ids, bad = expected
    file = pathlib.Path(workdir) / "nonfinite.json"
    assert f"loss or gradient is not finite at step {step} " in message
    assert f"its 16 rows are in {file}" in message
    assert f"bad {EPISODE} {ids[bad[0]][2]} (3e+38)" in message
    found = json.loads(file.read_text())
    assert found["step"] == step
    told = {
        row["row"]: (["bad", "good"].index(row["source"]), row["episode"], row["step"])
        for row in found["rows"]
    }
    assert told == {i: tuple(row) for i, row in enumerate(ids.tolist())}
    first = found["rows"][: len(bad)]
    assert sorted(row["row"] for row in first) == bad
    assert all(np.float32(row["largest"]) == np.float32(HUGE) for row in first)
    assert all(row["largest"] < 10 for row in found["rows"][len(bad) :])


def _check(workdir, message, expected):
    """And the last checkpoint is the last one from before."""
    _check_rows(workdir, message, expected)
    step = expected[0]
    assert step > 2, "the test needs a checkpoint before"
    directory, last = checkpoint.find(workdir)
    assert last == (step - 1) // 2 * 2
    saver = checkpoint.Checkpointer(directory)
    assert saver.all_steps() == [s for s in (last - 2, last) if s > 0]
    saver.close()
    params = checkpoint.load_policy_assets(workdir)["params"]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    rows = metrics.read(pathlib.Path(workdir) / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(7, step, 7))


def test_a_report_finds_the_first_bad_step_one_interval_late(poisoned, tmp_path):
    config = worker_module.config_for(_job(poisoned, tmp_path, **{"train.checkpoint_every": 90}))
    with pytest.raises(FloatingPointError) as error:
        trainer.train(config, tmp_path)
    _check_rows(tmp_path, str(error.value), _first_bad(config))
    assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.slow
def test_a_resumed_stream_remembers_by_the_same_steps(poisoned, tmp_path):
    job = _job(poisoned, tmp_path, **{"data.placement": "stream"})
    config = worker_module.config_for(job)
    expected = _first_bad(config)
    for _ in range(2):  # the second run starts at the last checkpoint
        with pytest.raises(FloatingPointError) as error:
            trainer.train(config, tmp_path)
        _check(tmp_path, str(error.value), expected)


@pytest.mark.slow
def test_eight_devices_find_the_same(poisoned, tmp_path, worker):
    job = _job(poisoned, tmp_path)
    output = worker(job, 8)(1)
    _check(tmp_path, output, _first_bad(worker_module.config_for(job)))


@pytest.mark.slow
def test_two_hosts_of_two_devices_tell_of_all_rows(poisoned, tmp_path, worker):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
    job = _job(poisoned, tmp_path, **{"data.placement": "stream"})
    hosts = [
        worker(job | {"coordinator": address, "num_processes": 2, "process_id": i}, 2)
        for i in range(2)
    ]
    expected = _first_bad(worker_module.config_for(job), hosts=2)
    for finish in hosts:
        _check(tmp_path, finish(1), expected)


@pytest.mark.slow
def test_a_sweep_names_the_policy(poisoned, tmp_path):
    job = _job(poisoned, tmp_path)
    job["policies"] = {"clean": {"law": {"name": "filtering"}}, "all": {"seed": 3}}
    configs = worker_module.configs_for(job)
    with pytest.raises(FloatingPointError) as error:
        sweep.train(configs, tmp_path)
    _check(tmp_path / "all", str(error.value), _first_bad(configs["all"]))
    assert not (tmp_path / "clean" / "nonfinite.json").exists()


def test_rows_are_told_by_their_largest_number_and_nan_counts_as_infinite(tmp_path):
    batch = {
        "action": np.array([[[1.0, -5.0]], [[0.0, 0.0]], [[np.nan, 2.0]]], np.float32),
        "observation": {
            "state": np.array([[[2.0]], [[-7.0]], [[0.0]]], np.float32),
            "camera": np.full((3, 1, 2, 2, 3), 255, np.uint8),
        },
        "id": np.array([[0, 4, 1], [1, 5, 2], [0, 6, 3]], np.int32),
        "sigma": np.array([0.1, 0.5, 0.9], np.float32),
    }
    for found in (guard.rows(batch, np), jax.jit(guard.rows)(batch)):
        np.testing.assert_array_equal(found.largest, [5.0, 7.0, np.nan])
        with pytest.raises(FloatingPointError, match=r"\): a 6 3 \(inf\), b 5 2 \(7\), a 4 1 \(5"):
            guard.stop(tmp_path, 9, found, ["a", "b"], 0.1)
        written = json.loads((tmp_path / "nonfinite.json").read_text())["rows"]
        assert [(r["row"], r["largest"]) for r in written] == [(2, None), (1, 7.0), (0, 5.0)]
