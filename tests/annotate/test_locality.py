"""Receptive fields against the Wiener filter and a two-valued law; sigma_max on made-up curves."""

import numpy as np
import pytest

from ambient_jax.analysis import spectrum
from ambient_jax.annotate import locality

LEVELS = np.array([0.03, 0.1, 0.3, 0.6, 0.9, 0.97])
WIDTHS = (1, 3, 5, 7, 9, 11, 13, 15)


def power_law_covariance(exponent, horizon=15, period=256):
    """Of a chunk cut out of a periodic process with psd ~ f^-exponent and unit variance."""
    psd = spectrum.power_law(np.fft.fftfreq(period).__abs__(), exponent)
    correlation = np.fft.ifft(psd).real[:horizon]
    step = np.arange(horizon)
    return (correlation / correlation[0])[np.abs(step[:, None] - step)]


def wiener_losses(covariance, levels, widths, dims=1):
    """Losses of the best linear denoiser, which is the best of all for Gaussian processes.

    The covariance [H * D, H * D] is of x0, steps before dimensions (row ``h * D + d``).
    """
    loss = locality._wiener(covariance, levels, widths, dims)[2]
    own = locality._columns((len(covariance) // dims - 1) // 2, dims)
    prior = float(np.trace(covariance[np.ix_(own, own)])) / dims
    return locality.Losses(np.asarray(levels), np.asarray(widths), loss, prior)


def test_windows_lie_about_the_middle():
    shown, middle = locality.windows(6, [1, 2, 3, 6])
    assert middle == 2
    assert [np.flatnonzero(row).tolist() for row in shown] == [
        [2],
        [2, 3],
        [1, 2, 3],
        [0, 1, 2, 3, 4, 5],
    ]


def test_one_step_is_scalar_shrinkage_and_a_period_the_wiener_filter():
    horizon = 12
    psd = 1.0 / (0.05 + np.fft.fftfreq(horizon) ** 2)
    correlation = np.fft.ifft(psd).real
    step = np.arange(horizon)
    covariance = correlation[(step[:, None] - step) % horizon]
    found = wiener_losses(covariance, LEVELS, [1, horizon])
    a2, s2 = 1 - LEVELS**2, LEVELS**2
    variance = correlation[0]
    np.testing.assert_allclose(found.loss[:, 0], s2 * variance / (a2 * variance + s2))
    wiener = (s2[:, None] * psd / (a2[:, None] * psd + s2[:, None])).mean(1)
    np.testing.assert_allclose(found.loss[:, 1], wiener)
    assert found.prior == pytest.approx(variance)


def test_dimensions_share_a_window():
    """Two dimensions, the second a copy of the first: it helps as a second look would."""
    one = power_law_covariance(2.0, 3)
    both = np.kron(one, np.ones((2, 2)))
    found = wiener_losses(both, [0.5], [1, 3], dims=2)
    # The mean of two noisy looks: one look at half the noise variance.
    assert found.loss[0, 0] == pytest.approx(0.125 / (0.75 + 0.125))


@pytest.mark.parametrize("exponent", [1.5, 2.0, 3.0])
def test_the_field_of_a_power_law_grows_with_noise(exponent):
    covariance = power_law_covariance(exponent)
    field = locality.receptive_field(wiener_losses(covariance, LEVELS, WIDTHS))
    # The smoothest comes to see all of the chunk; what it does then says nothing.
    end = np.argmax(field == 15) + 1 if np.any(field == 15) else len(field)
    assert np.all(np.diff(field[:end]) >= 0) and field[0] <= 5 and field[-1] >= 9


def test_smoother_motions_are_looked_at_from_farther():
    fields = [
        locality.receptive_field(wiener_losses(power_law_covariance(exponent), LEVELS, WIDTHS))
        for exponent in (1.5, 2.0, 3.0)
    ]
    assert np.all(np.diff(fields, axis=0) >= 0)


def test_trained_on_a_gaussian_process_it_is_the_wiener_filters():
    rng = np.random.default_rng(0)
    covariance = power_law_covariance(2.0)
    x = rng.multivariate_normal(np.zeros(15), covariance, 6000)[..., None]
    exact = wiener_losses(covariance, LEVELS, WIDTHS)
    found = locality.denoising_losses(
        x[:5000], x[5000:], LEVELS, WIDTHS, steps=200, width=32, progress=False
    )
    # 1000 held-out chunks: their own spread is 4.5%.
    np.testing.assert_allclose(found.loss / exact.loss, 1, atol=0.12)
    ratio = (found.loss / found.loss[:, -1:]) / (exact.loss / exact.loss[:, -1:])
    np.testing.assert_allclose(ratio, 1, atol=0.05)
    ours, wiener = (np.searchsorted(WIDTHS, locality.receptive_field(v)) for v in (found, exact))
    assert np.abs(ours - wiener).max() <= 1 and np.mean(ours == wiener) >= 0.5


@pytest.mark.slow
def test_trained_on_two_values_it_beats_the_linear_one():
    """x0 is +1 or -1 throughout: given w steps, E[x0 | x_t] = tanh(alpha sum(x_t) / sigma^2)."""
    rng = np.random.default_rng(0)
    x = np.repeat(rng.choice([-1.0, 1.0], (4000, 1, 1)), 4, axis=1)
    levels, widths = np.array([0.5, 0.8, 0.9]), (1, 2, 4)
    found = locality.denoising_losses(
        x[:3000], x[3000:], levels, widths, steps=1500, width=64, draws=16, progress=False
    )
    z = np.linspace(-8, 8, 4001)
    weight = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    snr = np.outer((1 - levels**2) / levels**2, widths)[..., None]
    exact = np.trapezoid(weight * (1 - np.tanh(snr + np.sqrt(snr) * z)), z, axis=-1)
    linear = 1 / (1 + snr[..., 0])
    assert np.all(exact < linear)
    np.testing.assert_allclose(found.loss, exact, rtol=0.08, atol=0.003)


def test_sigma_max_is_the_last_level_before_crops_are_told_apart():
    levels, crops = np.array([0.1, 0.3, 0.5, 0.9]), np.array([2, 4, 8])
    field = np.array([1, 3, 5, 16])
    same = np.full((3, 4), 0.49)
    assert locality.sigma_max(levels, field, crops, same) == 0.9
    told = same.copy()
    told[2] = 0.2  # whole chunks differ: from a field of 5 on
    assert locality.sigma_max(levels, field, crops, told) == 0.3
    told[0, 0] = 0.2  # short ones too, at the first level
    assert locality.sigma_max(levels, field, crops, told) == 0
    told[0, 0] = 0.44
    assert locality.sigma_max(levels, field, crops, told, tau=0.1) == 0.3


def test_bad_input():
    with pytest.raises(ValueError, match="widths are .* increase from at least 1 to the horizon 8"):
        locality.windows(8, [1, 4])
    fits = wiener_losses(np.eye(4), [0.5], [1, 4])
    with pytest.raises(ValueError, match="tolerance is 0"):
        locality.receptive_field(fits, 0)
    with pytest.raises(ValueError, match=r"expected \[L\], \[L\], \[K\] and \[K, L\]"):
        locality.sigma_max([0.1], [1], [1], [[0.5, 0.5]])
    x = np.zeros((4, 3, 1))
    with pytest.raises(ValueError, match="held_out has shape"):
        locality.denoising_losses(x, x[:, :2], [0.5], [1, 3])
    with pytest.raises(ValueError, match="chunks has NaN"):
        locality.denoising_losses(x * np.nan, x, [0.5], [1, 3])
    with pytest.raises(ValueError, match=r"expected them in \(0, 1\)"):
        locality.denoising_losses(x, x, [1.0], [1, 3])
