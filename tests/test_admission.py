"""Which levels a sample may train: the table of kinds, measures, draws."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from ambient_jax import admission, schedules

SCHEDULES = ("vp", "cosine", "rectified_flow", "edm")
KINDS = {
    "clean": (0.0, 1.0),
    "ambient": (0.3, 0.0),
    "omni": (0.7, 0.2),
    "unusable": (1.0, 0.0),
    "everything": (0.4, 0.6),
    "low_only": (1.0, 0.35),
    "high_end": (0.95, 0.0),
    "touching": (0.5, 0.5),
}


def brute(sigma, sigma_min, sigma_max):
    return (sigma > sigma_min) | (sigma < sigma_max)


@pytest.mark.parametrize("kind", KINDS)
def test_admissible_is_the_definition(kind):
    sigma_min, sigma_max = map(np.float32, KINDS[kind])
    sigma = np.linspace(0, 1, 4001, dtype=np.float32)
    want = brute(sigma, sigma_min, sigma_max)
    np.testing.assert_array_equal(admission.admissible(sigma, sigma_min, sigma_max), want)
    one = jax.jit(jax.vmap(lambda s: admission.admissible(s, sigma_min, sigma_max)))(sigma)
    np.testing.assert_array_equal(one, want)


def test_bounds_are_open_and_clean_has_no_gap():
    for edge, expected in ((0.3, False), (np.nextafter(np.float32(0.3), 1), True)):
        assert bool(admission.admissible(np.float32(edge), np.float32(0.3))) is expected
    assert not admission.admissible(0.2, 0.7, 0.2) and not admission.admissible(0.7, 0.7, 0.2)
    assert admission.admissible(jnp.array([0.0, 0.5, 1.0]), 0.0, 1.0).all()
    assert not admission.admissible(jnp.array([0.0, 0.5, 1.0]), 1.0, 0.0).any()


def test_sigma_max_left_out_means_clean_or_ambient():
    sigma = jnp.array([0.0, 0.2, 0.4, 1.0])
    np.testing.assert_array_equal(admission.admissible(sigma, 0.0), [True] * 4)
    np.testing.assert_array_equal(admission.admissible(sigma, 0.3), [False, False, True, True])
    np.testing.assert_array_equal(admission.admissible(sigma, 1.0), [False] * 4)
    np.testing.assert_array_equal(
        admission.default_sigma_max(jnp.array([0.0, 0.3, 1.0])), [1.0, 0.0, 0.0]
    )
    assert float(admission.default_sigma_max(0.0, 0.25)) == 0.25


def test_nan_admits_nothing():
    nan = jnp.nan
    assert not admission.admissible(nan, 0.0, 1.0)
    assert not admission.admissible(nan, 0.3)
    assert not admission.admissible(0.1, nan, 0.5) and not admission.admissible(0.1, nan)
    assert not admission.admissible(0.1, 0.3, nan)
    assert admission.admissible(0.4, 0.3, nan)  # the high band is not sigma_max's to give


def test_broadcasts():
    got = admission.admissible(jnp.linspace(0, 1, 5)[:, None], jnp.array([0.0, 0.3, 1.0]))
    assert got.shape == (5, 3)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", KINDS)
def test_measure_and_draws_follow_the_restricted_law(kind, schedule):
    """|A| by counting quantiles; draws by KS against the law's own draws kept where admissible."""
    sigma_min, sigma_max = KINDS[kind]
    law = schedules.get(schedule)
    n = 20_000
    everything = np.asarray(law.quantile((np.arange(n) + 0.5) / n))
    allowed = np.asarray(everything)[brute(everything, sigma_min, sigma_max)]
    measure = float(admission.measure(sigma_min, sigma_max, law))
    np.testing.assert_allclose(measure, allowed.size / n, atol=2 / n + 1e-6)
    assert 0 <= measure <= 1

    keys = jax.random.split(jax.random.key(7), n)
    draw = jax.jit(jax.vmap(lambda k: admission.sample_sigma(k, sigma_min, sigma_max, law)))
    sigma = np.asarray(draw(keys))
    assert ((sigma >= 0) & (sigma <= 1)).all()
    inside = np.asarray(admission.admissible(sigma, sigma_min, sigma_max))
    if kind == "unusable":
        assert (sigma == 1).all() and not inside.any()
        return
    assert inside.all()
    if allowed.size >= 200:
        # `allowed` is a deterministic grid of the law, so this is a one-sample test in effect
        assert scipy.stats.ks_2samp(sigma, allowed).pvalue > 1e-3
    if kind == "omni":  # and the share of each band, which KS sees only weakly
        low = np.mean(allowed < 0.5)
        assert abs(np.mean(sigma < 0.5) - low) < 5 * np.sqrt(low * (1 - low) / n) + 1e-4


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_draws_stay_inside_any_bounds(schedule):
    """Bounds at the edges of float32 and of the schedule, one draw each for many random bounds."""
    rng = np.random.default_rng(0)
    special = [0.0, 1e-30, 1e-7, 0.002, 0.5, 0.9999, 0.99993, 1 - 2.0**-24, 1.0]
    pairs = np.array(
        [*itertools.product(special, special), *rng.random((20_000, 2))], dtype=np.float32
    )
    keys = jax.random.split(jax.random.key(0), len(pairs))
    law = schedules.get(schedule)
    draw = jax.jit(jax.vmap(lambda k, a, b: admission.sample_sigma(k, a, b, law)))
    sigma = draw(keys, *pairs.T)
    measure = np.asarray(admission.measure(*pairs.T, law))
    assert np.isfinite(sigma).all() and (sigma >= 0).all() and (sigma <= 1).all()
    inside = np.asarray(admission.admissible(sigma, *pairs.T))
    assert inside[measure > 0].all()


def test_default_law_is_uniform_and_default_sigma_max_applies():
    keys = jax.random.split(jax.random.key(2), 20_000)
    sigma = jax.jit(jax.vmap(lambda k: admission.sample_sigma(k, 0.4)))(keys)
    assert scipy.stats.kstest(np.asarray(sigma), scipy.stats.uniform(0.4, 0.6).cdf).pvalue > 1e-3
    np.testing.assert_allclose(admission.measure(0.4), 0.6, atol=1e-6)
    np.testing.assert_allclose(admission.measure(0.7, 0.2), 0.5, atol=1e-6)
    assert float(admission.measure(0.0)) == 1 and float(admission.measure(1.0)) == 0


def test_check_bounds_names_the_sample():
    admission.check_bounds([0.0, 0.5, 1.0], 0.0)
    admission.check_bounds(0.3)
    with pytest.raises(ValueError, match=r"sigma_min at index 1 is 1.5, expected .* \[0, 1\]"):
        admission.check_bounds([0.1, 1.5])
    with pytest.raises(ValueError, match="sigma_max of 'episode 7' is nan"):
        admission.check_bounds([0.1, 0.2], [0.0, np.nan], ids=["episode 3", "episode 7"])
    with pytest.raises(ValueError, match="sigma_min at index 0 is -0.1"):
        admission.check_bounds(-0.1)
