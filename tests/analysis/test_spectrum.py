"""Spectra against synthetic laws of known exponent; corruptions against exact TV of Gaussians."""

import numpy as np
import pytest

from ambient_jax.analysis import divergence, spectrum


def synthesise(rng, n, horizon, dims, exponent, constant=1.0, periods=1):
    """Gaussian chunks [n, H, D] of mean 0 whose psd is ``constant * f ** -exponent``.

    With one period a chunk is periodic and its psd is the law exactly. With more, it is cut out of
    a stretch so many times as long, as real chunks are: it drifts and its ends differ.
    """
    psd = spectrum.power_law(spectrum.frequencies(horizon * periods), exponent, constant)
    return spectrum._coloured(rng, (n, horizon * periods, dims), psd)[:, :horizon]


@pytest.mark.parametrize("horizon", [16, 17])
@pytest.mark.parametrize("exponent", [0.0, 1.5, 3.0])
def test_periodic_chunks_have_the_law_exactly(horizon, exponent):
    rng = np.random.default_rng(0)
    n, dims, constant = 4000, 2, 0.3
    chunks = synthesise(rng, n, horizon, dims, exponent, constant)
    frequency, psd = spectrum.power_spectrum(chunks, "none")
    law = spectrum.power_law(frequency, exponent, constant)
    count = spectrum.multiplicity(horizon)
    assert count.sum() == horizon and count.shape == frequency.shape
    # psd / law is chi^2 over its n dims count degrees of freedom
    error = np.sqrt(2 / (n * dims * count[1:]))
    assert np.all(np.abs(psd[1:] / law[1:] - 1) < 4 * error)
    assert psd[0] < 1e-25
    fit = spectrum.fit_power_law(frequency, psd)
    assert fit.exponent == pytest.approx(exponent, abs=4 * fit.standard_error + 1e-3)
    assert fit.exponent == pytest.approx(exponent, abs=0.04)
    assert fit.constant == pytest.approx(constant, rel=0.08)


@pytest.mark.parametrize("horizon", [15, 16])
def test_parseval(horizon):
    chunks = np.random.default_rng(1).normal(size=(5, horizon, 3)).cumsum(1)
    count = spectrum.multiplicity(horizon)
    _, psd = spectrum.power_spectrum(chunks, "none")
    assert count @ psd == pytest.approx(np.mean(np.sum(chunks**2, 1)), rel=1e-12)
    line = np.linspace(chunks[:, 0], chunks[:, -1], horizon, axis=1)
    _, psd = spectrum.power_spectrum(chunks, "line")
    assert count @ psd == pytest.approx(np.mean(np.sum((chunks - line) ** 2, 1)), rel=1e-12)


@pytest.mark.parametrize("horizon", [16, 64])
def test_cut_out_chunks_keep_their_exponent(horizon):
    """The errors that power_spectrum's docstring states, on chunks cut out of longer motions."""
    rng = np.random.default_rng(2)
    for exponent in (1.0, 2.0, 3.0, 4.0):
        chunks = synthesise(rng, 3000, horizon, 1, exponent, periods=16)
        fitted = {
            taper: spectrum.fit_power_law(
                *spectrum.power_spectrum(chunks, taper), low=3 / horizon if taper == "hann" else 0
            ).exponent
            for taper in spectrum.TAPERS
        }
        assert fitted["line"] == pytest.approx(exponent, abs=0.2)
        assert fitted["hann"] == pytest.approx(exponent, abs=0.18 if exponent < 4 else 0.4)
        if exponent >= 3:
            assert fitted["none"] < 2  # the jump between the ends hides the law
    white = synthesise(rng, 3000, horizon, 1, 0.0, periods=4)
    frequency, psd = spectrum.power_spectrum(white, "hann")
    assert spectrum.fit_power_law(frequency, psd, low=3 / horizon).exponent == pytest.approx(
        0, abs=0.06
    )
    assert psd[3:] == pytest.approx(np.ones_like(psd[3:]), abs=0.1)


def test_lines_leave_no_spectrum():
    line = np.linspace([0.0, 5.0], [3.0, -1.0], 16)[None]
    for taper in ("line", "hann"):
        assert spectrum.power_spectrum(line, taper)[1].max() < 1e-25
    assert spectrum.power_spectrum(line, "none")[1].max() > 1


def test_fit_of_an_exact_law_and_of_a_bent_one():
    f = spectrum.frequencies(64)
    fit = spectrum.fit_power_law(f, spectrum.power_law(f, 2.5, 0.7))
    np.testing.assert_allclose(fit, (2.5, 0.7, 0.0), atol=1e-9)
    # with scatter: numpy's least squares and its covariance
    psd = spectrum.power_law(f, 2.0) * np.exp(np.random.default_rng(3).normal(size=f.size))
    fit = spectrum.fit_power_law(f, psd)
    slope, covariance = np.polyfit(np.log(f[1:]), np.log(psd[1:]), 1, cov=True)
    assert fit.exponent == pytest.approx(-slope[0], rel=1e-9)
    assert fit.standard_error == pytest.approx(np.sqrt(covariance[0, 0]), rel=1e-9)
    floor = spectrum.power_law(f, 3.0, 1e-3) + 1.0  # a noise floor above, the law below
    assert spectrum.fit_power_law(f, floor, high=0.05).exponent > 1.5
    assert abs(spectrum.fit_power_law(f, floor, low=0.25).exponent) < 0.15


