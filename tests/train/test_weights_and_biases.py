"""With the real package, without its server: what is written to disk is what would be sent."""

import importlib.util
import json
import logging
import pathlib
import struct
import sys
import time

import numpy as np
import PIL.Image
import pytest
import wandb
from wandb.proto import wandb_internal_pb2

from ambient_jax.train import config as config_lib
from ambient_jax.train import metrics, runs, trainer, weights_and_biases

_SPEC = importlib.util.spec_from_file_location(
    "worker_module", pathlib.Path(__file__).parent / "worker.py"
)
worker_module = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(worker_module)


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_PROJECT", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no one's login
    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb.teardown()  # it reads the environment once


def _records(path):
    """Messages of a .wandb file: a log of LevelDB's format in blocks of 32 KiB."""
    data, at, message = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        size, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        message += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(message)
            message = b""
            yield record


def _logged(workdir):
    """[(run, rows by step)] of each process that logged, in order."""
    wandb.teardown()  # ends the process that writes
    found = []
    paths = (pathlib.Path(workdir) / "wandb").glob("offline-run-*/run-*.wandb")
    for path in sorted(paths, key=lambda p: p.stat().st_mtime_ns):
        run, rows = None, {}
        for record in _records(path):
            kind = record.WhichOneof("record_type")
            run = record.run if kind == "run" else run
            if kind == "history":
                row = {
                    item.key or item.nested_key[0]: json.loads(item.value_json)
                    for item in record.history.item
                }
                rows[row["_step"]] = {k: v for k, v in row.items() if k[0] != "_"}
        found.append((run, rows))
    return found


def _config(project="robots"):
    config = config_lib.default()
    config.name, config.train.wandb = "mine", project
    return config


def test_a_trained_run_logs_the_rows_of_its_metrics_file(toy_data, tmp_path):
    job = {"workdir": str(tmp_path), "data": toy_data, "changes": {"train.steps": 20}}
    config = worker_module.config_for(job)
    config.train.wandb = "robots"
    trainer.train(config, tmp_path)
    ((run, rows),) = _logged(tmp_path)
    assert (run.project, run.display_name) == ("robots", "worker")
    assert run.run_id == weights_and_biases.run_id(tmp_path)
    written = metrics.read(tmp_path / "metrics.jsonl")
    timing = metrics.read(tmp_path / "timing.jsonl")
    assert [row["step"] for row in written] == list(rows)
    for row, times in zip(written, timing, strict=True):
        assert {**times, **row} == pytest.approx({"step": row["step"], **rows[row["step"]]})


@pytest.mark.slow
def test_reopened_it_is_the_same_run_and_another_workdir_another(tmp_path):
    for start in (0, 10):
        writer = metrics.Writer(tmp_path / "one", start, _config())
        writer.write({"step": start + 10, "loss": 1.5}, {"step": start + 10, "speed": 2.0})
        writer.close()
        time.sleep(1.1)  # its folders are named by the second
    (first, rows), (second, later) = _logged(tmp_path / "one")
    assert first.run_id == second.run_id == (tmp_path / "one" / "wandb_id").read_text().strip()
    assert rows == {10: {"loss": 1.5, "speed": 2.0}} and list(later) == [20]
    metrics.Writer(tmp_path / "other", 0, _config()).close()
    assert _logged(tmp_path / "other")[0][0].run_id != first.run_id


def test_pictures_come_with_the_next_row_and_their_own_step(tmp_path):
    writer = metrics.Writer(tmp_path, 0, _config())
    image = np.full((6, 9, 3), 120, np.uint8)
    writer.write({"step": 10, "loss": 1.0}, {"step": 10})
    writer.picture(10, "chunks", image)  # drawn while the training goes on
    writer.write({"step": 20, "loss": 2.0}, {"step": 20})
    writer.picture(20, "chunks", image + 1)
    writer.close()  # no row follows
    ((_, rows),) = _logged(tmp_path)
    assert rows[20]["loss"] == 2.0
    assert rows[10] == {"loss": 1.0}
    assert [row.get("pictures/step") for row in rows.values()] == [None, 10, 20]
    media = sorted((tmp_path / "wandb").glob("offline-run-*/files/media/images/pictures/*.png"))
    colours = {int(np.asarray(PIL.Image.open(path)).mean()) for path in media}
    assert colours == {120, 121}


def test_two_policies_of_a_sweep_are_two_runs_at_once(tmp_path):
    writers = [metrics.Writer(tmp_path / name, 0, _config()) for name in "ab"]
    for value, writer in enumerate(writers):
        writer.write({"step": 5, "loss": float(value)}, {"step": 5})
    for writer in writers:
        writer.close()
    for value, name in enumerate("ab"):
        ((_, rows),) = _logged(tmp_path / name)
        assert rows == {5: {"loss": value}}


@pytest.mark.parametrize("trouble", ["no login", "no server"])
def test_an_outage_is_a_warning_and_the_rows_stay_on_disk(tmp_path, monkeypatch, caplog, trouble):
    monkeypatch.delenv("WANDB_MODE")
    if trouble == "no server":
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
        monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
    with caplog.at_level(logging.WARNING):
        writer = metrics.Writer(tmp_path, 0, _config())
        writer.write({"step": 3, "loss": 0.5}, {"step": 3})
        writer.close()
    assert "no connection to Weights & Biases" in caplog.text and "wandb sync" in caplog.text
    assert [rows for _, rows in _logged(tmp_path) if rows] == [{3: {"loss": 0.5}}]
    assert metrics.read(tmp_path / "metrics.jsonl") == [{"step": 3, "loss": 0.5}]


def test_a_run_that_breaks_off_leaves_training_alone(tmp_path, caplog):
    writer = metrics.Writer(tmp_path, 0, _config())
    writer._run._run.finish()  # as when it was ended from elsewhere
    with caplog.at_level(logging.WARNING):
        for step in (1, 2):
            writer.write({"step": step, "loss": 0.5}, {"step": step})
        writer.close()
    assert caplog.text.count("left out from here on") == 1
    assert len(metrics.read(tmp_path / "metrics.jsonl")) == 2


def test_off_by_default_and_free_to_change_when_a_run_resumes(tmp_path):
    metrics.Writer(tmp_path, 0, config_lib.default()).close()
    assert not (tmp_path / "wandb").exists() and not (tmp_path / "wandb_id").exists()
    assert runs.differences(_config("").to_dict(), _config("robots").to_dict()) == {}
    old = _config("").to_dict()
    del old["train"]["wandb"]
    assert runs.differences(old, _config("robots").to_dict()) == {}
    assert "train.steps" in runs.differences(old, {**old, "train": {**old["train"], "steps": 9}})


def test_a_missing_package_is_one_line_before_anything_is_built(tmp_path, monkeypatch):
    (tmp_path / "wandb").mkdir()  # the package's logs, which Python would take for a package
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb")
    config = _config()
    with pytest.raises(ValueError, match=r"pip install 'ambient_jax\[wandb\]'"):
        config_lib.check(config)
    config.train.wandb = ""
    config_lib.check(config)
