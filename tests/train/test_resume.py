"""A run that resumes with what may change gives the numbers of one that was never interrupted."""

import importlib.util
import json
import math
import pathlib
import shutil

import jax
import numpy as np
import pytest

from ambient_jax.data import bounds, rlds
from ambient_jax.train import checkpoint, lock, loop, sweep, trainer

_SPEC = importlib.util.spec_from_file_location(
    "worker_module", pathlib.Path(__file__).parent / "worker.py"
)
worker_module = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(worker_module)


class Broken(Exception):
    """What interrupts a run."""


@pytest.fixture
def break_at(monkeypatch):
    """``break_at(step)`` lets runs break off before that step; ``break_at(0)`` no more."""
    original, limit = loop.run, [0]

    def run(state, step_fn, *args, start, **options):
        at = [start]

        def counted(*inputs):
            at[0] += 1
            if at[0] == limit[0]:
                raise Broken
            return step_fn(*inputs)

        return original(state, counted, *args, start=start, **options)

    monkeypatch.setattr(loop, "run", run)
    return lambda step: limit.__setitem__(0, step)


def _config(data, placement="device", **changes):
    changes = {"data.placement": placement, "train.steps": 20, "train.log_every": 5} | changes
    return worker_module.config_for({"data": data, "changes": changes})


def _rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def _flat(workdir):
    leaves = jax.tree.leaves(checkpoint.load_policy_assets(workdir)["params"])
    return np.concatenate([np.ravel(x) for x in leaves])


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["device", "stream"])
def test_all_that_may_change_at_once_changes_no_number(toy_data, tmp_path, break_at, placement):
    """Data, bounds file and workdir have moved, too."""
    bad = rlds.open_dataset(toy_data["bad"])
    episode, step = (
        np.concatenate(x)
        for x in zip(
            *((np.full(n, i), np.arange(n)) for i, n in enumerate(_lengths(bad))), strict=True
        )
    )
    low = np.where(step % 2, 0.2, 0.6)
    made = bounds.for_source("bad", bad.fingerprint, episode, step, low, method="test")
    file = str(bounds.write(tmp_path / "a.parquet", made))
    with_bounds = {"data.sources.bad.bounds": file, "data.sources.bad.sigma_min": 0.0}
    config = _config(toy_data, placement, **with_bounds)
    trainer.train(config, tmp_path / "whole")
    break_at(14)
    with pytest.raises(Broken):
        trainer.train(config, tmp_path / "broken")
    assert not (tmp_path / "broken" / lock.NAME).exists()
    break_at(0)
    for name, path in toy_data.items():
        shutil.copytree(path, tmp_path / "moved" / name / "1.0.0")
    shutil.move(file, tmp_path / "b.parquet")
    shutil.move(tmp_path / "broken", tmp_path / "elsewhere")
    other = _config(
        {name: f"{name}/1.0.0" for name in toy_data},
        placement,
        **{"data.root": str(tmp_path / "moved"), "data.prefetch": 1, "data.open_x.workers": 3},
        **{"data.bounds": str(tmp_path / "b.parquet"), "data.open_x.quality": ("smooth",)},
        **{"train.keep": 1, "train.keep_every": 8, "train.checkpoint_every": 4, "name": "x"},
        **{"train.init_from": "nowhere", "train.extend": True, "policy.steps": 3},
    )
    if placement == "device":
        other.data.shuffle_window, other.data.shards, other.data.shuffle_memory = 3, 5, 0.1
        other.data.open_x.cameras = ("wrist",)
    assert trainer.train(other, tmp_path / "elsewhere") == (20, "")
    assert _rows(tmp_path / "elsewhere") == _rows(tmp_path / "whole")
    assert (_flat(tmp_path / "elsewhere") == _flat(tmp_path / "whole")).all()
    # The test can fail: there was more to it than a run from the start.
    steps = checkpoint.steps_in(tmp_path / "elsewhere" / "checkpoints")
    assert steps == [16, 20]
    saved = json.loads((tmp_path / "elsewhere" / "config.json").read_text())
    assert saved["train"]["keep_every"] == 8 and saved["data"]["prefetch"] == 1


def _lengths(dataset):
    return [len(episode["steps"]["action"]) for episode in dataset]


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["device", "stream"])
def test_other_windows_of_the_metrics_leave_the_training_alone(
    toy_data, tmp_path, break_at, placement
):
    """A row over ten steps is the mean of two over five: gradient norms by steps, losses by
    admitted samples."""
    config = _config(toy_data, placement)
    trainer.train(config, tmp_path / "whole")
    break_at(14)
    with pytest.raises(Broken):
        trainer.train(config, tmp_path / "broken")
    break_at(0)
    config.train.log_every = 10
    trainer.train(config, tmp_path / "broken")
    assert (_flat(tmp_path / "broken") == _flat(tmp_path / "whole")).all()
    *before, wide = _rows(tmp_path / "broken")
    *same, first, second = _rows(tmp_path / "whole")
    assert before == same and wide["step"] == 20
    for field in ("grad_norm", "admitted"):
        assert wide[field] == pytest.approx((first[field] + second[field]) / 2, rel=1e-5)
    weights = [first["admitted"], second["admitted"]]
    mean = np.average([first["loss"], second["loss"]], weights=weights)
    assert wide["loss"] == pytest.approx(mean, rel=1e-5)


