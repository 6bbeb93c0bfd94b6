"""Rollouts on disk: kept until what they depend on changes."""

import numpy as np

from experiments.table import cache


def test_arrays_are_current_until_what_they_depend_on_changes(tmp_path):
    path, about = tmp_path / "rollouts.npz", {"steps": 10, "solver": ["ddpm", 5, None]}
    assert not cache.is_current(path, about)
    arrays = {"positions": np.arange(6.0).reshape(2, 3), "success": np.array([True, False])}
    cache.save(path, about, arrays)
    assert cache.is_current(path, about)
    assert not cache.is_current(path, about | {"solver": ["ddim", 5, None]})
    assert not cache.is_current(path, about | {"steps": 20})
    found = cache.load(path)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
    assert [p.name for p in tmp_path.iterdir()] == ["rollouts.npz"]


def test_why_rollouts_are_outdated(tmp_path):
    path, about = tmp_path / "rollouts.npz", {"steps": 10, "solver": ["ddpm", 5], "goals": 3}
    assert cache.outdated(path, about) == "not made yet"
    cache.save(path, about, {})
    assert cache.outdated(path, about) == "of policies at step 0 of 10"
    (tmp_path / "checkpoints" / "10" / "assets").mkdir(parents=True)
    assert cache.outdated(path, about) == ""
    assert cache.outdated(path, about | {"goals": 4}) == "made with other goals"
    other = about | {"solver": ["ddpm", 6], "execute": 2}
    assert cache.outdated(path, other) == "made with other execute and solver"
    assert cache.outdated(path, about | {"steps": 20}) == "of policies at step 10 of 20"


def test_an_untrained_policy_is_at_step_0(tmp_path):
    assert cache.step(tmp_path / "nothing") == 0


def test_a_report_leaves_out_what_is_not_current(tmp_path, caplog):
    path, about = tmp_path / "judged.npz", {"seed": 1}
    assert cache.is_left_out(path, about, report_only=True)
    assert "left out" in caplog.text and "--config.task.report_only" in caplog.text
    cache.save(path, about, {})
    assert not cache.is_left_out(path, about, report_only=True)
    assert cache.is_left_out(path, {"seed": 2}, report_only=True)
    assert not cache.is_left_out(path, {"seed": 2}, report_only=False)
