"""Which checkpoint a path means, whatever order a folder lists its files in."""

import pathlib

import pytest

from ambient_jax.train import checkpoint, layout, metrics, weights_and_biases

ORDERS = {"a to z": sorted, "z to a": lambda names: sorted(names, reverse=True)}


def _steps(directory, *names):
    for name in names:
        (directory / name / "assets").mkdir(parents=True)


@pytest.fixture(params=ORDERS)
def listed(request, monkeypatch):
    """Folders that list their files in an order of their own."""
    own, order = pathlib.Path.iterdir, ORDERS[request.param]
    monkeypatch.setattr(pathlib.Path, "iterdir", lambda self: iter(order(own(self))))


def test_the_newest_step_is_found_in_any_order(tmp_path, listed):
    _steps(tmp_path / "checkpoints", "9", "10", "1")
    assert layout.steps_in(tmp_path / "checkpoints") == [1, 9, 10]
    assert layout.find(tmp_path) == (tmp_path / "checkpoints", 10)


def test_only_numbers_are_steps(tmp_path):
    others = ("010", "\u00b2", "10.damaged", "10.orbax-checkpoint-tmp", "-1", "1e3", "ten")
    _steps(tmp_path, "0", "7", *others)
    (tmp_path / "8").mkdir()  # nothing in it
    (tmp_path / "9").write_text("a file")
    assert layout.steps_in(tmp_path) == [0, 7]
    assert layout.numbered(tmp_path) == [0, 7, 8]
    assert layout.find(tmp_path / "0") == (tmp_path, 0)


def test_a_step_that_lost_a_part_is_no_unfinished_one(tmp_path):
    _steps(tmp_path, "1")
    (tmp_path / "2" / "ema_params").mkdir(parents=True)
    assert layout.find(tmp_path) == (tmp_path, 2)
    with pytest.raises(ValueError, match="2 is damaged: assets is missing"):
        checkpoint.load_assets(tmp_path)


def test_workdirs_may_begin_with_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    saver = checkpoint.Checkpointer("~/run/checkpoints")
    saver.close()
    _steps(tmp_path / "home" / "run" / "checkpoints", "5")
    for path in ("~/run", "~/run/checkpoints", "~/run/checkpoints/5"):
        assert checkpoint.find(path) == (tmp_path / "home" / "run" / "checkpoints", 5)
    checkpoint.record_best("~/run", 5)
    assert checkpoint.best_step("~/run") == 5 and checkpoint.find("~/run/best")[1] == 5
    writer = metrics.Writer("~/run")
    writer.write({"step": 1}, {"step": 1})
    writer.close()
    assert metrics.read("~/run/metrics.jsonl") == [{"step": 1}]
    weights_and_biases.run_id("~/run")
    left = {p.name for p in (tmp_path / "home" / "run").iterdir()}
    assert {"best.json", "metrics.jsonl", "wandb_id"} <= left
    assert not list((tmp_path / "here").iterdir())
