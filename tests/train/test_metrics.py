import json

import numpy as np
import pytest

from ambient_jax.train import metrics, state


def _sums(loss=2.0):
    sums = state.Sums(
        bin_loss=np.zeros(10),
        bin_count=np.zeros(10),
        source_loss=np.array([loss, 4.0]),
        source_count=np.array([1.0, 2.0]),
        grad_norm=np.array(6.0),
        steps=np.array(3),
        nonfinite=np.array(0),
    )
    sums.bin_loss[[0, 7]], sums.bin_count[[0, 7]] = (loss, 4.0), (1.0, 2.0)
    return sums


def test_row_is_the_mean_over_samples_not_over_bins():
    row = metrics.summarize(9, _sums(), ["good", "bad"], 0.1)
    assert row["loss"] == pytest.approx((2 + 4) / 3)
    assert row["loss_sigma/0.0-0.1"] == 2 and row["loss_sigma/0.7-0.8"] == 2
    assert "loss_sigma/0.1-0.2" not in row
    assert row["share_source/good"] == pytest.approx(1 / 3) and row["loss_source/bad"] == 2
    assert row["grad_norm"] == 2 and row["admitted"] == 1


def test_reopening_drops_rows_after_the_checkpoint_and_a_torn_line(tmp_path):
    writer = metrics.Writer(tmp_path)
    for step in (10, 20, 30):
        writer.write({"step": step, "loss": 0.1 * step}, {"step": step, "steps_per_second": 1.0})
    writer.close()
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 40, "lo')
    kept = path.read_text().splitlines()[:2]
    writer = metrics.Writer(tmp_path, step=20)
    writer.write({"step": 30, "loss": 7.0}, {"step": 30, "steps_per_second": 2.0})
    writer.close()
    assert path.read_text().splitlines() == [*kept, json.dumps({"step": 30, "loss": 7.0})]
    assert [r["step"] for r in metrics.read(tmp_path / "timing.jsonl")] == [10, 20, 30]
    assert list((tmp_path / "tensorboard").iterdir())


def test_rows_without_a_field_that_is_asked_for_are_left_out(tmp_path):
    rows = [{"step": 10}, {"step": 20, "loss": 1.0}, {"step": True, "loss": 1.0}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert metrics.read(tmp_path / "rows.jsonl") == rows[:2]
    assert metrics.read(tmp_path / "rows.jsonl", ("step", "loss")) == rows[1:2]


def test_reading_a_missing_file_gives_no_rows(tmp_path):
    assert metrics.read(tmp_path / "none.jsonl") == []
