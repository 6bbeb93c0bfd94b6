"""Makes a normaliser from the statistics of sources."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from ambient_jax import _checks
from ambient_jax.data.moments import ENDS, Moments
from ambient_jax.data.parts import SourceStatistics
from ambient_jax.transforms.normalizer import KINDS, Normalizer

PER = ("mixture", "group", "source")
OUTLIERS = ("leave_out", "keep")
# In metres and radians: sensor noise of a robot that stands still is below 0.1 mm and mrad.
LEAST_RANGE = 1e-4
_QUANTILES = (0.01, 0.99)
# For ``outliers_of``: distance in ranges of the other values, least range, tail share, glitches.
_REACH, _LEAST, _TAIL, _GLITCHES = 10.0, 1e-4, 0.02, 2


def check_options(kind: str, per: str, least_range: float, outliers: str, prefix="") -> None:
    """Raises ValueError for impossible options of ``make_normalizer``."""
    _checks.one_of(f"{prefix}normalization", kind, KINDS)
    _checks.one_of(f"{prefix}normalize_per", per, PER)
    _checks.one_of(f"{prefix}outliers", outliers, OUTLIERS)
    _checks.number(f"{prefix}least_range", least_range, 0, below=True)


def adopt(
    base: Normalizer, new: Normalizer, source: str | None = None
) -> tuple[Normalizer, list[str]]:
    """Returns a new run's normaliser with the maps of the run whose parameters it starts from.

    It takes the maps of fields of the same width, except for dimensions that only the base maps to
    a constant. A source takes the base's map of its name, or the one that the base's sources share;
    a name that the base does not have keeps its new map.

    Args:
      base, new: normalisers of the two runs' data.
      source: source whose map to take if the base has one per source and the new run one for all.

    Returns:
      The normaliser, and a list of the fields and sources that keep the new map.
    """
    shift = {n: v.copy() for n, v in new.shift.items()}
    scale = {n: v.copy() for n, v in new.scale.items()}
    unchanged = []
    for row, name in enumerate(new.sources or [source or ""]):
        if base.sources and name not in base.sources:
            unchanged.append(
                f"source {name}" if new.sources else "all: the base has a map a source"
            )
            continue
        adopted = base.for_source(name)
        for field in shift:
            previous = adopted.shift.get(field)
            if previous is None or previous.shape[-1] != shift[field].shape[-1]:
                unchanged.append(field)
                continue
            at = (row,) if new.sources else ()
            constant = (adopted.scale[field] == 0) & (scale[field][at] != 0)
            unchanged += [f"{field}[{i}]" for i in np.flatnonzero(constant)]
            shift[field][at] = np.where(constant, shift[field][at], previous)
            scale[field][at] = np.where(constant, scale[field][at], adopted.scale[field])
    return Normalizer(base.kind, shift, scale, new.sources), list(dict.fromkeys(unchanged))


def make_normalizer(
    statistics: Mapping[str, SourceStatistics],
    kind: str = "bounds",
    per: str = "mixture",
    *,
    groups: Mapping[str, str] | None = None,
    masks: Mapping[str, Mapping[str, Any]] | None = None,
    least_range: float = LEAST_RANGE,
    outliers: str = "leave_out",
) -> Normalizer:
    """Makes a normaliser from the statistics of each source (by name). A range below
    ``least_range``, or below ten times the rounding of the numbers, counts as noise and is widened
    to that limit; a range below the rounding counts as constant.

    Args:
      statistics: statistics of sources whose fields have the same shapes.
      kind: "bounds", "gaussian", "quantiles" or "none".
      per: "mixture" pools statistics over the steps of all sources, "source" does not pool, "group"
        pools those of one robot and control mode.
      groups: by source, the name of its group; a source without one is its own group.
      masks: by source and field, [d], the dimensions that it has; by default all. Fillers in other
        dimensions do not count; a dimension that no source has maps to 0, and back to 0.
      least_range: see above, in units of the data.
      outliers: "leave_out" excludes lone glitches (``outliers_of``) from "bounds" and "gaussian",
        "keep" lets them widen the maps.

    Raises:
      ValueError: an option is impossible, or "quantiles" has statistics without a sample.
    """
    check_options(kind, per, least_range, outliers)
    rows = _rows(statistics, per, groups or {})
    shift, scale = {}, {}
    for field, first in next(iter(statistics.values())).fields.items():
        maps = []
        for group in dict.fromkeys(rows):
            full = np.ones(first.mean.size, bool)
            having = [np.asarray((masks or {}).get(n, {}).get(field, full), bool) for n in group]
            moments = [statistics[name].fields[field] for name in group]
            if outliers == "leave_out":
                moments = [_without_glitches(m) for m in moments]
            where = f"{field} of {', '.join(group)}"
            maps.append(_of_group(moments, np.stack(having), kind, least_range, where))
        exact = np.asarray([m[0] for m in maps], np.float64)
        scale[field] = np.asarray([m[1] for m in maps], np.float32)
        # Keep more digits than float32 has only if rounding matters beside the range.
        rounded = exact.astype(np.float32)
        matters = (scale[field] > 0) & (np.spacing(np.abs(rounded)) > 2e-4 * scale[field])
        shift[field] = np.where(matters, exact, rounded.astype(np.float64))
    if per != "mixture":
        at = [list(dict.fromkeys(rows)).index(group) for group in rows]
        shift, scale = ({n: v[at] for n, v in maps.items()} for maps in (shift, scale))
        return Normalizer(kind, shift, scale, tuple(statistics))
    shift, scale = ({n: v[0] for n, v in maps.items()} for maps in (shift, scale))
    return Normalizer(kind, shift, scale)


def _rows(sources, per, groups) -> list[tuple[str, ...]]:
    """Returns, for each source, the sources that it is pooled with."""
    if per == "mixture":
        return [tuple(sources)] * len(sources)
    # A source without a group is its own group: a tuple, which differs from all names of groups.
    group = {n: (groups.get(n) if per == "group" else "") or (n,) for n in sources}
    return [tuple(m for m in sources if group[m] == group[n]) for n in sources]


def _of_group(moments, having, kind, least, where):
    """Returns (shift, scale) [d], pooled by dimension over the sources in ``having`` [K, d]."""
    d = having.shape[1]
    if kind == "none":
        return np.zeros(d), np.ones(d)
    shift, scale, narrow = np.zeros(d), np.zeros(d), np.zeros(d)
    for pattern in np.unique(having, axis=1).T:
        if not pattern.any():
            continue
        dims = np.flatnonzero((having.T == pattern).all(axis=1))
        parts = [m for m, has in zip(moments, pattern, strict=True) if has]
        untailed = [dataclasses.replace(m, tails=None) for m in parts]
        pooled = functools.reduce(Moments.merge, untailed)
        maps = _affine(pooled, parts, kind, least, where)
        shift[dims], scale[dims], narrow[dims] = (values[dims] for values in maps)
    if narrow.any():
        ranges = ", ".join(f"[{i}] {narrow[i]:.3g}" for i in np.flatnonzero(narrow)[:8])
        logging.warning(
            "%s ranges over less than config.data.least_range %g in %d dimensions (%s): taken to "
            "be noise, and not stretched to -1..1",
            *(where, least, np.count_nonzero(narrow), ranges),
        )
    return shift, scale


def _affine(pooled, parts, kind, least, where):
    """Returns (shift, scale, range if it is too narrow, else 0) [d]."""
    low, high, width = pooled.min, pooled.max, pooled.max - pooled.min
    magnitude = np.maximum(np.abs(low), np.abs(high))
    constant = width <= pooled.rounding * magnitude
    floor = np.maximum(least, 10 * pooled.rounding * magnitude) if least else np.zeros_like(width)
    small = ~constant & (width < floor)
    if kind == "quantiles":
        if any(m.tails is None for m in parts):
            raise ValueError(
                f"{where}: statistics without a sample have no quantiles: measure anew"
            )
        weighted = [(m.tails.rows, m.count / len(m.tails.rows)) for m in parts]
        inner = _quantiles(weighted, _QUANTILES)
        # A gripper that is nearly always open has no range between these: use the full range.
        wide = inner[1] - inner[0] > np.maximum(floor, pooled.rounding * magnitude)
        low, high = np.where(wide, inner, (low, high))
    half = np.where(small, floor / 2, pooled.std if kind == "gaussian" else (high - low) / 2)
    middle = np.where(constant | (kind != "gaussian"), (low + high) / 2, pooled.mean)
    # For float32 data a float32 shift has enough digits. Other shifts tell that they need more
    # (``Chain.wide``), even one that float32 could hold by chance.
    rounded = middle.astype(np.float32)
    apart = np.where(middle == rounded, np.nextafter(middle, np.inf), middle)
    middle = np.where(pooled.rounding < 1e-6, apart, rounded)
    return middle, np.where(constant, 0, half), np.where(small, width, 0)


def log_outliers(
    name: str,
    statistics: SourceStatistics,
    kind: str,
    outliers: str,
    masks: Mapping[str, np.ndarray],
) -> None:
    """Logs the farthest outliers of a source in one line, and whether the maps use them.

    ``masks`` are [d] bool by field: dimensions that the source lacks hold fillers and do not count.
    """
    listed = [
        (field, outlier)
        for field, moments in statistics.fields.items()
        for outlier in outliers_of(moments)
        if field not in masks or masks[field][outlier.dim]
    ]
    if not listed or kind == "none":
        return
    listed.sort(key=lambda f: -abs(f[1].value - np.mean(f[1].rest)) / np.ptp(f[1].rest))
    texts = []
    for field, outlier in listed[:3]:
        left_out = outliers == "leave_out" and outlier.lone and kind != "quantiles"
        texts.append(
            f"{field}[{outlier.dim}] is {outlier.value:.6g} in episode {outlier.episode} at step "
            f"{outlier.step}, the rest {outlier.rest[0]:.4g} to {outlier.rest[1]:.4g}: "
            + ("left out of the maps" if left_out else "it counts in the maps")
        )
    logging.warning(
        "source %r has %d outliers (%s); they are trained on, so mend or drop the episode, or set "
        "config.data.outliers to 'keep' if they are true",
        *(name, len(listed), "; ".join(texts)),
    )


def _quantiles(parts: list[tuple[np.ndarray, float]], levels: tuple[float, ...]) -> np.ndarray:
    """Returns quantiles [levels, d] of samples (rows [k, d], weight of a row), interpolated."""
    rows = np.concatenate([r for r, _ in parts])
    weight = np.concatenate([np.full(len(r), w) for r, w in parts])
    out = np.empty((len(levels), rows.shape[1]))
    for i, column in enumerate(rows.T):
        order = np.argsort(column, kind="stable")
        w = weight[order]
        place = np.cumsum(w) - w / 2
        place = (place - place[0]) / max(place[-1] - place[0], np.finfo(float).tiny)
        out[:, i] = np.interp(levels, place, column[order])
    return out


class Outlier(NamedTuple):
    """A value of a dimension at an episode's step; ``rest`` is the range of the other values."""

    dim: int
    value: float
    episode: int
    step: int
    rest: tuple[float, float]
    lone: bool


