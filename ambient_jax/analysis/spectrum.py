"""Computes power spectra of action chunks and their power law; has corruptions with other spectra.

Convention: ``psd(f)`` is the variance of one coefficient of the chunk in the orthonormal real
Fourier basis, with f in cycles per step, f = k / H for k = 0 ... H // 2. White noise of variance v
has psd v at every f, for any H; independent noise at level sigma adds ``sigma^2`` to it. A
frequency has two coefficients (cosine and sine), f = 0 and f = 1/2 have one: ``multiplicity``.

The functions use NumPy in float64 on the host.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.signal
import scipy.stats

from ambient_jax import _checks

# (x0 [..., H, D], level in [0, 1], rng) -> x_level of the same shape
Corruption = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
TAPERS = ("line", "hann", "none")


class PowerLaw(NamedTuple):
    """``psd(f) = constant * f ** -exponent``, with the standard error of the exponent."""

    exponent: float
    constant: float
    standard_error: float


def frequencies(horizon: int) -> np.ndarray:
    """Returns the frequencies [H // 2 + 1] of a chunk, in cycles per step from 0 to at most 1/2."""
    return np.fft.rfftfreq(horizon)


def multiplicity(horizon: int) -> np.ndarray:
    """Returns the number [H // 2 + 1] of real Fourier coefficients per frequency; the sum is H."""
    k = np.arange(horizon // 2 + 1)
    return np.where((k == 0) | (2 * k == horizon), 1, 2)


def power_law(frequency, exponent: float, constant: float = 1.0) -> np.ndarray:
    """Returns ``constant * f ** -exponent`` where f > 0, and 0 at f = 0, which has no law."""
    frequency = np.asarray(frequency, np.float64)
    safe = np.where(frequency > 0, frequency, 1.0)
    return np.where(frequency > 0, constant * safe ** -float(exponent), 0.0)


def power_spectrum(chunks, taper: str = "line") -> tuple[np.ndarray, np.ndarray]:
    """Computes the power spectral density of chunks, averaged over chunks and action dimensions.

    The two ends of a chunk differ. The Fourier transform repeats the chunk and so has a jump there,
    whose spectrum f^-2 hides every steeper one. A taper removes the jump. Errors of the fitted
    exponent are from chunks of longer motions with exponents 0 to 4, H = 16 and 64:

    * ``"line"`` subtracts the straight line from end to end. The exponent is within 0.17 for
      exponents from 1 to 4 with all frequencies fitted; white noise gives 0.3.
    * ``"hann"`` subtracts the least-squares line and applies a Hann window. It is unbiased for
      white noise; fit above 3 / H, where it is within 0.14 up to exponent 3 (0.35 for 4, H = 16).
    * ``"none"`` is for periodic chunks; ``sum(multiplicity * psd)`` is the mean over chunks and
      dimensions of the sum of squares.

    Args:
      chunks: [N, H, D], any unit u; the psd is in u^2.
      taper: one of ``TAPERS``.

    Returns:
      frequencies [H // 2 + 1] in cycles per step and psd [H // 2 + 1].

    Raises:
      ValueError: chunks are not finite, or not [N, H, D] with N, D >= 1 and H >= 4.
    """
    _checks.one_of("taper", taper, TAPERS)
    x = np.asarray(chunks, np.float64)
    if x.ndim != 3 or x.shape[1] < 4 or not x.size:
        raise ValueError(
            f"chunks have shape {x.shape}, expected [N, H, D] with at least one chunk of H >= 4 "
            "steps: stack chunks along the first axis"
        )
    bad = np.flatnonzero(~np.isfinite(x).all(axis=(1, 2)))
    if bad.size:
        raise ValueError(f"chunk {bad[0]} is not finite: drop it, or its padded steps, first")
    horizon = x.shape[1]
    window = np.ones(horizon)
    if taper == "line":
        rise = np.linspace(0, 1, horizon)[:, None]
        x = x - (x[:, :1] + rise * (x[:, -1:] - x[:, :1]))
    elif taper == "hann":
        x = scipy.signal.detrend(x, axis=1)
        window = np.sin(np.pi * (np.arange(horizon) + 0.5) / horizon) ** 2
    power = np.abs(np.fft.rfft(x * window[:, None], axis=1)) ** 2 / np.sum(window**2)
    return frequencies(horizon), power.mean(axis=(0, 2))


def fit_power_law(frequency, psd, low: float = 0.0, high: float = 0.5) -> PowerLaw:
    """Fits a least-squares line to (log f, log psd) at frequencies in [low, high] without f = 0.

    Args:
      frequency, psd: [F] as ``power_spectrum`` returns them.
      low, high: range of frequencies to fit, cycles per step.

    Raises:
      ValueError: the range has fewer than three frequencies, or one without power.
    """
    frequency, psd = np.asarray(frequency, np.float64), np.asarray(psd, np.float64)
    _checks.same_shape(frequency=frequency, psd=psd)
    slack = 1e-9  # 3 / H need not equal frequency[3] to the last bit
    keep = (frequency > 0) & (frequency >= low - slack) & (frequency <= high + slack)
    x, y = frequency[keep], psd[keep]
    if x.size < 3:
        raise ValueError(
            f"{x.size} frequencies in [{low}, {high}] without 0, expected three or more: widen "
            "the range or take longer chunks"
        )
    if not np.all(y > 0):
        raise ValueError(
            f"psd at frequency {x[~(y > 0)][0]:.4g} is {y[~(y > 0)][0]}, expected > 0: a constant "
            "or filtered chunk has no power law there; restrict the range"
        )
    x, y = np.log(x), np.log(y)
    line = scipy.stats.linregress(x, y)
    return PowerLaw(float(-line.slope), float(np.exp(line.intercept)), float(line.stderr))


def _coloured(rng, shape, psd):
    """Draws Gaussian [..., H, D] with independent Fourier coefficients of these variances."""
    # White noise has an orthonormal transform of unit variance: scaling it is exact for every H.
    white = np.fft.rfft(rng.standard_normal(shape), axis=-2)
    return np.fft.irfft(white * np.sqrt(psd)[:, None], n=shape[-2], axis=-2)


def coloured_noise(rng: np.random.Generator, shape: tuple[int, ...], exponent: float) -> np.ndarray:
    """Draws Gaussian noise [..., H, D] with psd ~ f^-exponent along H and variance 1 per step.

    f = 0 gets the power of the lowest frequency; without it the mean of a chunk would get no noise.
    """
    horizon = shape[-2]
    psd = power_law(np.maximum(frequencies(horizon), 1 / horizon), exponent)
    return _coloured(rng, shape, psd * horizon / np.sum(multiplicity(horizon) * psd))


def notch(x, low: float, high: float) -> np.ndarray:
    """Removes the frequencies in [low, high] cycles per step from x [..., H, D] (a projection)."""
    x = np.asarray(x, np.float64)
    f = frequencies(x.shape[-2])
    keep = (f < low) | (f > high)
    return np.fft.irfft(np.fft.rfft(x, axis=-2) * keep[:, None], n=x.shape[-2], axis=-2)


def white() -> Corruption:
    """Returns variance-preserving white noise: ``sqrt(1 - level^2) x0 + level eps``."""
    return coloured(0.0)


def coloured(exponent: float) -> Corruption:
    """Returns variance-preserving coloured noise, psd ~ f^-exponent; TV never grows with level."""

    def corrupt(x0, level, rng):
        level, x0 = _level(level), np.asarray(x0, np.float64)
        noise = coloured_noise(rng, x0.shape, exponent)
        return np.sqrt((1 - level) * (1 + level)) * x0 + level * noise

    return corrupt


def widening_notch(low: float = 0.0, high: float = 0.5) -> Corruption:
    """Returns a notch filter whose stop band grows to [low, high] as the level goes to 1.

    A level is a projection of the lower levels, as removing frequencies contracts. Laws that differ
    only within [low, high] contract to the same law.

    Raises:
      ValueError: not 0 <= low < high.
    """
    if not 0 <= low < high:
        raise ValueError(f"stop band [{low}, {high}], expected 0 <= low < high cycles per step")
    middle = (low + high) / 2

    def corrupt(x0, level, rng):
        del rng  # a filter draws nothing
        level = _level(level)
        if level == 0:
            return np.asarray(x0, np.float64)
        return notch(x0, middle - level * (middle - low), middle + level * (high - middle))

    return corrupt


def compose(*corruptions: Corruption) -> Corruption:
    """Returns a corruption that applies all of them in turn, at the same level."""

    return lambda x0, level, rng: functools.reduce(lambda x, f: f(x, level, rng), corruptions, x0)


def _level(level):
    return float(_checks.level("level", level, "a corruption level"))
