"""The table: which policies there are, who trains them, and what is said of them."""

import copy
import dataclasses
import json
import logging
import math
import pathlib

import numpy as np
import pytest

from ambient_jax import mixing
from ambient_jax.cli import launch
from ambient_jax.data import bounds
from ambient_jax.estimates import Estimate, wilson
from ambient_jax.evaluate import evaluation
from ambient_jax.train import config as config_lib
from ambient_jax.train import runs, sweep, trainer
from experiments.planar_pushing import (
    claims,
    classifier_bounds,
    metrics,
    policies,
    report,
    studies,
    table,
    table_figures,
)
from experiments.planar_pushing import config as push_config
from experiments.planar_pushing.rollout import Rollouts
from experiments.table import cache
from experiments.table import policies as table_policies
from experiments.table.annotations import Annotation
from experiments.table.report import Row
from experiments.tasks import TASKS

# What the table leaves of its policies: six of the group main, two chosen, three of the scaling
# study; and of those that are picked, target only and the best of either kind.
_LEFT = {"rollouts.npz": 6 + 2 + 3, "held_out.npz": 3, "fresh.npz": 3}
RESULTS = {
    "sigma_min": {"source, dataset": {"mean": 0.7}},
    "levels": (0.1, 0.9),
    "total_variation": {"source": {"value": (1.0, 0.0)}},
}


@pytest.fixture
def config():
    config = push_config.get_config("table")
    config.task.groups = policies.GROUPS
    config.task.update(dict(sigma_min=(0.6,), best=0.8, sigma_max=(0.3,), one_seed=()))
    return config


def rows_of(config):
    """The policies of the table, whose annotations have been made."""
    annotation = Annotation("folder", RESULTS, "source", 50, 2000)
    needed = classifier_bounds.needed(config.task)
    return policies.rows(config.task, {name: annotation for name in needed})


def test_policies_differ_from_the_base_in_what_they_say(config):
    base = config.to_dict()
    for name, row in rows_of(config).items():
        made = table_policies.config_of(config, name, row, 7)
        config_lib.check(made)
        changed = runs.differences(base, made.to_dict())
        told = {field for field in row.changes if not field.startswith("law.")}
        law = {field for field in changed if field.startswith("law.")}
        assert changed.keys() - law - {"seed"} <= told, name


def test_every_policy_is_trained_once_and_only_with_its_like(config):
    config.task.one_seed = ("scaling", "soft")
    named = rows_of(config)
    programs = table_policies.programs(config, named, together=4)
    once = set(config.task.one_seed)
    expected = [
        table_policies.key(name, seed)
        for name, row in named.items()
        for seed in ([0] if {name, row.group} & once else config.task.seeds)
    ]
    assert sorted(key for program in programs for key in program) == sorted(expected)
    for program in programs:
        if len(program) > 1:
            sweep.check(program)


def share(config, name, sigma, sizes=(1, 9)):
    """P(target | sigma) of a policy, for sets of so many chunks."""
    made = table_policies.config_of(config, name, rows_of(config)[name], 0)
    sources = [made.data.sources[n] for n in ("target", "source")]
    weight = [s.weight * size for s, size in zip(sources, sizes, strict=True)]
    low = [s.sigma_min for s in sources]
    high = [1.0 if s.role == "clean" or not s.sigma_min else s.sigma_max or 0.0 for s in sources]
    mixture = mixing.make_sources(weight, [True, False], low, high)
    law = trainer.build(mixing, made.law)
    return float(mixing.source_probabilities(law, sigma, mixture)[0])


