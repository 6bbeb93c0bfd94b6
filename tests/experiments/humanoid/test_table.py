"""Data sets, scores and the whole table, on generated and on recorded motions."""

import json

import numpy as np
import pytest

from ambient_jax.data import rlds
from ambient_jax.evaluate import evaluation
from experiments.humanoid import config as humanoid_config
from experiments.humanoid import data, metrics, policies, table, task
from experiments.humanoid.corruptions import KINDS, Motion
from experiments.table import policies as table_policies
from experiments.table.annotations import Annotation


@pytest.fixture
def config(tiny):
    config = tiny(humanoid_config.get_config("debug"))
    config.task.update(dict(generated=18, clean=4, held_out=3, samples=40, one_seed=()))
    return config


def test_no_episode_is_in_two_parts_and_all_are_used(config):
    parts = data.split(18, config.task)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(18))
    assert [len(parts[n]) for n in ("clean", "held_out")] == [4, 3]
    assert {len(parts[kind]) for kind in KINDS} == {1, 2}
    config.task.data_seed = 1
    assert data.split(18, config.task)["clean"].tolist() != parts["clean"].tolist()
    with pytest.raises(ValueError, match="expected at least 7 left"):
        data.split(13, config.task)


def test_data_sets_hold_what_was_recorded_and_what_was_spoilt(config):
    task.build(config)
    motions, parts = data.generated(18), data.split(18, config.task)
    trained = [number for name, part in parts.items() if name != "held_out" for number in part]
    whole = {name: parts[name] for name in ("clean", "held_out")} | {"uncorrupted": sorted(trained)}
    for name, numbers in whole.items():
        dataset = rlds.open_dataset(f"{config.data.root}/humanoid_{name}", last_step="keep")
        assert len(dataset) == len(numbers)
        for position, number in enumerate(numbers):
            episode = dataset[position]
            assert episode["episode_metadata"]["index"] == number
            action = motions[number].action.astype(np.float32)
            np.testing.assert_array_equal(episode["steps"]["action"], action)
    late = rlds.open_dataset(f"{config.data.root}/humanoid_late", last_step="keep")[0]["steps"]
    before = motions[parts["late"][0]]
    np.testing.assert_array_equal(late["action"][9:], before.action[:-9].astype(np.float32))
    np.testing.assert_array_equal(late["observation"]["state"], before.state.astype(np.float32))
    centred = rlds.open_dataset(f"{config.data.root}/humanoid_centred_late", last_step="keep")
    shown, spoilt = centred[0]["steps"], late["action"]
    np.testing.assert_allclose(shown["action"].mean(0), 0, atol=1e-5)
    ratio = (spoilt - spoilt.mean(0)) / shown["action"]  # of all frames, the standard deviation
    np.testing.assert_allclose(ratio, np.median(ratio, 0) + 0 * ratio, rtol=0.02)
    lag = spoilt - late["observation"]["state"]
    np.testing.assert_allclose(
        (shown["action"] - shown["observation"]["state"]) * np.median(ratio, 0), lag, atol=1e-4
    )


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("strengths.share", 1.0, "config.task.strengths.share is 1.0, expected more than 0"),
        ("strengths.shre", 0.1, "shre.*did you mean 'share'"),
        ("clean", 0, "config.task.clean is 0, expected a whole number of at least 1"),
    ],
)
def test_values_that_cannot_work_are_told(config, field, value, told):
    *section, name = field.split(".")
    (config.task[section[0]] if section else config.task)[name] = value
    with pytest.raises(ValueError, match=told):
        task.check(config)


def annotation(low):
    found = {f"{kind}, dataset": {"mean": low + 0.01 * i} for i, kind in enumerate(KINDS)}
    return Annotation("bounds", {"sigma_min": found}, "", 0, 0)


def test_bounds_of_the_annotations_reach_the_policies(config):
    config.task.groups = policies.GROUPS
    made = policies.rows(config.task, {"actions": annotation(0.1), "raw": annotation(0.5)})
    for name, low in (("ambient_actions", 0.1), ("ambient_raw", 0.5)):
        sources = table_policies.config_of(config, name, made[name], 0).data.sources
        expected = {kind: low + 0.01 * i for i, kind in enumerate(KINDS)}
        assert {kind: sources[kind].sigma_min for kind in KINDS} == expected
    assert "ambient_observed" not in made