@pytest.mark.slow
def test_more_steps_need_a_word_and_go_on_at_the_rates_of_the_longer_run(toy_data, tmp_path):
    config = _config(toy_data)
    trainer.train(config, tmp_path)
    before = _rows(tmp_path)
    config.train.steps = 40
    with pytest.raises(ValueError, match="train.steps = 20, this one has 40.*train.extend"):
        trainer.train(config, tmp_path)
    config.train.extend = True
    assert trainer.train(config, tmp_path) == (40, "")
    rows = _rows(tmp_path)
    assert rows[: len(before)] == before
    assert [row["step"] for row in rows[len(before) :]] == [25, 30, 35, 40]
    warmup, peak = config.train.warmup, config.train.learning_rate
    for row in rows[len(before) :]:
        angle = math.pi * (row["step"] - 1 - warmup) / (40 - warmup)
        expected = peak * (1 + math.cos(angle)) / 2
        assert row["learning_rate"] == pytest.approx(expected, rel=1e-5)
    # It is an ordinary run of 40 from there on, and fewer are none.
    config.train.extend = False
    assert trainer.train(config, tmp_path) == (40, "")
    config.train.steps = 30
    with pytest.raises(ValueError, match="at step 40 with train.steps = 40, this one has 30, few"):
        trainer.train(config, tmp_path)


def test_a_complete_run_says_that_nothing_is_left(toy_data, tmp_path, caplog):
    config = _config(toy_data, **{"train.steps": 5})
    trainer.train(config, tmp_path)
    config.policy.steps = 3  # free to change, yet no checkpoint follows that would have it
    with caplog.at_level("INFO", logger="absl"):
        assert trainer.train(config, tmp_path) == (5, "")
    lines = [record.getMessage() for record in caplog.records]
    assert f"{tmp_path} is complete at step 5: nothing to train" in lines
    assert not any("goes on" in line for line in lines)


@pytest.mark.slow
def test_shards_of_a_stream_may_be_spelt_out_and_not_changed(toy_data, tmp_path, break_at):
    config = _config(toy_data, "stream")
    trainer.train(config, tmp_path / "whole")
    break_at(14)
    with pytest.raises(Broken):
        trainer.train(config, tmp_path / "broken")
    break_at(0)
    config.data.shards = 2
    with pytest.raises(ValueError, match="data.shards = 1, this one has 2"):
        trainer.train(config, tmp_path / "broken")
    config.data.shards = 1
    trainer.train(config, tmp_path / "broken")
    assert _rows(tmp_path / "broken") == _rows(tmp_path / "whole")


@pytest.mark.slow
def test_a_sweep_resumes_with_what_may_change_and_can_be_extended(toy_data, tmp_path, break_at):
    def configs(**changes):
        config = _config(toy_data, **changes)
        other = config.copy_and_resolve_references()
        other.seed = 1
        return {"one": config, "two": other}

    sweep.train(configs(), tmp_path / "whole")
    break_at(14)
    with pytest.raises(Broken):
        sweep.train(configs(), tmp_path / "broken")
    assert not list(tmp_path.rglob(lock.NAME))
    break_at(0)
    for name, path in toy_data.items():
        shutil.copytree(path, tmp_path / name)
    moved = {f"data.sources.{name}.path": str(tmp_path / name) for name in toy_data}
    sweep.train(configs(**moved, **{"train.keep": 1}), tmp_path / "broken")
    for name in ("one", "two"):
        assert _rows(tmp_path / "broken" / name) == _rows(tmp_path / "whole" / name)
        assert (_flat(tmp_path / "broken" / name) == _flat(tmp_path / "whole" / name)).all()
    with pytest.raises(ValueError, match="one holds a run with train.steps = 20, this one has 30"):
        sweep.train(configs(**{"train.steps": 30}), tmp_path / "broken")
    longer = configs(**{"train.steps": 30, "train.extend": True})
    assert sweep.train(longer, tmp_path / "broken") == (30, "")
    # Each policy's folder is held by itself: processes of a table share the one above.
    with lock.hold(tmp_path / "broken"):
        assert sweep.train(longer, tmp_path / "broken") == (30, "")