@pytest.mark.parametrize("exponent", [-1.0, 0.0, 2.0])
def test_coloured_noise(exponent):
    noise = spectrum.coloured_noise(np.random.default_rng(4), (3000, 16, 2), exponent)
    # the 16 steps and 2 dims share their expected square; correlation leaves fewer free numbers
    assert np.mean(noise**2) == pytest.approx(1, abs=0.05)
    assert np.mean(noise**2, (0, 2)) == pytest.approx(np.ones(16), abs=0.12)
    frequency, psd = spectrum.power_spectrum(noise, "none")
    assert spectrum.fit_power_law(frequency, psd).exponent == pytest.approx(exponent, abs=0.05)
    assert psd[0] == pytest.approx(psd[1], rel=0.1)


def test_notch_removes_its_band_and_nothing_else():
    x = np.random.default_rng(5).normal(size=(4, 16, 2))
    y = spectrum.notch(x, 0.2, 0.3)
    before, after = (np.fft.rfft(v, axis=1) for v in (x, y))
    f = spectrum.frequencies(16)
    inside = (f >= 0.2) & (f <= 0.3)
    assert inside.sum() == 1
    np.testing.assert_allclose(after[:, inside], 0, atol=1e-12)
    np.testing.assert_allclose(after[:, ~inside], before[:, ~inside], atol=1e-12)
    np.testing.assert_allclose(spectrum.notch(y, 0.2, 0.3), y, atol=1e-12)


CORRUPTIONS = {
    "white": spectrum.white(),
    "red": spectrum.coloured(2.0),
    "blue": spectrum.coloured(-1.0),
    "notch": spectrum.widening_notch(),
    "notch and noise": spectrum.compose(spectrum.widening_notch(0.2, 0.5), spectrum.white()),
}
HORIZON = 8


def gaussian_after(corruption, level, mean, root):
    """Mean difference and covariance of two Gaussians (covariance root root') after a corruption.

    Linear part by differences under one seed, noise covariance from draws on nothing.
    """

    def run(x):
        return corruption(x[..., None], level, np.random.default_rng(6))[..., 0]

    zero = np.zeros(HORIZON)
    linear = np.stack([run(e) - run(zero) for e in np.eye(HORIZON)], 1)
    draws = run(np.zeros((40_000, HORIZON)))
    return linear @ mean, linear @ root @ root.T @ linear.T + draws.T @ draws / len(draws)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_corruption_contracts_a_gaussian_pair(name):
    rng = np.random.default_rng(7)
    mean, root = 0.5 * rng.normal(size=HORIZON), 0.4 * rng.normal(size=(HORIZON, HORIZON))
    corruption = CORRUPTIONS[name]
    levels = np.linspace(0, 1, 11)
    tv = np.array(
        [
            divergence.gaussian_tv(*gaussian_after(corruption, level, mean, root), 0.0)
            for level in levels
        ]
    )
    assert tv[0] == pytest.approx(float(divergence.gaussian_tv(mean, root @ root.T, 0.0)), abs=1e-9)
    assert np.all(np.diff(tv) <= 5e-3)  # the noise covariance is estimated
    assert tv[-1] < 1e-6 and tv[0] > 0.5
    if name == "white":
        np.testing.assert_allclose(
            tv, divergence.gaussian_tv(mean, root @ root.T, levels), atol=5e-3
        )


def test_a_notch_alone_keeps_what_differs_outside_its_band():
    slow = np.cos(2 * np.pi * np.arange(HORIZON) / HORIZON)[:, None]
    fast = np.cos(np.pi * np.arange(HORIZON))[:, None]
    corruption, rng = spectrum.widening_notch(0.3, 0.5), np.random.default_rng(0)
    np.testing.assert_allclose(corruption(slow, 1.0, rng), slow, atol=1e-12)
    np.testing.assert_allclose(corruption(fast, 1.0, rng), 0, atol=1e-12)


def test_colour_matters_where_the_difference_is():
    """A fast difference dies sooner in blue noise, a slow one in red."""
    step = np.arange(HORIZON)
    fast, slow = np.cos(np.pi * step) / 2, np.cos(2 * np.pi * step / HORIZON) / 2
    root = 0.2 * np.eye(HORIZON)

    def tv(name, mean):
        return divergence.gaussian_tv(*gaussian_after(CORRUPTIONS[name], 0.5, mean, root), 0.0)

    assert tv("blue", fast) < tv("white", fast) < tv("red", fast)
    assert tv("red", slow) < tv("white", slow) < tv("blue", slow)


F16 = spectrum.frequencies(16)


@pytest.mark.parametrize(
    "call,match",
    [
        (lambda: spectrum.power_spectrum(np.zeros((3, 16))), r"\(3, 16\), expected \[N, H, D\]"),
        (lambda: spectrum.power_spectrum(np.zeros((1, 8, 1)), "han"), "did you mean 'hann'"),
        (lambda: spectrum.power_spectrum(np.full((2, 8, 1), np.nan)), "chunk 0 is not finite"),
        (lambda: spectrum.fit_power_law(F16, np.zeros(9)), "psd at frequency 0.0625 is 0.0"),
        (lambda: spectrum.fit_power_law(F16, np.ones(9), low=0.45), "1 frequencies in"),
        (lambda: spectrum.widening_notch(0.3, 0.2), r"stop band \[0.3, 0.2\]"),
        (lambda: spectrum.white()(np.zeros((8, 1)), 1.2, None), "level is 1.2"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(ValueError, match=match):
        call()
