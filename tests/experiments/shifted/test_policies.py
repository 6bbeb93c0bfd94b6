"""The policies of the table, and the levels that they are given."""

import numpy as np
import pytest

from ambient_jax import observations
from experiments.shifted import config as shifted_config
from experiments.shifted import excess, judge, policies, task
from experiments.table.policies import config_of

BORDER = np.linspace(0.8, 0.0, len(judge.SIGMAS))
FIRST = {"clean", "clean_noised", "oracle", *(f"bumped_{m}" for m in policies.METHODS)}


def found(sigma_min=0.9):
    kinds = "bumped", "bumped_aligned", "moved", "jitter"
    names = [*kinds, *map(excess.name, kinds)]
    return {name: judge.Judged(np.zeros((13, 13)), sigma_min, BORDER) for name in names}


@pytest.fixture(scope="module")
def base():
    config = shifted_config.get_config("table")
    kinds = "bumped", "bumped_aligned", "moved", "jitter"
    config.task.update(dict(kinds=kinds, groups=policies.GROUPS, one_seed=()))
    return config


@pytest.mark.parametrize("variant", sorted(shifted_config.VARIANTS))
def test_variants_name_policies_that_there_are(variant):
    config = shifted_config.get_config(variant)
    task.check(config)
    rows = policies.rows(config.task, found())
    assert {"clean", "oracle", "bumped_as_is", "bumped_aligned_as_is"} <= set(rows)


def test_every_policy_has_a_valid_config(base):
    rows = policies.rows(base.task, found())
    more = {f"{k}_{m}" for k in ("bumped_aligned", "moved", "jitter") for m in policies.MORE}
    assert set(rows) == FIRST | more
    for name, row in rows.items():
        config = config_of(base, name, row, 0)  # raises for a field that training refuses
        kind = {"clean": "bumped", "clean_noised": "bumped", "oracle": "clean"}.get(name) or max(
            (k for k in base.task.kinds if name.startswith(k)), key=len
        )
        assert config.data.sources.source.path == f"shifted_{kind}"


def test_levels_without_a_classifier_wait_for_it(base):
    waiting = {f"bumped_{m}" for m in ("noised", "dropped", "ambient")}
    one_kind = base.copy_and_resolve_references().task
    one_kind.kinds = ("bumped",)
    assert set(policies.rows(one_kind, {})) == FIRST - waiting


def test_bounds_are_those_that_were_found(base):
    rows, minimum = policies.rows(base.task, found()), "data.sources.source.observation_min"
    at = lambda name, sigma: observations.minimum_at(  # noqa: E731
        sigma, observations.curve(rows[name].changes[minimum])
    )
    levels = [at("bumped_dropped", sigma) for sigma in (0.09, 0.11, 0.89, 0.91)]
    assert levels == [0, 1, 1, 0]
    for sigma, level in zip(judge.SIGMAS, BORDER, strict=True):
        assert at("bumped_noised", round(float(sigma), 6)) == pytest.approx(level, abs=1e-3)
    assert rows["bumped_ambient"].changes["data.sources.source.sigma_min"] == 0.9
    low = config_of(base, "bumped_low", rows["bumped_low"], 0).data.sources.source
    assert (low.sigma_min, low.sigma_max) == (1, 0.1)


def test_levels_by_loss_are_those_of_little_excess():
    """The excess falls with rho from 0.5 to 0, and at sigma above 0.5 there is none."""
    excesses = np.where(judge.SIGMAS < 0.5, 0.5 * (1 - excess.RHOS[:, None]), 0)
    chosen = excess.choose(excesses, 0.05)
    assert 0.45 < chosen.sigma_min < 0.71  # between two levels of the grid
    np.testing.assert_allclose(chosen.border[:7], 0.9, atol=1e-6)
    np.testing.assert_allclose(chosen.border[9:], 0, atol=1e-6)


def test_clean_rows_keep_their_observation(base):
    rows = policies.rows(base.task, found())
    for method, dropped in (("noised", 0), ("dropped", 0.1)):
        name = f"bumped_{method}"
        noise = config_of(base, name, rows[name], 0).observation_noise
        assert (noise.clean, noise.dropped) == (0.9, dropped)


def test_choice_of_levels_follows_the_plane():
    rho = judge.RHOS[:, None]
    probability = np.broadcast_to(0.5 - 0.2 * (1 - rho), (13, 13))
    chosen = judge.choose(probability, 0.05)
    assert chosen.sigma_min == 1  # the pair as it is looks shifted at every sigma
    np.testing.assert_allclose(chosen.border, 0.75, atol=1e-6)
    assert observations.curve(chosen.dropped(0.1))[0] == (0.1, 0.1, 1, 1)


@pytest.mark.parametrize(
    ("field", "value"), [("kinds", ("move",)), ("tau", 0.7), ("clean", 7), ("undisturbed", 1.5)]
)
def test_wrong_values_are_named(field, value):
    config = shifted_config.get_config("table")
    config.task[field] = value
    with pytest.raises(ValueError, match=f"config.*{field}"):
        task.check(config)
