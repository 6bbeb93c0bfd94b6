"""Computes sigma_min from the curve of a noise classifier, on the host, for many units at once.

The curve c(sigma) is the classifier's probability of "clean", averaged over a unit of corrupt data
and over noise draws; at 0.5 the classifier cannot tell. sigma_min is where c first exceeds
0.5 - tau; a rule picks one crossing of a noisy curve.

The true curve of a data set increases to 1/2. With the best classifier p / (p + q), its mean over q
is 1/2 - 1/4 sum (p - q)^2 / (p + q): an f-divergence between p_sigma and q_sigma, which noise
contracts. Random units have that curve in expectation; one datapoint, or units ordered by score,
need not.
"""

import numpy as np

from ambient_jax import _checks

RULES = ("isotonic", "last")


def sigma_min(levels, clean_probability, *, tau=0.05, rule: str = "isotonic"):
    """Returns inf {sigma : c(sigma) > 0.5 - tau} of every unit, under a monotone rule.

    "isotonic" fits the increasing curve nearest to c (least squares) and takes its one crossing.
    "last" takes the last crossing of c itself. Noise in c makes it too high on average (by 0.05 to
    0.24 where "isotonic" is at most 0.02 too high): use it if a corrupt sample at a wrong level
    costs more than a lost sample.

    Between two levels c is interpolated linearly, and never extrapolated: a unit above the
    threshold at every level gets 0 (so levels should begin near 0), and a unit that is not above it
    at the last level gets 1.

    Args:
      levels: [L] increasing noise levels in [0, 1].
      clean_probability: c [..., L] in [0, 1], for balanced classes, averaged over unit and draws.
      tau: how far below 0.5 still counts as "cannot tell", in (0, 0.5), scalar or [...] by unit.
      rule: "isotonic" or "last".

    Returns:
      [...] float64 in [0, 1]: 0 admits every level, 1 none.

    Raises:
      ValueError: unknown rule, tau outside (0, 0.5), levels that do not increase or lie outside
        [0, 1], c that is NaN or outside [0, 1], or shapes that disagree.
    """
    _checks.one_of("rule", rule, RULES)
    tau = np.asarray(tau, np.float64)
    if not np.all((tau > 0) & (tau < 0.5)):
        raise ValueError(f"tau is {tau}, expected a number in (0, 0.5), such as 0.05")
    levels = _levels(levels)
    curve = np.asarray(clean_probability, np.float64)
    if not curve.ndim or curve.shape[-1] != levels.size:
        raise ValueError(
            f"clean_probability has shape {curve.shape}, expected [..., {levels.size}]: one value "
            "per level, levels last"
        )
    _checks.level("clean_probability", curve, "a probability")
    if rule == "isotonic":
        curve = isotonic(curve)
    if tau.shape not in ((), curve.shape[:-1]):
        raise ValueError(
            f"tau has shape {tau.shape}, expected a scalar or one per unit, {curve.shape[:-1]}"
        )
    below = curve <= 0.5 - tau[..., None]
    # The last level that is not above the threshold, -1 where all are.
    last = levels.size - 1 - np.argmax(below[..., ::-1], axis=-1)
    last = np.where(below.any(axis=-1), last, -1)
    at = np.clip(last, 0, max(levels.size - 2, 0))
    after = np.minimum(at + 1, levels.size - 1)
    low = np.take_along_axis(curve, at[..., None], axis=-1)[..., 0]
    high = np.take_along_axis(curve, after[..., None], axis=-1)[..., 0]
    inside = (last >= 0) & (last < levels.size - 1)
    part = np.where(inside, (0.5 - tau - low) / np.where(inside, high - low, 1), 0)
    crossing = levels[at] + part * (levels[after] - levels[at])
    return np.where(inside, crossing, np.where(last < 0, 0.0, 1.0))


def rejection_tau(lot, tau: float = 0.05) -> np.ndarray:
    """Returns the tau with which ``sigma_min`` is the level from which rejection uses a sample.

    Rejection sampling uses a corrupt sample at sigma with probability r = min(1, c / (1 - c)), the
    ratio of P(clean) to P(corrupt) (Ambient Diffusion Policy, arXiv 2606.12365, proposes it). One
    lot u for all levels is enough: the sample is used where r(sigma) >= u, which is where c passes
    u / (1 + u). As r increases with sigma after the isotonic fit, that is from one level on, and
    the share of samples used at any level is the mean of their r.

    Where c passes 0.5 - tau the sample is used whatever its lot: a calibrated classifier stays a
    little below 1/2 even where nothing can be told, and a lot near 1 would wait for ever.

    Args:
      lot: u [...] in (0, 1], uniform, such as ``buckets.lots``.
      tau: how far below 0.5 still counts as "cannot tell", in (0, 0.5).

    Returns:
      [...] float64 in [tau, 0.5).
    """
    lot = np.asarray(lot, np.float64)
    if not np.all((lot > 0) & (lot <= 1)):
        raise ValueError(f"lot has values from {lot.min()} to {lot.max()}, expected all in (0, 1]")
    return np.maximum(tau, (1 - lot) / (1 + lot) / 2)


def isotonic(values) -> np.ndarray:
    """Returns the increasing sequence nearest to values [..., L] in least squares.

    Pools adjacent violators in the minimax form, which needs L passes over all units and no loop
    over units: fit_i = max over j <= i of min over k >= i of mean(values[j..k]).
    """
    values = np.asarray(values, np.float64)
    length = values.shape[-1]
    fit = np.full(values.shape, -np.inf)
    for j in range(length):
        means = np.cumsum(values[..., j:], axis=-1) / np.arange(1, length - j + 1)
        smallest = np.minimum.accumulate(means[..., ::-1], axis=-1)[..., ::-1]
        np.maximum(fit[..., j:], smallest, out=fit[..., j:])
    return fit


def round_up(sigma_min, levels) -> np.ndarray:
    """Rounds sigma_min [...] up to the next of ``levels`` [L], in the type of sigma_min.

    This leaves at most L + 2 distinct bounds, none lower than before: 0 stays 0, and a bound above
    the last level becomes 1.

    Raises ValueError if sigma_min lies outside [0, 1], or levels do not increase within it.
    """
    levels = _levels(levels)
    bounds = np.asarray(sigma_min)
    bounds = bounds if np.issubdtype(bounds.dtype, np.floating) else bounds.astype(np.float64)
    _checks.level("sigma_min", bounds)
    # In the type of the bounds: 0.3 kept as float32 is above 0.3, and must not go up a level.
    grid = np.append(levels, 1.0).astype(bounds.dtype)
    up = grid[np.searchsorted(grid[:-1], bounds, side="left")]
    return np.where(bounds == 0, bounds, up)


def _levels(levels):
    levels = np.asarray(levels, np.float64)
    if levels.ndim != 1 or not levels.size:
        raise ValueError(f"levels has shape {levels.shape}, expected [L] noise levels, L >= 1")
    _checks.level("levels", levels)
    wrong = np.flatnonzero(np.diff(levels) <= 0)
    if wrong.size:
        i = wrong[0]
        raise ValueError(
            f"levels must increase: level {i + 1} is {levels[i + 1]:g} after {levels[i]:g}; sort "
            "them, and the curves with them"
        )
    return levels