def scores(loss, square):
    """Scores of seeds 0 and 1, from a loss of each episode that all levels share."""
    loss, square = np.array(loss), np.array(square)
    each = np.repeat(loss[..., None], len(evaluation.LEVELS), -1)
    return metrics.Scores((0, 1), each, square, square)


def test_scores_average_episodes_and_compare_pairs():
    rows = np.arange(6.0)[:, None] * np.ones(len(evaluation.LEVELS))
    square = np.array([[1.0, 0.0]] * 4 + [[4.0, 8.0]] * 2)
    measured = task.Measures(rows, square, np.array([5, 5, 5, 5, 9, 9]))
    made = metrics.scores({3: measured}, np.array([0.5, 0.0]))  # the second joint never moves
    assert made.seeds == (3,)
    np.testing.assert_allclose(made.values("loss"), [[1.5, 4.5]])
    np.testing.assert_allclose(made.values("error"), [[4.0, 16.0]])
    np.testing.assert_allclose(made.values("raw"), [[0.5, 6.0]])
    assert made.estimate("error").value == pytest.approx(np.sqrt(10.0))
    worse = scores([[2, 6], [4, 8]], [[4, 16], [4, 16]])
    better = scores([[1, 3], [2, 4]], [[1, 4], [1, 4]])
    for metric in ("loss", "low", "error"):
        change = metrics.change(better, worse, metric)
        found = change.value, change.low, change.high
        np.testing.assert_allclose(found, [-0.5] * 3)  # of each pair the half
    assert worse.estimate("loss").low < 5 < worse.estimate("loss").high


def test_standing_still_errs_by_how_far_actions_lead():
    """Of 3 steps ahead, 1, 2 and 3 away, and at the end 1, 2, 2 and 1, 1, 1."""
    rise = np.arange(3.0)[:, None] * np.array([2.0, 0.0])
    motion = Motion(rise - np.array([2.0, 0.0]), rise)
    expected = np.sqrt(np.mean([1, 4, 9, 1, 4, 4, 1, 1, 1]))
    found = metrics.standing_still([motion, motion], np.array([2.0, 0.0]), 3)
    assert found == pytest.approx(expected)


def test_the_interval_covers_seeds_and_episodes():
    """Means of independent effects of 20 seeds and 50 episodes: std sqrt(1/20 + 4/50)."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20, 1)) + 2 * rng.normal(size=(1, 50))
    found = metrics.crossed(np.positive, values)
    expected = np.sqrt(values.mean(1).var() / 20 + values.mean(0).var() / 50)
    assert found.value == pytest.approx(values.mean())
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(expected, rel=0.06)


def run(config, workdir, monkeypatch, capsys):
    monkeypatch.chdir(workdir)
    table.run(config, str(workdir))
    report = workdir / "report"
    assert report.joinpath("table.md").read_text().strip() in capsys.readouterr().out
    results = json.loads((report / "results.json").read_text())
    assert results["policies"].keys() == {"clean", "cotrain", "ambient_actions", "ambient_observed"}
    assert len(results["kinds"]) == len(KINDS)
    figures = {path.stem for path in report.glob("*.png")}
    assert figures == {"data", "corruptions", "kinds", "levels"}
    for policy in results["policies"].values():
        assert 0 < policy["loss"]["value"] < 10 and 0 < policy["error"]["value"] < 100
    return results


@pytest.mark.slow
def test_the_table_on_generated_motions_and_again(config, tmp_path, monkeypatch, capsys):
    config = config.copy_and_resolve_references()
    config.task.generated = 21  # two of each kind, one a fold of the classifiers
    results = run(config, tmp_path, monkeypatch, capsys)
    made = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/seed_0/measures.npz")}
    assert len(made) == 4
    again = run(config, tmp_path, monkeypatch, capsys)
    assert again["policies"] == results["policies"]
    assert made == {path: path.stat().st_mtime_ns for path in made}


@pytest.mark.slow
def test_the_table_on_recorded_motions(recorded_data, config, tmp_path, monkeypatch, capsys):
    config.task.recorded = str(recorded_data / "lerobot_v21_g1")
    config.task.update(dict(clean=10, held_out=60))
    results = run(config, tmp_path, monkeypatch, capsys)
    assert 2 < results["spectrum"]["64 frames"]["exponent"] < 4
    assert len(results["leads"]) == 26
    numbers = {episodes for episodes, *_ in results["kinds"].values()}
    assert numbers == {"4", "5"}
