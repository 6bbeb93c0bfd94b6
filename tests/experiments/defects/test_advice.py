"""The advice about kinds whose losses are known."""

import json

import numpy as np
import pytest

from ambient_jax.annotate import candidates, choice, evidence
from ambient_jax.annotate.candidates import Candidate, Measured
from ambient_jax.cli.report import plain
from experiments.defects import advice, figures, report
from experiments.defects import config as defects_config
from experiments.defects.kinds import KINDS
from tests.annotate.made import admits

LEVELS = evidence.grid(13)
TASK = defects_config.get_config("table").task
RULE = TASK.rule.to_dict()


def measured(relative, wrong=()):
    """Losses 0.1 sigma^2 ``relative(candidate)`` [L], the same for 20 plans but for noise; chunks
    of kinds in ``wrong`` without bounds are wrong above 0.8 in one of ten."""
    tried = tuple(advice.tried(TASK))
    spread = np.exp(0.1 * np.random.default_rng(0).normal(size=200))
    losses = np.stack([(0.1 * LEVELS**2 * relative(c))[None, :, None] * spread for c in tried])
    losses = np.repeat(losses, 2, axis=1)
    for k, one in enumerate(tried):
        if one.corrupt and one.corrupt[0] in wrong:
            losses[k] += (LEVELS > 0.8)[:, None] * (np.arange(200) % 10 == 0)
    episode = np.repeat(np.arange(20), 10)
    parts = dict(episode=episode, fold=episode % 2, variance=1.0, decisions=20.0, natural=0.05)
    return Measured(tried, LEVELS, losses, **parts)


def relative(candidate):
    """Kinds halve the loss where they train; late actions double it below 0.1, mirrored ones
    everywhere."""
    if candidate.alpha == 1:
        return np.ones(len(LEVELS))
    factor = np.full(len(LEVELS), 0.5)
    if candidate.corrupt == ("late",):
        factor[LEVELS < 0.1] = 2.0
    if candidate.corrupt == ("mirrored",):
        factor[:] = 2.0
    return np.where(admits(candidate, LEVELS), factor, 1.0)


def of_kind(kind, **how):
    return advice._of_kind(measured(relative, **how), kind, RULE)


def test_each_kind_has_its_candidates():
    tried = advice.tried(TASK)
    assert tried[0] == Candidate(1.0)
    assert len(tried) == 1 + 2 * len(KINDS) == len(set(tried))
    assert {c.corrupt for c in tried[1:]} == {(kind,) for kind in KINDS}


def test_good_plans_train_everywhere_and_halve_the_loss():
    given = of_kind("none")
    assert given.bounds == (0.0, 1.0)
    assert (given.exact, given.words) == (True, "everywhere")
    for gain in (given.gain, given.everywhere, *given.parts.values()):
        np.testing.assert_allclose([gain.value, gain.low, gain.high], 0.5)


def test_harm_at_low_levels_is_seen_and_left_out():
    given = of_kind("late")
    assert (given.bounds, given.words) == ((0.2, 0.0), "above 0.2")
    assert given.parts["low"].value == pytest.approx(-1.0)
    assert given.parts["high"].value == pytest.approx(0.5)
    share = (LEVELS > 0.2).mean()
    assert given.gain.value == pytest.approx(1 - 0.5**share)
    assert given.gain.value > given.everywhere.value


def test_plans_that_only_harm_train_nowhere():
    given = of_kind("mirrored")
    assert (given.words, given.gain.value) == ("nowhere", 0)
    assert not given.trains
    assert given.everywhere.value == pytest.approx(-1)


def test_rare_large_mistakes_end_below_sigma_max():
    given = of_kind("none", wrong=("none",))
    low, high = given.bounds
    assert (low, given.exact) == (1.0, True)
    assert LEVELS[LEVELS < 0.8].max() < high < LEVELS[LEVELS > 0.8].min()
    assert given.words == f"below {high:.2g}"


@pytest.mark.parametrize(
    ("low", "high", "bounds"), [(0.4, 0.99, (0.4, 0.0)), (0.01, 0.5, (1, 0.5))]
)
def test_a_band_keeps_the_end_that_shuts_out_more_levels(low, high, bounds):
    nothing = np.zeros(len(LEVELS))
    curves = [LEVELS, *[nothing] * 4]
    band = choice.Choice(Candidate(0.5, low), high, *curves, scores={}, natural=0.1)
    assert band.bounds is None
    assert advice.nearest_bounds(band) == (bounds, False)


def test_intervals_are_over_plans():
    made = measured(relative)
    k = made.candidates.index(Candidate(0.5, corrupt=("none",)))
    rng = np.random.default_rng(1)
    made.losses[k] *= np.exp(rng.normal(0, 0.5, 20))[made.episode]
    ratios = advice.log_ratios(made, made.candidates[k])
    assert ratios.shape == (1001, len(LEVELS))
    expected = np.log(made.losses[k].sum((0, 2)) / made.losses[0].sum((0, 2)))
    np.testing.assert_allclose(ratios[0], expected)
    assert 0.05 < ratios[1:].std(0).mean() < 0.2  # near 0.5 / sqrt(20)


def test_advice_from_stored_measurements_can_be_reported(tmp_path):
    made = measured(relative)
    about = json.dumps({"candidates": made.candidates})
    arrays = {name: value for name, value in vars(made).items() if name != "candidates"}
    np.savez(tmp_path / "measured.npz", about=about, **arrays)
    stored = candidates._stored(tmp_path / "measured.npz", about)
    result = plain(report._result(advice._of_kind(stored, "late", RULE)))
    again = json.loads(json.dumps(result))
    assert (again["trains"], again["choice"]["natural"]) == ("above 0.2", 0.05)


def test_the_figure_has_a_panel_for_each_kind():
    given = [of_kind(kind) for kind in ("none", "late", "mirrored")]
    figure = figures.gains(given)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles[1] == "2. late actions\ntrains above 0.2"
    spans = [len(axes.patches) for axes in figure.axes[:3]]
    assert spans == [1, 1, 0]
