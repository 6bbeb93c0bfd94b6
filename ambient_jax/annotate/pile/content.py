"""What the page about a pile shows, as JSON values that its script draws."""

from __future__ import annotations

from typing import Any

import numpy as np

from ambient_jax.annotate.pile.results import Finding, Results
from ambient_jax.annotate.pile.worth import interval
from ambient_jax.data.look import plots

SHOWN = 4000  # most episodes on the page, those that stand out most first
_TICKS = (0.01, 0.03, 0.1, 0.3, 0.7, 0.9, 0.97, 0.99)
_CLEAN = "clean data only"


def content(results: Results) -> dict[str, Any]:
    """What the script draws, as JSON values."""
    levels = results.findings[0].gain.levels
    axis: dict[str, Any] = {"xlabel": "noise level sigma", "at": "sigma"}
    gains = [_gain_series(f) for f in results.findings]
    sets = []
    for i, (f, series) in enumerate(zip(results.findings, gains, strict=True)):
        one = {"name": f.name, "colour": plots.colour(i), "trains": _trains(f)}
        sets.append(one | {n: series[n] for n in ("y", "low", "high")})
    return {
        "sets": sets,
        "gain": axis
        | _sigma_axis(levels)
        | {
            "title": "change of the clean loss by noise level",
            "value": "loss",
            "ylabel": "change of the clean loss",
            "zero": True,
        }
        | {"percent": True, "series": gains},
        "clean": axis
        | _sigma_axis(results.findings[0].scores.levels)
        | {"title": "P(clean) by noise level", "value": "P(clean)"}
        | {"series": [_quantiles(f.name, f.scores.clean.T) for f in results.findings]},
        "influence": axis
        | _sigma_axis(results.findings[0].scores.influence_levels)
        | {"title": "influence by noise level", "value": "influence", "zero": True}
        | {"series": [_quantiles(f.name, f.scores.influence) for f in results.findings]},
        "worth": _curve(results),
        "lengths": _length_ticks(results),
        **_episodes(results),
    }


def _position(sigma):
    return np.log10(sigma / np.sqrt((1 - sigma) * (1 + sigma)))


def _sigma_axis(levels):
    ticks = [[_position(t), f"{t:g}"] for t in _TICKS]
    return {"x": _position(levels), "shown": levels, "ticks": ticks}


def _rounded(values):
    return [float(f"{v:.5g}") for v in np.asarray(values).tolist()]


def _series(name, y, low, high, **more):
    ends = {"y": _rounded(y), "low": _rounded(low), "high": _rounded(high)}
    return {"set": name, **ends, **more}


def _gain_series(f: Finding):
    return _series(f.name, *(100 * np.expm1(v) for v in (f.gain.ratio, *f.gain.ends)))


def _quantiles(name, by_episode):
    """Median and 10% to 90% of values [L, E]."""
    low, y, high = np.quantile(by_episode, [0.1, 0.5, 0.9], axis=1)
    return _series(name, y, low, high, title=f"{name}: median (10% to 90% of episodes)")


def _trains(f: Finding):
    """The range of log(sigma / alpha) in which a data set trains."""
    if f.choice.clean_only:
        return []
    low, high = f.choice.candidate.sigma_min, f.choice.sigma_max
    return [[float(_position(low)) if low > 0 else -9, float(_position(high)) if high < 1 else 9]]


def _curve(results: Results) -> dict[str, Any] | None:
    """The learning curve relative to its end, its line, and the loss that each data set reaches."""
    curve = results.curve
    if curve is None:
        return None
    n = np.geomspace(curve.episodes[0], curve.farthest, 30)
    percent = lambda v: 100 * np.expm1(v)  # noqa: E731
    fits, last = curve.fits, curve.losses[:, -1:]
    lines = percent(fits[:, :1] + fits[:, 1:] * np.log(n) - last)
    ends = np.stack([interval(column) for column in lines.T], axis=1)
    series = [_series(_CLEAN, *ends, title=_CLEAN, dash=True)]
    for f in (f for f in results.findings if not f.choice.clean_only):
        flat = [np.full(len(n), percent(v)) for v in interval(f.chosen)]
        series.append(_series(f.name, *flat, title=f"all clean episodes and {f.name}"))
    points = []
    for x, losses in zip(curve.episodes, (curve.losses - last).T, strict=True):
        y, low, high = (float(percent(v)) for v in interval(losses))
        points.append({"x": np.log10(x), "y": y, "low": low, "high": high, "set": _CLEAN})
    ticks = [[np.log10(t), f"{t:g}"] for t in _round_numbers(n[0], n[-1])]
    return {
        **{"x": np.log10(n), "shown": n.round(1), "ticks": ticks, "series": series},
        **{"points": points, "title": "clean loss by number of clean episodes", "percent": True},
        **{
            "value": "loss",
            "ylabel": "clean loss, against that of all clean episodes",
            "zero": True,
            "at": "clean episodes",
            "xlabel": "clean episodes",
        },
    }


def _round_numbers(low, high):
    every = [f * 10**p for p in range(7) for f in (1, 2, 5)]
    return [v for v in every if low * 0.9 <= v <= high * 1.1]


def _length_ticks(results):
    length = np.concatenate([f.scores.length for f in results.findings])
    return [[np.log10(t), f"{t:g}"] for t in _round_numbers(length.min(), length.max())]


def _episodes(results: Results) -> dict[str, Any]:
    """Rows of episodes; the curve of each is a column of the levels of its plot."""
    columns = ["set", "episode", "length", "p", "zp", "influence", "zi", "suspect", "curve"]
    rows = []
    for f in results.findings:
        s = f.scores
        plain, z, suspect = s.summary, s.standing_out(), s.suspects()
        worst = np.minimum(z["p_clean"], z["influence"])
        most = max(1, SHOWN // len(results.findings))
        for i in np.argsort(worst, kind="stable")[:most]:
            values = [plain["p_clean"], z["p_clean"], plain["influence"], z["influence"]]
            numbers = _rounded([v[i] for v in values])
            row = [f.name, int(s.episode[i]), int(s.length[i]), *numbers, bool(suspect[i])]
            rows.append([*row, _rounded(s.clean[i]), _rounded(s.influence[:, i])])
    return {"columns": [*columns, "moves"], "episodes": rows}
