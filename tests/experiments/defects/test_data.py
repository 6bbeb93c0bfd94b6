"""The data sets hold what was planned and spoilt."""

import numpy as np
import pytest

from ambient_jax.data.rlds import open_dataset
from experiments.defects import data
from experiments.defects.kinds import KINDS, Strengths, from_path
from experiments.maze import planners

SIZES = {"plans": 8, "clean": 2, "each": 2, "workers": 1, "progress": False}
RNG = np.random.default_rng


def walks(count=3):
    paths = [np.cumsum(RNG(s).normal(0, 0.4, (30, 2)), 0) + 2.5 for s in range(count)]
    return [from_path(path, path[-1]) for path in paths]


@pytest.mark.parametrize("kind", KINDS)
def test_a_pile_is_reproduced_by_its_seed_and_has_its_defect(kind):
    plans = walks()
    first, again, other = (data.spoilt(plans, kind, Strengths(), seed) for seed in (0, 0, 1))
    for one, same, plan in zip(first, again, plans, strict=True):
        for values, others in zip(one, same, strict=True):
            np.testing.assert_array_equal(values, others)
        assert one.state.shape == one.action.shape
        kept = all(np.array_equal(a, b) for a, b in zip(one, plan, strict=True))
        assert kept == (kind == "none")
    same = all(np.array_equal(a.path, b.path) for a, b in zip(first, other, strict=True))
    assert same == (kind not in ("tremor", "detour"))  # nothing else is drawn


def test_the_wrong_goal_is_another_plans():
    plans = walks()
    made = data.spoilt(plans, "wrong_goal", Strengths())
    for one, number in zip(made, (1, 2, 0), strict=True):
        np.testing.assert_array_equal(one.goal, plans[number].goal)


def test_data_sets_hold_the_plans_in_order(tmp_path, monkeypatch):
    built = data.build(tmp_path, kinds=("none", "late"), **SIZES)
    assert list(built) == ["clean", "none", "late"]
    made = planners.generate("gcs", 8, workers=1, progress=False)
    both = zip(made.positions, made.goals, strict=True)
    plans = [(path.astype(np.float32), goal.astype(np.float32)) for path, goal in both]
    clean = data.read(built["clean"], (0, 1))
    for episode, (path, goal) in zip(clean, plans, strict=False):
        np.testing.assert_array_equal(episode.path, path)
        np.testing.assert_array_equal(episode.goal, goal)
    for name, numbers in {"none": (2, 3), "late": (6, 7)}.items():  # 4 and 5 are tremor's
        dataset = open_dataset(built[name], last_step="keep")
        assert (dataset.name, len(dataset)) == (f"defects_{name}", 2)
        for index, number in enumerate(numbers):
            episode, (path, goal) = dataset[index], plans[number]
            steps = episode["steps"]
            np.testing.assert_array_equal(steps["observation"]["state"], path[:-1])
            lag = 4 if name == "late" else 0
            np.testing.assert_array_equal(steps["action"][lag:], path[1 : len(path) - lag])
            assert (steps["observation"]["goal"] == goal).all()
            assert episode["episode_metadata"]["plan"] == number
    with monkeypatch.context() as patch:
        patch.setattr(data, "read", None)  # spoiling them again would raise
        assert data.build(tmp_path, kinds=("none", "late"), **SIZES) == built


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match="asked for 2 clean plans and 1 of each kind of 8"):
        data.build(tmp_path, **{**SIZES, "each": 1})
    with pytest.raises(ValueError, match="in all at least 24 plans"):
        data.build(tmp_path, **SIZES)
    with pytest.raises(ValueError, match="'wobble'"):
        data.build(tmp_path, kinds=("wobble",), **SIZES)
