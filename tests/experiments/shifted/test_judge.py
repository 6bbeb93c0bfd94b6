"""What was found about the kinds of shift is kept, and a report alone trains nothing anew."""

import functools
import types

import numpy as np
import pytest

from experiments.shifted import config as shifted_config
from experiments.shifted import excess, judge
from experiments.table import cache
from experiments.table.experiment import Table


@pytest.fixture
def config():
    config = shifted_config.get_config("debug")
    config.task.kinds = ("moved",)
    return config


def check_a_report_reads_current_files_alone(config, file, annotate, monkeypatch, made):
    found = annotate()
    assert len(found) == 1
    about = []
    monkeypatch.setattr(cache, "save", lambda path, key, arrays: about.append(key))
    made.append("not again")
    config.task.report_only = True
    assert annotate().keys() == found.keys()
    file.unlink()
    assert annotate() == {}
    np.savez(file, about='{"other": 1}', probability=np.zeros(1), excess=np.zeros(1))
    assert annotate() == {} and not about


def test_a_report_uses_no_plane_of_other_options(config, tmp_path, monkeypatch):
    made = []
    plane = np.full((len(judge.RHOS), len(judge.SIGMAS)), 0.5)
    monkeypatch.setattr(judge, "judged", lambda config: plane if not made else pytest.fail("made"))
    annotate = functools.partial(judge.annotate, config, tmp_path)
    file = tmp_path / "judged" / "moved.npz"
    check_a_report_reads_current_files_alone(config, file, annotate, monkeypatch, made)


def test_a_report_uses_no_losses_of_other_data(config, tmp_path, monkeypatch):
    made = []
    plane = {"excess": np.zeros((len(excess.RHOS), len(judge.SIGMAS)))}
    source = types.SimpleNamespace(fingerprint="of the data")
    monkeypatch.setattr(excess, "_source", lambda table, path: source)
    monkeypatch.setattr(excess, "_made", lambda *args: plane if not made else pytest.fail("made"))
    experiment = types.SimpleNamespace(policies=lambda task, annotations: {})
    annotate = lambda: excess.annotate(Table(experiment, config, tmp_path))  # noqa: E731
    file = tmp_path / "excess" / "moved.npz"
    check_a_report_reads_current_files_alone(config, file, annotate, monkeypatch, made)