def outliers_of(moments: Moments) -> list[Outlier]:
    """Returns values of a field that are farther from the rest than 10 times its range.

    The rest is all values except the outermost 2 % on either side, at most ``ENDS`` - 1 of them. If
    it is constant, as for a gripper, there are no outliers. An outlier is a lone glitch unless
    another one is within a tenth of its distance (such as a repeated motion or a code) or in the
    next step (such as a motion), or the dimension has more than two.
    """
    tails = moments.tails
    count = min(ENDS - 1, int(moments.count * _TAIL))
    if tails is None or not count or tails.ends.shape[1] <= count:
        return []
    rest = tails.ends[:, count]
    width = rest[1] - rest[0]
    varies = width > moments.rounding * np.abs(rest).max(axis=0)
    distance = np.array([-1, 1])[:, None, None] * (tails.ends[:, :count] - rest[:, None])
    beyond = varies & (distance > _REACH * np.maximum(width, _LEAST))
    listed = []
    for side, dim in np.argwhere(beyond.any(axis=1)):
        far, few = np.flatnonzero(beyond[side, :, dim]), beyond[..., dim].sum() <= _GLITCHES
        value, at = tails.ends[side, far, dim], tails.at[side, far, dim]
        near = np.abs(value[:, None] - value) <= distance[side, far, dim][:, None] / 10
        near |= (at[:, None, 0] == at[:, 0]) & (np.abs(at[:, None, 1] - at[:, 1]) <= 1)
        low, high = rest[:, dim].tolist()
        lone = (few & (near.sum(axis=1) == 1)).tolist()
        for x, (episode, step), alone in zip(value.tolist(), at.tolist(), lone, strict=True):
            listed.append(Outlier(int(dim), x, episode, step, (low, high), alone))
    return listed


def _without_glitches(moments: Moments) -> Moments:
    """Returns moments without lone glitches; these dimensions get the sample's mean and deviation.

    Subtracting the square of a huge value would leave only rounding errors.
    """
    glitches = [outlier for outlier in outliers_of(moments) if outlier.lone]
    if moments.tails is None or not glitches:
        return moments
    fields = {n: getattr(moments, n).copy() for n in ("mean", "m2", "min", "max")}
    for dim in {glitch.dim for glitch in glitches}:
        values = [glitch.value for glitch in glitches if glitch.dim == dim]
        low, high = (e[~np.isin(e, values)][0] for e in moments.tails.ends[:, :, dim])
        column = moments.tails.rows[:, dim]
        column = column[~np.isin(column, values)]
        fields["min"][dim], fields["max"][dim] = low, high
        fields["mean"][dim], fields["m2"][dim] = column.mean(), column.var() * moments.count
    return dataclasses.replace(moments, **fields)
