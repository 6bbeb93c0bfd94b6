"""Noise on observations: its law against closed forms, its levels' ends, a Gaussian optimum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax import observations
from ambient_jax.observations import LEVEL, Levels, ObservationNoise

N = 40_000
KEYS = jax.random.split(jax.random.key(0), N)


def draw(levels, minimum):
    return np.asarray(jax.vmap(lambda k: levels.sample(k, minimum))(KEYS))


@pytest.mark.parametrize("minimum", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("levels", [Levels(), Levels(0.6, 0.3), Levels(0.0, 0.0)])
def test_levels_drawn_are_admissible_with_the_laws_probabilities(levels, minimum):
    rho = draw(levels, minimum)
    assert (rho >= minimum).all()
    # By hand: an atom at 0 if it is admitted, an atom at 1, and a uniform part of [minimum, 1).
    atom = levels.clean if minimum == 0 else 0.0
    between = (1 - levels.clean - levels.dropped) * (1 - minimum)
    total = atom + between + levels.dropped
    error = 4 * np.sqrt(0.25 / N)
    assert np.mean(rho == 0) == pytest.approx(atom / total, abs=error)
    assert np.mean(rho == 1) == pytest.approx(levels.dropped / total, abs=error)
    inside = rho[(rho > 0) & (rho < 1)]
    if len(inside):
        assert inside.mean() == pytest.approx((1 + minimum) / 2, abs=0.01)


def test_a_row_admitted_only_when_dropped_is_dropped_whatever_the_law():
    for levels in (Levels(1.0, 0.0), Levels(0.5, 0.5), Levels()):
        assert (draw(levels, 1.0) == 1).all()
    assert (draw(Levels(1.0, 0.0), 0.0) == 0).all()  # a clean row of a law without noise


def test_level_one_drops_the_observation_and_level_zero_shows_it():
    o, eps = jnp.array([1.0, -2.0]), jnp.array([0.3, 5.0])
    np.testing.assert_array_equal(observations.show(o, eps, 0.0), o)
    np.testing.assert_array_equal(observations.show(o, eps, 1.0), 0 * o)
    np.testing.assert_array_equal(observations.show(jnp.array([jnp.inf]), eps[:1], 1.0), [0.0])


def test_shown_is_the_posterior_mean_of_a_unit_gaussian():
    """E[O | y], y = sqrt(1 - r^2) O + r eps, is sqrt(1 - r^2) y; its error is r^2, orthogonal."""
    with jax.enable_x64(True):
        o, eps = np.random.default_rng(0).standard_normal((2, 200_000))
        for rho in (0.3, 0.8):
            seen = np.asarray(observations.show(jnp.asarray(o), jnp.asarray(eps), rho))
            assert np.mean((seen - o) ** 2) == pytest.approx(rho**2, rel=0.02)
            assert np.mean((seen - o) * seen) == pytest.approx(0, abs=0.01)


def test_curves_interpolate_and_step():
    at = lambda minimum, sigma: np.asarray(  # noqa: E731
        observations.minimum_at(jnp.asarray(sigma), observations.curve(minimum))
    )
    np.testing.assert_allclose(at(0.4, [0.0, 0.7, 1.0]), 0.4)
    np.testing.assert_allclose(
        at(((0.2, 1.0), (0.6, 0.0)), [0, 0.2, 0.3, 0.6, 1]), [1, 1, 0.75, 0, 0]
    )
    step = ((0.5, 1.0), (0.5, 0.0))
    np.testing.assert_allclose(at(step, [0.0, 0.5, 0.501, 1.0]), [1, 1, 0, 0])
    band = ((0.2, 0.0), (0.2, 1.0), (0.5, 1.0), (0.5, 0.0))
    np.testing.assert_allclose(at(band, [0.1, 0.3, 0.5, 0.6]), [0, 1, 1, 0])


@pytest.mark.parametrize(
    ("minimum", "said"),
    [(1.5, "level of observation_min"), ((), "expected a level"), (((0.3, 1), (0.2, 0)), "fall")],
)
def test_a_wrong_minimum_is_named(minimum, said):
    with pytest.raises(ValueError, match=said):
        observations.curve(minimum)


def test_laws_that_are_no_probabilities_are_refused():
    with pytest.raises(ValueError, match="at most 1"):
        Levels(0.8, 0.3)
    with pytest.raises(ValueError, match="dropped"):
        Levels(0.5, -0.1)


def noise_of(**options):
    minimum = tuple(map(observations.curve, (0.0, ((0.5, 0.6), (0.5, 0.0)))))
    return ObservationNoise(("state",), Levels(**options), minimum)


def test_clean_rows_see_all_levels_and_source_rows_those_of_their_bound():
    rows = 20_000
    source = jnp.arange(rows) % 2
    sigma = jnp.where(jnp.arange(rows) % 4 < 2, 0.3, 0.8)
    observation = {"state": jnp.ones((rows, 2, 3)), "goal": jnp.ones((rows, 2, 1))}
    seen = jax.jit(noise_of().noised)(observation, sigma, source, KEYS[:rows])
    rho = np.asarray(seen[LEVEL])
    assert rho.shape == (rows, 1, 1)
    rho, clean, low = rho[:, 0, 0], np.asarray(source) == 0, np.asarray(sigma) < 0.5
    for rows_of in (clean & low, clean & ~low, ~clean & ~low):
        assert (rho[rows_of] == 0).mean() == pytest.approx(0.5, abs=0.03)
        assert np.histogram(rho[rows_of], 5, (0.001, 1))[0].min() > 100
    assert rho[~clean & low].min() >= 0.6
    np.testing.assert_array_equal(seen["goal"], observation["goal"])
    np.testing.assert_array_equal(np.asarray(seen["state"])[rho == 0], 1.0)
    assert np.unique(np.asarray(seen["state"])[rho > 0].round(6)).size > 10_000  # each its own


def test_noise_depends_on_the_rows_key_alone():
    observation, zeros = {"state": jnp.ones((8, 2, 3))}, jnp.zeros(8, jnp.int32)
    noised = lambda rows: noise_of(clean=0.0).noised(  # noqa: E731
        {"state": observation["state"][rows]}, jnp.full(len(rows), 0.3), zeros[rows], KEYS[rows]
    )
    whole, part = noised(jnp.arange(8)), noised(jnp.arange(3, 6))
    np.testing.assert_array_equal(whole["state"][3:6], part["state"])


@pytest.mark.parametrize(
    ("observation", "said"),
    [({"goal": jnp.ones((1, 1, 1))}, "'state'"), ({"state": jnp.ones((1, 1, 1), int)}, "floats")],
)
def test_an_observation_that_cannot_be_noised_is_named(observation, said):
    with pytest.raises(ValueError, match=said):
        noise_of().noised(observation, jnp.zeros(1), jnp.zeros(1, int), KEYS[:1])


def test_a_gaussian_optimum_is_learned_from_rows_that_are_admissible_and_biased_by_others():
    """A = O exactly; the source reports O + shift. At rho the best predictor of A is linear in the
    shown observation with slope 1 and intercept 0 for clean rows. Of source rows the shown
    observation has mean (1 - rho^2) shift more, so the intercept of a fit to them is minus that:
    it falls to 0 at rho = 1, where the fit is E[A], the same for both."""
    rng = np.random.default_rng(1)
    a, eps, shift = *rng.standard_normal((2, 400_000)), 0.5
    for rho in (0.0, 0.6, 0.9, 1.0):
        shown = np.asarray(observations.show(jnp.asarray(a + shift), jnp.asarray(eps), rho))
        inputs = np.stack([shown, np.ones_like(shown)], -1)
        (slope, intercept), *_ = np.linalg.lstsq(inputs, a, rcond=None)
        assert intercept == pytest.approx(-(1 - rho**2) * shift if rho < 1 else 0, abs=0.02)
        assert slope == pytest.approx(1 if rho < 1 else 0, abs=0.02)


def test_the_level_is_0_where_it_is_not_given():
    seen = {"state": jnp.ones((3, 2, 4))}
    made = observations.with_level(seen)
    np.testing.assert_array_equal(made[observations.LEVEL], np.zeros((3, 1, 1)))
    assert observations.with_level(made) is made and seen.keys() == {"state"}
