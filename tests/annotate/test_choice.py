"""The choice finds the share, sigma_min and sigma_max that held-out losses were made with."""

import ml_collections
import numpy as np
import pytest

from ambient_jax import mixing
from ambient_jax.annotate import choice, evidence
from ambient_jax.annotate.candidates import Candidate, Measured
from tests.annotate.made import admits

LEVELS = evidence.grid(19)
CLEAN, HALF, NATURAL = Candidate(1.0), Candidate(0.5), Candidate(None)
ABOVE = tuple(Candidate(0.5, level) for level in (0.05, 0.2, 0.4))
EPISODES, CHUNKS = 40, 30  # chunks of each episode
DECISIONS = 20.0


def measured(relative, *, noise=0.1, wrong=None, candidates=(CLEAN, NATURAL, HALF, *ABOVE)):
    """Losses ``relative(candidate)`` [L] times a level's loss, with log-normal noise a chunk.

    ``wrong`` maps a share without bounds to [L], the share of chunks that are wrong by the whole
    variance of the actions, 1.
    """
    rng, count = np.random.default_rng(0), EPISODES * CHUNKS
    level = 0.1 * LEVELS**2
    spread = np.exp(noise * rng.normal(size=(2, 1, count)))
    losses = np.stack([(level * relative(c))[None, :, None] * spread for c in candidates])
    for share, rates in (wrong or {}).items():
        chosen = np.arange(count) < rates[:, None] * count
        losses[candidates.index(share)] += chosen
    episode = np.repeat(np.arange(EPISODES), CHUNKS)
    rng.shuffle(episode)
    parts = dict(episode=episode, fold=episode % 2)
    return Measured(
        candidates, LEVELS, losses, **parts, variance=1.0, decisions=DECISIONS, natural=0.1
    )


def harm_below(level, harm=1.5):
    """Corrupt data halve the loss where they train, but for levels below, where they raise it."""

    def relative(candidate):
        if candidate.alpha == 1:
            return np.full(len(LEVELS), 2.0)
        used = admits(candidate, LEVELS)
        return np.where(used & (LEVELS < level), harm, np.where(used | (LEVELS < level), 1.0, 2.0))

    return relative


@pytest.mark.parametrize("level", [0.05, 0.2, 0.4])
def test_sigma_min_is_where_corrupt_data_begin_to_help(level):
    chosen = choice.choose(measured(harm_below(level)))
    assert chosen.candidate == Candidate(0.5, level)
    assert chosen.sigma_max == 1
    assert chosen.bounds == (level, 0.0)


def test_a_flat_loss_takes_the_largest_sigma_min_then_clean_data_only():
    flat = lambda c: np.where(admits(c, LEVELS) | (LEVELS < 0.4), 1.0, 2.0)  # noqa: E731
    assert choice.choose(measured(flat)).candidate == Candidate(0.5, 0.4)
    same = choice.choose(measured(lambda c: np.ones(len(LEVELS))))
    assert same.clean_only and same.bounds == (1.0, 0.0)
    assert same.changes(["a"]) == {"law.name": "filtering"}


@pytest.mark.parametrize(("gain", "clean_only"), [(0.03, True), (0.08, False)])
def test_a_small_gain_is_not_worth_corrupt_data(gain, clean_only):
    relative = lambda c: np.full(len(LEVELS), 1.0 if c.alpha == 1 else np.exp(-gain))  # noqa: E731
    assert choice.choose(measured(relative)).clean_only == clean_only


def test_the_share_with_the_least_loss_is_taken():
    def better(c):
        return np.full(len(LEVELS), 2.0 if c.alpha == 1 else 1 + 0.2 * (c.alpha is not None))  # noqa: E731

    chosen = choice.choose(measured(better))
    assert chosen.candidate == NATURAL
    assert chosen.changes(["a"])["law.name"] == "ambient"
    assert "law.alpha" not in chosen.changes(["a"])
    np.testing.assert_allclose(chosen.ratio, np.log(0.5), atol=1e-6)
    assert np.all((chosen.low <= chosen.ratio + 1e-9) & (chosen.ratio <= chosen.high + 1e-9))


