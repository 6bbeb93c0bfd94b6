"""The baselines: which episodes they keep, and a whole table with them."""

import types

import numpy as np
import pytest

from ambient_jax.data import bounds, rlds
from ambient_jax.policy.policy import Policy
from ambient_jax.train import checkpoint
from experiments.bin_sorting import config as bins_config
from experiments.bin_sorting import policies as bins_policies
from experiments.maze import config as maze_config
from experiments.maze import policies as maze_policies
from experiments.maze import table as maze_table
from experiments.planar_pushing import config as push_config
from experiments.planar_pushing import policies as push_policies
from experiments.table import baselines
from experiments.table.annotations import Annotation


def test_the_better_half_by_mean_score():
    episode = np.array([3, 0, 1, 0, 1, 4, 3])
    score = np.array([5.0, 1, 2, 3, 2, -1, 0])  # means: 0: 2, 1: 2, 3: 2.5, 4: -1; 2 has none
    assert baselines.better_half(episode, score).tolist() == [True, False, False, True, False]
    odd = baselines.better_half(np.array([0, 1, 2]), np.array([1.0, 3.0, 2.0]))
    assert odd.tolist() == [False, True, True]


def test_chunks_of_an_episode_are_spread_over_it():
    rng = np.random.default_rng(0)
    lengths = {0: 40, 2: 3, 5: 8, 6: 17}
    origin = np.array([(e, step) for e, n in lengths.items() for step in range(n)])
    origin = rng.permutation(origin)
    found = origin[baselines._spread(origin)]
    by_episode = {e: found[found[:, 0] == e, 1].tolist() for e in lengths}
    assert by_episode[0] == [2, 7, 12, 17, 22, 27, 32, 37]
    assert by_episode[2] == [0, 1, 2] and by_episode[5] == list(range(8))
    assert len(by_episode[6]) == 8 and np.ptp(np.diff(by_episode[6])) <= 1


@pytest.mark.parametrize(
    "config, policies, told",
    [
        (maze_config, maze_policies, ("state", "goal", "is_clean")),
        (push_config, push_policies, ("state", "is_clean")),
        (bins_config, bins_policies, None),  # has its row "told the task"
    ],
)
def test_rows_name_the_bounds_of_the_corrupt_source(config, policies, told):
    task, setting = config.get_config("table").task, policies.BASELINES
    task.groups = ("main", "baselines")
    assert {setting.clean_policy, setting.mixed_policy} <= set(policies.rows(task, {}))
    made = {
        name: Annotation(name, {}, setting.corrupt, 0, 0)
        for name in (baselines.REJECTION, baselines.SELECTION)
    }
    rows = {n: r for n, r in policies.rows(task, made).items() if r.group == "baselines"}
    field = f"data.sources.{setting.corrupt}.bounds"
    found = {name: row.changes.get(field) for name, row in rows.items()}
    want = {
        "baseline_rejection": "rejection/rejection.parquet",
        "baseline_excess_loss": "selection/excess_loss.parquet",
        "baseline_influence": "selection/influence.parquet",
    }
    assert found == want | ({"baseline_told": None} if told else {})
    if told:
        assert rows["baseline_told"].changes["data.observation"] == told
    # Before the bounds are made only the policy that needs none can train.
    first = [n for n, r in policies.rows(task, {}).items() if r.group == "baselines"]
    assert first == (["baseline_told"] if told else [])


def test_a_table_without_the_policies_to_compare_with_is_refused(tmp_path):
    config = maze_config.get_config("table")
    config.task.groups = ("baselines",)
    table = types.SimpleNamespace(config=config, rows=maze_policies.rows(config.task, {}))
    with pytest.raises(ValueError, match="compares with the policies gcs, cotrain, but .* add"):
        baselines._select(maze_policies.BASELINES, table, tmp_path)


@pytest.mark.slow
def test_a_table_with_the_baselines(tmp_path, tiny):
    """Its policies are trained in two passes; again, nothing is left to do."""
    config = tiny(maze_config.get_config("debug"))
    config.task.update(dict(groups=("main", "baselines"), sigma_min=(), solvers=(), shortcut=0))
    config.task.update(dict(clean=4, corrupt=6, held_out=0, goals=2))
    config.task.annotate.update(dict(steps=4, evaluate_every=4, features=(8,), batch_size=32))
    folder = tmp_path / "run"
    maze_table.run(config, str(folder))
    text = (folder / "report" / "table.md").read_text()
    for label in ("rejection by classifier", "told which data", "excess loss", "by influence"):
        assert label in text
    steps = rlds.open_dataset(tmp_path / "data" / "maze_rrt")
    length = sum(len(steps[i]["steps"]["action"]) for i in range(6))
    for name in ("excess_loss", "influence"):
        table = bounds.read(folder / "baselines" / "selection" / f"{name}.parquet")
        assert len(table) == length and set(table.sigma_min.tolist()) == {0, 1}
        np.testing.assert_array_equal(table.sigma_max, 1 - table.sigma_min)
        admitted = {e: set(table.sigma_min[table.episode == e]) for e in set(table.episode)}
        assert len(admitted) == 6 and all(len(values) == 1 for values in admitted.values())
        assert sum(0 in values for values in admitted.values()) == 3
        # The policies are those of the table.
        assert table.how["about"]["policies"] == {"gcs": [2, 0], "cotrain": [2, 0]}
        assert checkpoint.find(folder / f"baseline_{name}" / "seed_0")[1] == 2
    lots = bounds.read(folder / "baselines" / "rejection" / "bounds" / "rejection.parquet")
    assert len(lots) == length and lots.how["granularity"] == "rejection"
    told = Policy.from_checkpoint(folder / "baseline_told" / "seed_0")
    assert told.chain.steps[-1].asked == 1
    files = lambda: [p for kind in ("npz", "parquet") for p in folder.rglob(f"*.{kind}")]  # noqa: E731
    made = {p: p.stat().st_mtime_ns for p in files()}
    maze_table.run(config, str(folder))
    assert made == {p: p.stat().st_mtime_ns for p in files()}
    assert (folder / "report" / "table.md").read_text() == text
