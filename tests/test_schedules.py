"""Schedules against closed forms written here in NumPy float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from ambient_jax import schedules

NAMES = ("vp", "cosine", "rectified_flow", "edm")


def reference(name, t):
    """(alpha, noise) at time t from each schedule's own publication, float64."""
    t = np.asarray(t, np.float64)
    if name == "vp":
        return np.sqrt(1 - t**2), t
    if name == "cosine":  # Nichol and Dhariwal 2021, eq. 17: alpha_bar = f(t) / f(0)
        f = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
        alpha_bar = f / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
        return np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)
    if name == "rectified_flow":
        return 1 - t, t
    s = (0.002 ** (1 / 7) + t * (80 ** (1 / 7) - 0.002 ** (1 / 7))) ** 7  # Karras 2022, eq. 5
    return np.ones_like(t), s


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def test_registry_is_what_the_tests_cover():
    assert set(schedules.SCHEDULES) == set(NAMES)
    for name in NAMES:
        assert schedules.get(name).name == name


@pytest.mark.parametrize("name", NAMES)
def test_coefficients_are_the_published_ones(name, x64):
    schedule = schedules.get(name)
    t = np.linspace(0.001, 0.999, 400)
    alpha, noise = schedule.coefficients(schedule.sigma(t))
    want_alpha, want_noise = reference(name, t)
    np.testing.assert_allclose(alpha, want_alpha, rtol=1e-9)
    np.testing.assert_allclose(noise, want_noise, rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_sigma_is_the_ratio_every_schedule_shares(name, x64):
    t = np.linspace(0.001, 0.999, 400)
    alpha, noise = reference(name, t)
    schedule = schedules.get(name)
    sigma = schedule.sigma(t)
    np.testing.assert_allclose(sigma, noise / np.hypot(alpha, noise), rtol=1e-10)
    np.testing.assert_allclose(schedule.scale(sigma), np.hypot(alpha, noise), rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_round_trips_in_float64(name, x64):
    schedule = schedules.get(name)
    grid = np.linspace(0, 1, 1001)
    np.testing.assert_allclose(schedule.time(schedule.sigma(grid)), grid, atol=1e-10)
    np.testing.assert_allclose(schedule.cdf(schedule.quantile(grid)), grid, atol=1e-10)
    low, high = float(schedule.sigma(0.0)), float(schedule.sigma(1.0))
    levels = np.linspace(low, high, 1001)
    np.testing.assert_allclose(schedule.sigma(schedule.time(levels)), levels, atol=1e-10)
    np.testing.assert_allclose(schedule.quantile(schedule.cdf(levels)), levels, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_round_trips_in_float32(name):
    # Near pure noise a float32 sigma has few digits of 1 - sigma: 4e-4 in t is what is left.
    schedule = schedules.get(name)
    grid = jnp.linspace(0, 1, 100_001)
    np.testing.assert_allclose(schedule.time(schedule.sigma(grid)), grid, atol=5e-4)
    np.testing.assert_allclose(schedule.cdf(schedule.quantile(grid)), grid, atol=5e-4)
    levels = jnp.linspace(schedule.sigma(0.0), schedule.sigma(1.0), 100_001)
    np.testing.assert_allclose(schedule.sigma(schedule.time(levels)), levels, atol=2e-6)
    np.testing.assert_allclose(schedule.quantile(schedule.cdf(levels)), levels, atol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_every_level_is_in_the_unit_interval_and_finite(name):
    schedule = schedules.get(name)
    fine = [jnp.linspace(0, 1, 200_001), 1 - jnp.geomspace(1e-7, 1e-2, 5_000)]
    t = jnp.concatenate([*fine, jnp.geomspace(1e-30, 1e-2, 5_000)])
    for level in (jax.jit(schedule.sigma)(t), jax.jit(schedule.quantile)(t)):
        assert float(level.min()) >= 0 and float(level.max()) <= 1
        values = [schedules.signal(level), *schedule.coefficients(level), schedule.scale(level)]
        for value in values:
            assert np.isfinite(value).all()
    sigma = np.asarray(schedule.sigma(jnp.linspace(0, 1, 2001)))
    assert (np.diff(sigma) >= 0).all() and sigma[-1] > sigma[0]


@pytest.mark.parametrize("name", NAMES)
def test_both_ends_are_finite_in_every_method(name):
    schedule = schedules.get(name)
    for sigma in (0.0, 1.0, 0, 1):
        alpha, noise = schedule.coefficients(sigma)
        for value in (alpha, noise, schedule.scale(sigma), schedule.time(sigma)):
            assert np.isfinite(value)
        assert 0 <= float(schedule.cdf(sigma)) <= 1
    np.testing.assert_allclose(schedule.coefficients(0.0), (1.0, 0.0), atol=1e-7)
    assert float(schedule.cdf(0.0)) == 0
    np.testing.assert_allclose(schedule.cdf(1.0), 1, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_training_law(name):
    """p(sigma): the time is uniform, except for EDM, whose log s is a truncated normal."""
    schedule = schedules.get(name)
    sigma = np.asarray(schedule.sample(jax.random.key(3), (100_000,)), np.float64)
    assert sigma.shape == (100_000,)
    if name == "edm":
        ends = (math.log(0.002) + 1.2) / 1.2, (math.log(80) + 1.2) / 1.2
        law = scipy.stats.truncnorm(*ends, loc=-1.2, scale=1.2)
        pvalue = scipy.stats.kstest(np.log(sigma / np.sqrt(1 - sigma**2)), law.cdf).pvalue
    else:
        t = {
            "vp": lambda s: s,
            # alpha = cos(angle) / cos(start), solved for t
            "cosine": lambda s: (
                np.arccos(np.sqrt(1 - s**2) * np.cos(0.004 * np.pi / 1.008)) / (np.pi / 2) * 1.008
                - 0.008
            ),
            "rectified_flow": lambda s: s / (s + np.sqrt(1 - s**2)),
        }[name](sigma)
        pvalue = scipy.stats.kstest(t, "uniform").pvalue
    assert pvalue > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_frozen_hashable_and_static(name):
    schedule = schedules.get(name)
    assert schedule == schedules.get(name) and hash(schedule) == hash(schedules.get(name))
    others = [schedules.get(n) for n in NAMES if n != name]
    assert schedule not in others
    with pytest.raises(AttributeError):
        schedule.extra = 1
    traces = []

    def level(t, schedule):
        traces.append(1)
        return schedule.sigma(t)

    level = jax.jit(level, static_argnames="schedule")
    for _ in range(2):
        np.testing.assert_allclose(
            level(0.3, schedule=schedules.get(name)), schedule.sigma(0.3), rtol=1e-6
        )
    assert len(traces) == 1


@pytest.mark.parametrize("name", NAMES)
def test_scalars_arrays_tracers_agree(name):
    schedule = schedules.get(name)
    grid = np.linspace(0.05, 0.95, 7, dtype=np.float32)
    for method in ("sigma", "time", "scale", "clip", "quantile", "cdf"):
        f = getattr(schedule, method)
        whole = np.asarray(f(grid))
        assert whole.shape == grid.shape and whole.dtype == np.float32
        np.testing.assert_allclose(jax.jit(f)(grid), whole, rtol=1e-5)
        np.testing.assert_allclose(jax.vmap(f)(grid), whole, rtol=1e-5)
        np.testing.assert_allclose([f(float(g)) for g in grid], whole, rtol=1e-5)


def test_signal_does_not_cancel_near_one():
    """1 - sigma^2 computed from the rounded square would be off by 6% here."""
    sigma = np.float32(1 - 2.0**-20)
    exact = math.sqrt((1 - float(sigma)) * (1 + float(sigma)))
    np.testing.assert_allclose(schedules.signal(sigma), exact, rtol=1e-6)


def test_edm_with_a_very_large_end_stays_finite():
    """s_max = 1e5 has a level that float32 rounds to 1, where 1 / alpha would be infinite."""
    schedule = schedules.edm(s_max=1e5)
    for sigma in (0.0, 0.5, 1.0, float(schedule.sigma(1.0))):
        for value in (*schedule.coefficients(sigma), schedule.cdf(sigma), schedule.time(sigma)):
            assert np.isfinite(value)


def test_options_and_errors():
    assert schedules.get("edm", s_max=10.0).s_max == 10.0
    assert schedules.get("cosine", offset=0.02) == schedules.cosine(offset=0.02)
    with pytest.raises(ValueError, match=r"schedule is 'cosin'.*did you mean 'cosine'\?"):
        schedules.get("cosin")
    with pytest.raises(ValueError, match="option of schedule 'vp' is 's_max', expected one of"):
        schedules.get("vp", s_max=3.0)
    with pytest.raises(ValueError, match="s_min -1 .*expected 0 < s_min < s_max"):
        schedules.get("edm", s_min=-1)
    with pytest.raises(ValueError, match="rho 0.*expected both > 0"):
        schedules.edm(rho=0)