def test_each_policy_draws_what_its_name_says(config):
    """Shares by hand, from the sizes: 0.1 = 1 / (1 + 9)."""
    for sigma in (0.05, 0.5, 0.97):
        assert share(config, "target", sigma) == 1 and share(config, "source", sigma) == 0
        assert share(config, "cotrain", sigma) == pytest.approx(0.1)
        assert share(config, "alpha_0.2", sigma) == pytest.approx(0.2)
        assert share(config, "alpha_0.5_few", sigma) == pytest.approx(0.5)
        assert share(config, "soft", sigma) == pytest.approx(1 - sigma)
    for name, low, above in (
        ("ambient_0.6", 0.6, 0.1),
        ("ambient_0.8_few", 0.8, 0.1),
        ("dataset", 0.7, 0.1),
        ("strict_dataset", 0.7, 0.1),
        ("dataset_alpha_0.5", 0.7, 0.5),
        (policies.scaling("hard", 500, 10), 0.8, 0.1),
        (policies.scaling("hard_alpha", 500, 10), 0.8, 0.5),
        (policies.scaling("low", 500, 10), config.task.low, 0.1),
        (policies.scaling("low_alpha", 500, 10), config.task.low, 0.5),
    ):
        assert share(config, name, low - 0.01) == 1
        assert share(config, name, low + 0.01) == pytest.approx(above), name
    shares = [share(config, "omni_0.3", sigma) for sigma in (0.29, 0.5, 0.81)]
    assert shares == pytest.approx([0.1, 1, 0.1])
    # Ben-David's: target only where the divergence is 1, the natural share of the numbers of
    # demonstrations that the annotation tells where it is 0.
    assert share(config, "soft_ben_david", 0.1) == 1
    assert share(config, "soft_ben_david", 0.9) == pytest.approx(50 / 2050)


def test_files_and_splits_are_those_of_the_annotation(config):
    named = rows_of(config)
    file, split = "data.sources.source.bounds", "data.sources.{}.split"
    for name in ("datapoint", "random_100", "random_episode_10", "ordered_1000"):
        assert named[name].changes[file] == f"folder/{name}.parquet"
    for name in ("observed_datapoint", "strict_datapoint", "datapoint_alpha_0.5"):
        assert named[name].changes[file] == "folder/datapoint.parquet"
    made = named[policies.scaling("random", 500, 10)].changes
    assert made[file] == "folder/random_100.parquet"
    assert made[split.format("source")] == "train[:500]"
    assert made[split.format("target")] == "train[:10]"
    needed = classifier_bounds.needed(config.task)
    assert [needed[name]["fields"].get("tau") for name in ("table", "observed", "strict")] == [
        *(None, None, config.task.strict)
    ]
    assert needed[classifier_bounds.scaled(500, 10)]["fields"]["observed"]
    asked = needed["table"]["fields"]["granularity"]
    units = {name.replace(":", "_") for name in asked}
    files = [e.changes[file] for e in named.values() if file in e.changes]
    assert {pathlib.Path(f).stem for f in files} <= units
    config.task.groups = ("main", "few")
    assert classifier_bounds.needed(config.task) == {}
    for config.task.groups in (("dataset",), ("random_100_alpha_0.5",), ("datapoint_alpha_0.5",)):
        assert list(classifier_bounds.needed(config.task)) == ["table"]
    # Policies and groups that are not configured may be named, unknown ones not.
    for config.task.one_seed in (("omni_0.3",), ("scaling",), ()):
        assert rows_of(config)
    for wrong, right in (("scalling", "scaling"), ("omni_0.33", "omni_0.3")):
        config.task.one_seed = (wrong,)
        with pytest.raises(ValueError, match=f"one_seed is '{wrong}'.*did you mean '{right}'"):
            rows_of(config)
    config.task.groups = ("mian",)
    with pytest.raises(ValueError, match="did you mean 'main'"):
        rows_of(config)
    config.task.groups, config.task.methods = ("scaling",), ("rondom",)
    with pytest.raises(ValueError, match="did you mean 'random'"):
        rows_of(config)