def test_rare_large_mistakes_bound_the_levels_from_above():
    # The mixture halves the mean loss at low noise; at high noise one chunk in twenty, a decision
    # of every episode, is wrong by the whole variance.
    rates = np.where(LEVELS > 0.8, 0.05, 0.0)
    relative = lambda c: np.full(len(LEVELS), 2.0 if c.alpha == 1 else 1.0)  # noqa: E731
    candidates = (CLEAN, HALF)
    chosen = choice.choose(measured(relative, wrong={HALF: rates}, candidates=candidates))
    before, after = LEVELS[LEVELS < 0.8].max(), LEVELS[LEVELS > 0.8].min()
    # Linear between the two levels: 0.3 of 0.05 * 20 decisions.
    assert chosen.sigma_max == pytest.approx(before + 0.3 * (after - before), abs=1e-3)
    assert chosen.candidate == HALF and chosen.bounds == (1.0, chosen.sigma_max)
    law = chosen.changes(["a", "b"])
    assert law["data.sources.b.sigma_min"] == 1 and law["law.alpha"] == 0.5
    harmless = choice.choose(measured(relative, wrong={HALF: rates / 5}, candidates=candidates))
    assert harmless.sigma_max == 1


def test_a_band_of_levels_is_a_soft_law():
    rates = np.where(LEVELS > 0.8, 0.05, 0.0)
    chosen = choice.choose(measured(harm_below(0.2), wrong={NATURAL: rates, HALF: rates}))
    assert chosen.bounds is None
    section = {n.removeprefix("law."): v for n, v in chosen.changes(["a"]).items()}
    law = mixing.get(section.pop("name"), **section)
    shares = [float(law.alpha(level)) for level in (0.1, 0.19, 0.3, 0.7, 0.9)]
    np.testing.assert_allclose(shares, [1, 1, 0.5, 0.5, 1], atol=1e-6)


def test_every_level_broken_leaves_clean_data_only():
    relative = lambda c: np.full(len(LEVELS), 2.0 if c.alpha == 1 else 1.0)  # noqa: E731
    everywhere = {HALF: np.full(len(LEVELS), 0.5)}
    assert choice.choose(measured(relative, wrong=everywhere, candidates=(CLEAN, HALF))).clean_only


def test_each_source_has_its_own_choice():
    ours = {"good": Candidate(0.5, corrupt=("good",)), "bad": Candidate(0.5, corrupt=("bad",))}
    relative = {CLEAN: 2.0, ours["good"]: 1.0, ours["bad"]: 3.0, HALF: 1.0}
    candidates = tuple(relative)
    taken = measured(lambda c: np.full(len(LEVELS), relative[c]), candidates=candidates)
    assert choice.choose(taken, corrupt=("good",)).candidate == ours["good"]
    assert choice.choose(taken, corrupt=("bad",)).clean_only


def test_missing_candidates_are_named():
    with pytest.raises(ValueError, match="expected clean data only"):
        choice.choose(measured(harm_below(0.2), candidates=(HALF, *ABOVE)))
    with pytest.raises(ValueError, match="alpha_0.5_above_0.05 has no counterpart"):
        choice.choose(measured(harm_below(0.2), candidates=(CLEAN, NATURAL, *ABOVE)))
    with pytest.raises(ValueError, match="a share without bounds"):
        choice.choose(measured(harm_below(0.2), candidates=(CLEAN, *ABOVE)))


def test_changes_make_a_config():
    config = ml_collections.ConfigDict({"law": {}, "data": {"sources": {"a": {}}}})
    for field, value in choice.choose(measured(harm_below(0.2))).changes(["a"]).items():
        *parents, last = field.split(".")
        section = config
        for parent in parents:
            section = section[parent]
        section[last] = value
    assert config.law.to_dict() == {"name": "ambient", "alpha": 0.5}
    assert config.data.sources.a.to_dict() == {"sigma_min": 0.2, "sigma_max": 0.0}
