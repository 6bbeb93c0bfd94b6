"""A training whose batches are assembled by several processes, killed and resumed with another
number of them: the numbers of one process."""

import json

import numpy as np
import pytest


@pytest.mark.slow
def test_a_killed_run_goes_on_with_another_number_of_processes(toy_data, tmp_path, worker):
    changes = {"data.placement": "stream", "data.shards": 2, "train.steps": 14}
    changes |= {"train.checkpoint_every": 5, "train.log_every": 2}
    job = {"data": toy_data, "changes": changes}
    whole = job | {"workdir": str(tmp_path / "whole"), "params": str(tmp_path / "whole.npz")}
    worker(whole)()
    broken = job | {"workdir": str(tmp_path / "broken"), "params": str(tmp_path / "broken.npz")}
    two = {"changes": changes | {"data.assemblers": 2}}
    worker(broken | two | {"kill": ["step", 8]})(-9)
    worker(broken)()

    metrics = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "broken")
    ]
    assert metrics[0] == metrics[1] and len(metrics[0]) == 7
    first, second = (np.load(tmp_path / f"{name}.npz") for name in ("whole", "broken"))
    assert first.files == second.files
    for name in first.files:
        np.testing.assert_array_equal(first[name], second[name])