def row(percent, episodes=100):
    """A policy that succeeds so often."""
    unknown = Estimate(math.nan, math.nan, math.nan, 0)
    success = wilson(int(percent * episodes // 100), episodes)
    return Row("", metrics.Summary(success, unknown, unknown, unknown), {})


def test_seeds_are_pooled():
    lengths, error, qpos = np.full(4, 50), np.zeros((4, 2)), np.zeros((4, 51, 9))
    made = {
        seed: Rollouts(lengths, lengths, np.arange(4) < count, error, qpos)
        for seed, count in ((0, 1), (1, 2))
    }
    found = report.summarise("", made)
    assert found.summary.success == wilson(3, 8)
    assert [found.seeds[seed].success for seed in (0, 1)] == [wilson(1, 4), wilson(2, 4)]


def gap_of(rows):
    """Gains between rows, known to 2.8 points either way."""

    def gap(low, high):
        if not {low, high} <= rows.keys():
            return None
        value = rows[high].summary.success.value - rows[low].summary.success.value
        return Estimate(value, value - 0.028, value + 0.028, 100)

    return gap


def checked(config, rows, **studied):
    return claims.check(config.task, rows, gap_of(rows), gap_of(rows), **studied)


def test_claims_hold_when_the_numbers_do(config):
    config.task.targets, config.task.methods = (10,), ("hard", "random")
    good = {
        "target": row(45),
        "alpha_0.2": row(60),
        "alpha_0.5": row(70),
        "ambient_0.8": row(90),
        "ambient_0.6": row(80),
        "dataset": row(88),
        "datapoint": row(91),
        "random_100": row(86),
        "observed_dataset": row(88),
        "observed_datapoint": row(86),
        "target_few": row(20),
        "alpha_0.5_few": row(40),
        "ambient_0.8_few": row(50),
    }
    for size, hard, random in ((500, 80, 60), (1000, 85, 62), (2000, 70, 64), (4000, 50, 63)):
        good[policies.scaling("hard", size, 10)] = row(hard)
        good[policies.scaling("random", size, 10)] = row(random)
    assert claims.roles(config.task, good) == {
        "best": "ambient_0.8",
        "best alpha": "alpha_0.5",
        "best natural": "ambient_0.8",
        "best omni": "",
    }
    assert claims.picked(config.task, good) == ["target", "alpha_0.5", "ambient_0.8"]
    largest = lambda value: {"admitted": np.array([0.5]), "bias": np.array([value])}  # noqa: E731
    bias = {"datapoint": largest(0.3), "random_100": largest(0.01)}
    studied = dict(bias=bias, scaled_bias={10: {500: bias, 4000: bias}})
    told = checked(config, good, **studied)
    assert [c for c in told if not c[2]] == [] and len(told) == 12
    for worse, change, verdict in (
        ("target", row(76), False),
        ("target", row(69), None),  # within the interval
        ("alpha_0.2", row(97), False),
        ("dataset", row(70), False),
        ("datapoint", row(70), False),
        ("datapoint", row(85.5, 1000), None),  # neither worse nor as good for certain
        ("random_100", row(60), False),
        ("observed_datapoint", row(50), False),
        ("ambient_0.8_few", row(30), False),
        ("ambient_0.8_few", row(41), None),
        (policies.scaling("hard", 4000, 10), row(79), False),
        (policies.scaling("random", 4000, 10), row(40), False),
    ):
        found = [c[2] for c in checked(config, good | {worse: change}, **studied) if not c[2]]
        assert found == [verdict], worse
    weighted = {"ambient_0.8_alpha_0.5": row(92)}  # the best is another than by natural weights
    assert [c[2] for c in checked(config, good | weighted, **studied)] == [True] * 13
    biased = bias | {"random_100": largest(0.2)}
    studied = dict(bias=bias, scaled_bias={10: {500: bias, 4000: biased}})
    assert [c[2] for c in checked(config, good, **studied)].count(False) == 1
    assert checked(config, {"target": row(50)}) == []


def test_the_best_is_picked_among_policies_of_all_seeds(config):
    one, three = ({seed: None for seed in range(count)} for count in (1, 3))
    rows = {
        "ambient_0.6": dataclasses.replace(row(80), seeds=three),
        "ambient_0.8": dataclasses.replace(row(95), seeds=one),
    }
    assert claims.roles(config.task, rows)["best"] == "ambient_0.6"


def test_gains_are_between_the_same_starts():
    """The second policy succeeds where the first does and in a quarter of the starts more, with
    the seed that both have; intervals of the rates alone would be far wider."""
    rng = np.random.default_rng(0)
    first = rng.random(400) < 0.5
    second = first | (np.arange(400) % 4 == 0)
    of = lambda success: Rollouts(*[None] * 2, success, *[None] * 2)  # noqa: E731
    found = {"a": {0: of(first), 1: of(~first)}, "b": {0: of(second)}}
    gain = report.gains(found)("a", "b")
    assert gain.value == pytest.approx(np.mean(second & ~first)) and gain.count == 400
    assert 0 < gain.low < gain.value < gain.high < gain.value + 0.05
    found["c"] = {2: of(first)}  # no seed in common
    assert report.gains(found)("a", "c") is None and report.gains(found)("a", "d") is None


def test_drift_is_measured_against_the_same_source_alone(config):
    """Losses by hand: policies better than source only at every level, and one worse above
    sigma_min."""
    levels = np.array(evaluation.LEVELS)
    task = config.task
    task.update(dict(best=0.3, targets=(10,), methods=("hard", "alpha"), sources=(500, 4000)))
    alone = 1 / (1 + levels)
    found = {policies.source_only(size): np.stack([alone, 3 * alone]) for size in task.sources}
    found[policies.scaling("alpha", 500, 10)] = alone[None]
    found[policies.scaling("hard", 4000, 10)] = np.where(levels > 0.3, 2, 1)[None] * alone
    found[policies.scaling("hard", 500, 10)] = found[policies.scaling("alpha", 500, 10)] * 0.5
    told = studies.drifts(task, found)
    assert told == {
        10: {
            "hard": {500: pytest.approx(0.25), 4000: pytest.approx(1)},
            "alpha": {500: pytest.approx(0.5)},
        }
    }
    kept = {10: told[10] | {"alpha": {500: 0.5, 4000: 0.6}}}
    assert [c[2] for c in checked(config, {}, drifts=kept)] == [True, True]
    lost = {10: {"hard": {500: 0.5, 4000: 0.7}, "alpha": {500: 0.5, 4000: 0.8}}}
    assert [c[2] for c in checked(config, {}, drifts=lost)] == [False, False]
    nothing = {10: {"hard": {500: 0.99, 4000: 1.02}, "alpha": {500: 1.1, 4000: 1.2}}}
    assert [c[2] for c in checked(config, {}, drifts=nothing)] == [None, None]


@pytest.mark.slow
def test_from_demonstrations_to_the_report(tmp_path, tiny, caplog):
    """The main policies in one process; what is there is kept, checked and left out if outdated."""
    config = tiny(push_config.get_config("debug"))
    config.task.update(dict(sigma_min=(), episodes=2, fresh=3, target=3, source=3, held_out=0))
    folder, again = tmp_path / "run", copy.deepcopy(config)
    table.run(config, str(folder))
    text = (folder / "report" / "table.md").read_text()
    for part in ("target only", "alpha 0.5 (best alpha)", "on fresh starts"):
        assert part in text
    for figure in ("success", "film_best", "traces_target"):
        assert (folder / "report" / f"{figure}.png").stat().st_size > 1000
    made = {p: p.stat().st_mtime_ns for p in folder.rglob("*.npz")}
    counts = {name: sum(p.name == name for p in made) for name in _LEFT}
    assert counts == {"rollouts.npz": 5, "held_out.npz": 0, "fresh.npz": 3}
    table.run(config, str(folder))
    assert made == {p: p.stat().st_mtime_ns for p in folder.rglob("*.npz")}
    assert (folder / "report" / "table.md").read_text() == text
    again.task.report_only = True
    another_config_is_refused(again, folder)
    what_is_not_current_is_left_out(again, folder, caplog)


@pytest.mark.slow
def test_bounds_of_a_classifier_and_the_scaling_study(tmp_path, caplog):
    config = push_config.get_config("debug")
    config.data.root = str(tmp_path / "data")
    config.model.features, config.policy.steps = (8,), 2
    config.train.update(dict(steps=4, warmup=1, log_every=2, checkpoint_every=4))
    # Programs of seven policies, of one with a bounds file, and of three with another split.
    groups = ("main", "chosen", "scaling")
    config.task.update(dict(groups=groups, seeds=(0,), workers=1, together=8))
    config.task.update(dict(buckets=(), episodes=2, fresh=3, source=4))
    config.task.update(dict(methods=("alpha",), sources=(4,), targets=(3,)))
    config.task.annotate.update(dict(steps=4, evaluate_every=4))
    folder, again = tmp_path / "run", copy.deepcopy(config)
    table.run(config, str(folder))
    told = (folder / "report" / "table.md").read_text()
    for part in (
        "target only",
        "alpha 0.5 (best alpha)",
        "on fresh starts",
        "classifier, data set",
        "classifier, datapoint",
    ):
        assert part in told
    results = json.loads((folder / "report" / "results.json").read_text())
    assert results["policies"]["target"]["summary"]["success"]["count"] == 2
    assert results["fresh starts"]["target"]["summary"]["success"]["count"] == 3
    assert len(results["annotations"]["table"]["curves"]["source"]) == 4
    assert set(results["modes"]["bias"]) == {"dataset", "datapoint"}
    drifts = results["held out"]["of source only"]["3"]["alpha"]
    assert drifts.keys() == {"4"} and f"{drifts['4']:.3f}" in told
    drawn = ("success", "sigma_min", "curves", "modes", "scaling", "film_best", "traces_target")
    for figure in drawn:
        assert (folder / "report" / f"{figure}.png").stat().st_size > 1000
    made = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    counts = {name: sum(path.name == name for path in made) for name in _LEFT}
    assert counts == _LEFT
    table.run(again, str(folder))  # nothing is left to do but the report
    redone = [p for p, t in made.items() if p.parent.name != "report" and p.stat().st_mtime_ns != t]
    assert not redone and (folder / "report" / "table.md").read_text() == told
    (folder / "datapoint" / "seed_0" / "rollouts.npz").unlink()
    again.task.report_only = True
    table.run(again, str(folder))
    partial = (folder / "report" / "table.md").read_text()
    assert "classifier, datapoint" not in partial and "classifier, data set" in partial
    assert not (folder / "datapoint" / "seed_0" / "rollouts.npz").exists()
    another_config_is_refused(again, folder)
    other_data_are_refused(again, folder)
    what_is_not_current_is_left_out(again, folder, caplog)


def another_config_is_refused(config, folder):
    """Before anything is trained, and by a report of what is there, too."""
    config = copy.deepcopy(config)
    named = rows_of(config)
    alone = table_policies.config_of(config, "target", named["target"], 0)
    launch.trains(TASKS)(alone, str(folder / "target" / "seed_0"))  # which finds it complete
    config.train.learning_rate *= 2
    config.task.groups = (*config.task.groups, "omni")
    for config.task.report_only in (True, False):
        with pytest.raises(ValueError, match="target/seed_0 holds a run with train.learning_rate"):
            table.run(config, str(folder))
    assert not (folder / "omni_0.2").exists()


def other_data_are_refused(config, folder):
    file = folder / "annotation" / "table" / "bounds" / "datapoint.parquet"
    made = bounds.read(file)
    none = dict(sigma_min=np.ones_like(made.sigma_min), sigma_max=np.zeros_like(made.sigma_max))
    bounds.write(file, dataclasses.replace(made, **none))
    with pytest.raises(
        ValueError, match="datapoint/seed_0 was trained with other bounds of source"
    ):
        table.run(config, str(folder))
    bounds.write(file, made)


def what_is_not_current_is_left_out(config, folder, caplog):
    file = folder / "cotrain" / "seed_0" / "rollouts.npz"
    about = json.loads(str(np.load(file)["about"])) | {"starts": [1, 0]}
    cache.save(file, about, cache.load(file))
    unfinished = folder / "source" / "seed_0"
    steps = config.train.steps
    (unfinished / "checkpoints" / str(steps)).rename(unfinished / "no_checkpoint")
    with caplog.at_level(logging.WARNING):
        table.run(config, str(folder))
    told = f"left out 2 rollouts (1 of policies at step 0 of {steps}, 1 made with other starts)"
    assert told in caplog.text
    rows = json.loads((folder / "report" / "results.json").read_text())["policies"]
    assert "target" in rows and not {"cotrain", "source"} & rows.keys()
    config.task.episodes += 1
    with pytest.raises(ValueError, match="has no rollouts of this config"):
        table.run(config, str(folder))


def test_curves_of_a_classifier_that_bounds_no_whole_data_set():
    """As the classifier of rejection, whose bounds are of chunks."""
    band = {"low": [0.2, 0.0], "value": [0.3, 0.1], "high": [0.4, 0.2]}
    results = {
        **{"levels": [0.1, 0.9], "curves": {"source": [0.3, 0.5]}},
        **{"total_variation": {"source": band}, "config": {"task": dict(observed=False, tau=0.05)}},
        "sigma_min": {"source, rejection": {"mean": 0.03}},
    }
    made = Annotation("", results, "source", 1, 1)
    assert made.sigma_min is None
    figure = table_figures.curves_figure({"rejection": made})
    (label,) = (text.get_text() for text in figure.axes[0].get_legend().get_texts())
    assert label == "rejection, tau 0.05"
    results["sigma_min"]["source, dataset"] = {"mean": 0.25}
    figure = table_figures.curves_figure({"rejection": made})
    assert figure.axes[0].get_legend().get_texts()[0].get_text() == "rejection, tau 0.05: 0.250"
