"""The thought experiment, from its config to its report."""

import json

import numpy as np

from experiments.annotate import __main__ as command
from experiments.annotate import config as annotate_config


def test_three_points_drift_per_datapoint_and_not_per_data_set(tmp_path):
    config = annotate_config.get_config("three_points")
    config.task.update(dict(tau=(0.05,), corrupt=(1000,), repeats=40, pairs=2, draws=20_000))
    command.run(config, str(tmp_path))
    results = json.loads((tmp_path / "report" / "results.json").read_text())
    share = {row["assignment"]: row["drawn"][1] for row in results["rows"]}
    for row in results["rows"]:
        gap = np.abs(np.subtract(row["drawn"], row["exact"]))
        assert np.all(gap < 4.5 * np.array(row["standard_error"]) + 1e-4), row["assignment"]
    assert share["datapoint"] > 0.9 and share["ordered"] > 0.9
    assert abs(share["dataset"] - 0.5) < 0.05 and abs(share["bucket"] - 0.5) < 0.05
    assert (tmp_path / "report" / "three_points.png").exists()
