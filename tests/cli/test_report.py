import dataclasses
import json
import math
import os

import numpy as np

from ambient_jax.cli import report


@dataclasses.dataclass
class _Pair:
    left: float
    right: np.ndarray


def test_plain_values_survive_json():
    value = {"pair": _Pair(math.nan, np.arange(2)), 3: (np.float32(0.5), None, True)}
    expected = {"pair": {"left": None, "right": [0, 1]}, "3": [0.5, None, True]}
    assert json.loads(json.dumps(report.plain(value))) == expected


def test_markdown_has_one_row_a_line_and_equal_widths():
    lines = report.markdown(["a", "long name"], [["1", 2], ["three", ""]]).splitlines()
    assert lines[0] == "| a     | long name |" and lines[3] == "| three |           |"
    assert len({len(line) for line in lines}) == 1


def test_written_reports_can_be_read_again(tmp_path):
    table = report.write(tmp_path / "r", ["x"], [["1"]], "caption", {"value": math.inf})
    assert (tmp_path / "r" / "table.md").read_text() == table and "caption" in table
    assert json.loads((tmp_path / "r" / "results.json").read_text())["value"] is None


def test_a_report_is_replaced_whole(tmp_path):
    """Whoever reads the old files goes on reading them: they are not written over."""
    names = ("table.md", "results.json")
    report.write(tmp_path, ["x"], [["1"]], "old", {"caption": "old"})
    for name in names:
        os.link(tmp_path / name, tmp_path / f"read_{name}")
    report.write(tmp_path, ["x"], [["1"]], "new", {"caption": "new"})
    for name in names:
        assert "old" in (tmp_path / f"read_{name}").read_text()
        assert "new" in (tmp_path / name).read_text()
    assert len(list(tmp_path.iterdir())) == 4


def test_loss_figure_draws_one_curve_per_noise_bin():
    rows = [
        {"step": s, "loss": 1.0, "loss_sigma/0.0-0.1": 1 / s, "loss_sigma/0.9-1.0": 2 / s}
        for s in (1, 2, 3)
    ]
    del rows[1]["loss_sigma/0.9-1.0"]
    axes = report.loss_figure(rows).axes[0]
    assert [len(line.get_xdata()) for line in axes.lines] == [3, 2]
    assert report.loss_figure([]).axes[0].lines[:] == []
