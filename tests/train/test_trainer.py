"""No run is lost: however it ends, the same command carries on with the same numbers."""

import importlib.util
import json
import pathlib
import shutil
import signal

import chex
import pytest

from ambient_jax.train import checkpoint, feeds, trainer

_SPEC = importlib.util.spec_from_file_location(
    "worker_module", pathlib.Path(__file__).parent / "worker.py"
)
worker_module = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(worker_module)


def _run(worker, job, returncode=0):
    return worker(job)(returncode)


def _metrics(workdir):
    return (pathlib.Path(workdir) / "metrics.jsonl").read_text()


@pytest.fixture(scope="module", params=["device", "stream"])
def placement(request):
    return request.param


@pytest.mark.parametrize("placement", [pytest.param("device", marks=pytest.mark.slow), "stream"])
def test_killed_at_three_moments_the_metrics_are_those_of_an_uninterrupted_run(
    toy_data, tmp_path, worker, placement
):
    changes = {"data.placement": placement}
    whole = {"workdir": str(tmp_path / "whole"), "data": toy_data, "changes": changes}
    _run(worker, whole)
    broken = whole | {"workdir": str(tmp_path / "broken")}
    for kill in (["write", 21], ["save", 30], ["step", 5]):
        _run(worker, broken | {"kill": kill}, -signal.SIGKILL)
    # The first kill tore a row; what stands there before the last run is not what must stand after.
    assert _metrics(broken["workdir"]) != _metrics(whole["workdir"])
    _run(worker, broken)
    assert _metrics(broken["workdir"]) == _metrics(whole["workdir"])
    rows = [json.loads(line) for line in _metrics(whole["workdir"]).splitlines()]
    assert [row["step"] for row in rows] == [7, 14, 21, 28, 35, 40]


@pytest.mark.slow
def test_sigterm_saves_and_exits_cleanly_and_the_run_carries_on(
    toy_data, tmp_path, worker, placement
):
    changes = {"data.placement": placement}
    whole = {"workdir": str(tmp_path / "whole"), "data": toy_data, "changes": changes}
    _run(worker, whole)
    stopped = whole | {"workdir": str(tmp_path / "stopped")}
    output = _run(worker, stopped | {"kill": ["sigterm", 17]})
    assert json.loads(output.splitlines()[-1]) == {"step": 17, "signal": "SIGTERM"}
    assert (tmp_path / "stopped" / "checkpoints" / "17").is_dir()
    _run(worker, stopped)
    assert _metrics(stopped["workdir"]) == _metrics(whole["workdir"])


@pytest.mark.parametrize("placement", [pytest.param("device", marks=pytest.mark.slow), "stream"])
def test_a_damaged_checkpoint_is_passed_over_and_the_run_is_the_same(
    toy_data, tmp_path, placement, monkeypatch
):
    """What is trained once more is what was trained before: rows and parameters are equal."""
    monkeypatch.setenv("HOME", str(tmp_path))
    job = {"workdir": "", "data": toy_data, "changes": {"data.placement": placement}}
    config = worker_module.config_for(job)
    assert trainer.train(config, "~/run").step == 40
    saved = tmp_path / "run" / "checkpoints"
    rows, params = _metrics(tmp_path / "run"), checkpoint.load_policy_assets("~/run")["params"]
    largest = max((saved / "40" / "state" / "d").iterdir(), key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    assert trainer.train(config, "~/run") == (40, "")
    assert sorted(p.name for p in saved.iterdir()) == ["30", "40", "40.damaged"]
    assert _metrics(tmp_path / "run") == rows
    again = checkpoint.load_policy_assets("~/run")["params"]
    chex.assert_trees_all_equal(again, params)
    for step in ("30", "40"):
        (saved / step / "state" / "_METADATA").unlink()
    with pytest.raises(ValueError, match="no checkpoint in .* step 30: state/_METADATA is missing"):
        trainer.train(config, "~/run")


@pytest.mark.parametrize(
    "position",
    [None, [], {}, 3, [{"step": 30}], [{"step": 30, "of": {"shards": 2}, "taken": {"0": [1]}}]],
)
def test_a_stream_does_not_begin_anew_without_its_position(position, tmp_path):
    with pytest.raises(ValueError, match="checkpoint .*30 has no position of the data stream"):
        feeds._merged(position, tmp_path / "30")


def test_a_position_of_a_version_that_said_lanes(tmp_path):
    states = [{"step": 30, "of": {"lanes": 1, "seed": 0}, "taken": {"0": [1, 2]}}]
    position = feeds._merged(states, tmp_path / "30")
    assert position["of"] == {"shards": 1, "seed": 0} and position["taken"] == {"0": [1, 2]}


def test_another_config_is_refused_on_the_same_workdir(toy_data, tmp_path):
    job = {"workdir": str(tmp_path), "data": toy_data, "changes": {"train.steps": 10}}
    assert trainer.train(worker_module.config_for(job), tmp_path).step == 10
    other = worker_module.config_for(job)
    other.train.learning_rate = 0.5
    with pytest.raises(ValueError, match="train.learning_rate = 0.001, this one has 0.5"):
        trainer.train(other, tmp_path)
    wider = worker_module.config_for(job)
    wider.model.features = (8, 8)
    with pytest.raises(ValueError, match="model.features"):
        trainer.train(wider, tmp_path)
    elsewhere = worker_module.config_for(job)
    elsewhere.data.root = "/"
    elsewhere.data.sources.good.path = toy_data["bad"]
    with pytest.raises(ValueError, match="other data of source 'good' than lie at"):
        trainer.train(elsewhere, tmp_path)
    # What does not touch the training may change; a finished run returns at once.
    same = worker_module.config_for(job)
    same.policy.steps = 3
    assert trainer.train(same, tmp_path) == (10, "")


def test_other_data_under_the_same_path_are_refused(toy_data, tmp_path):
    copy = {name: str(tmp_path / name / "1.0.0") for name in toy_data}
    for name, path in toy_data.items():
        shutil.copytree(path, copy[name])
    job = {"workdir": "", "data": copy, "changes": {"train.steps": 10}}
    trainer.train(worker_module.config_for(job), tmp_path / "run")
    shutil.rmtree(copy["bad"])
    shutil.copytree(toy_data["good"], copy["bad"])
    with pytest.raises(ValueError, match="other data of source 'bad' than lie at"):
        trainer.train(worker_module.config_for(job), tmp_path / "run")


@pytest.mark.slow
def test_fine_tuning_starts_from_the_moving_average_and_resumes(toy_data, tmp_path):
    job = {"workdir": str(tmp_path), "data": toy_data, "changes": {"train.steps": 10}}
    trainer.train(worker_module.config_for(job), tmp_path / "base")
    config = worker_module.config_for(job)
    config.train.init_from = str(tmp_path / "base")
    config.train.steps, config.train.learning_rate, config.train.warmup = 1, 1e-12, 0
    trainer.train(config, tmp_path / "tuned")
    base, tuned = (
        checkpoint.load_policy_assets(tmp_path / name)["params"] for name in ("base", "tuned")
    )
    chex.assert_trees_all_close(base, tuned, atol=1e-6)
    assert trainer.train(config, tmp_path / "tuned").step == 1
    config.train.init_from = str(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no finished checkpoint at .*nowhere"):
        trainer.train(config, tmp_path / "other")
