"""A normaliser from the statistics of sources."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging

from ambient_jax import _checks
from ambient_jax.data import tails
from ambient_jax.data.statistics import SourceStatistics
from ambient_jax.transforms.normalizer import KINDS, Normalizer

PER = ("mixture", "source")
OUTLIERS = ("leave_out", "keep")
# In metres and radians: what stands still moves less than 0.1 mm and mrad, by its sensor's noise.
LEAST_RANGE = 1e-4
_QUANTILES = (0.01, 0.99)


def check_options(kind: str, per: str, least_range: float, outliers: str) -> None:
    """Raises ValueError for options of ``make_normalizer`` that do not exist or cannot be."""
    _checks.one_of("normalization", kind, KINDS)
    _checks.one_of("normalize_per", per, PER)
    _checks.one_of("outliers", outliers, OUTLIERS)
    if not (least_range >= 0 and math.isfinite(least_range)):
        raise ValueError(
            f"least_range is {least_range}, expected a finite number >= 0 in units of the data "
            "(0 stretches every range, however small)"
        )


def adopt(
    base: Normalizer, new: Normalizer, source: str | None = None
) -> tuple[Normalizer, list[str]]:
    """A new run's normaliser with the maps of the run whose parameters it goes on with.

    Taken are fields of the same width, and of them the dimensions that the base maps to more than a
    constant. A source of the new run takes the base's map of the same name, or the one that all of
    the base's sources share; a name that the base does not know keeps its own map.

    Args:
      base, new: normalisers of the two runs' data.
      source: whose map is taken where the base has one for each source and the new run one for all.

    Returns:
      The normaliser, and a list of what keeps the new map.
    """
    shift = {n: v.copy() for n, v in new.shift.items()}
    scale = {n: v.copy() for n, v in new.scale.items()}
    kept = []
    for row, name in enumerate(new.sources or [source or ""]):
        if base.sources and name not in base.sources:
            kept.append(f"source {name}" if new.sources else "all: the base has a map a source")
            continue
        adopted = base.for_source(name)
        for field in shift:
            known = adopted.shift.get(field)
            if known is None or known.shape[-1] != shift[field].shape[-1]:
                kept.append(field)
                continue
            at = (row,) if new.sources else ()
            own = (adopted.scale[field] == 0) & (scale[field][at] != 0)
            kept += [f"{field}[{i}]" for i in np.flatnonzero(own)]
            shift[field][at] = np.where(own, shift[field][at], known)
            scale[field][at] = np.where(own, scale[field][at], adopted.scale[field])
    return Normalizer(base.kind, shift, scale, new.sources), list(dict.fromkeys(kept))


def make_normalizer(
    statistics: Mapping[str, SourceStatistics],
    kind: str = "bounds",
    per: str = "mixture",
    *,
    masks: Mapping[str, Mapping[str, Any]] | None = None,
    least_range: float = LEAST_RANGE,
    outliers: str = "leave_out",
) -> Normalizer:
    """A normaliser from the statistics of each source (by name).

    Ranges under ``least_range``, or under ten times the rounding of the numbers, are taken to be as
    wide as that: what they hold is noise. Those under the rounding itself are constant.

    Args:
      statistics: of sources whose fields have the same shapes.
      kind: "bounds", "gaussian", "quantiles" or "none".
      per: "mixture", statistics pooled over the steps of all sources, or "source".
      masks: by source and field, [d], which dimensions it has; all where none is given. Fillers of
        those it lacks count nowhere; a dimension that nobody has maps to 0, and back to 0.
      least_range: see above, in units of the data.
      outliers: "leave_out" keeps lone glitches (``tails``) out of "bounds" and "gaussian", "keep"
        lets them widen the maps.

    Raises:
      ValueError: options that do not exist or cannot be, or "quantiles" of statistics without a
        sample.
    """
    check_options(kind, per, least_range, outliers)
    groups = [list(statistics)] if per == "mixture" else [[name] for name in statistics]
    shift, scale = {}, {}
    for field, first in next(iter(statistics.values())).fields.items():
        maps = []
        for group in groups:
            having = [
                np.asarray((masks or {}).get(name, {}).get(field, np.ones(first.mean.size)), bool)
                for name in group
            ]
            moments = [statistics[name].fields[field] for name in group]
            if outliers == "leave_out":
                moments = [_without_glitches(m) for m in moments]
            what = f"{field} of {', '.join(group)}"
            maps.append(_of_group(moments, np.stack(having), kind, least_range, what))
        exact = np.asarray([m[0] for m in maps], np.float64)
        scale[field] = np.asarray([m[1] for m in maps], np.float32)
        # More digits than float32 has only where the range would feel it.
        rounded = exact.astype(np.float32).astype(np.float64)
        felt = (scale[field] > 0) & (np.abs(rounded - exact) > 1e-4 * scale[field])
        shift[field] = np.where(felt, exact, rounded)
    if per == "mixture":
        return Normalizer(
            kind, {n: v[0] for n, v in shift.items()}, {n: v[0] for n, v in scale.items()}
        )
    return Normalizer(kind, shift, scale, tuple(statistics))


def _without_glitches(moments):
    glitches = [outlier for outlier in tails.outliers(moments) if outlier.lone]
    return tails.without(moments, glitches) if glitches else moments


def _of_group(moments, having, kind, least, what):
    """(shift, scale) [d] of sources pooled, having [K, d]; each dimension of those that have it."""
    d = having.shape[1]
    if kind == "none":
        return np.zeros(d), np.ones(d)
    shift, scale, narrow = np.zeros(d), np.zeros(d), np.zeros(d)
    for pattern in np.unique(having, axis=1).T:
        if not pattern.any():
            continue
        dims = np.flatnonzero((having.T == pattern).all(axis=1))
        parts = [m for m, has in zip(moments, pattern, strict=True) if has]
        pooled = functools.reduce(
            lambda a, b: a.merge(b), [dataclasses.replace(m, tails=None) for m in parts]
        )
        columns = _affine(pooled, parts, kind, least, what)
        shift[dims], scale[dims], narrow[dims] = (column[dims] for column in columns)
    if narrow.any():
        listed = ", ".join(f"[{i}] {narrow[i]:.3g}" for i in np.flatnonzero(narrow)[:8])
        logging.warning(
            "%s ranges over less than config.data.least_range %g in %d dimensions (%s): taken to "
            "be noise, and not stretched to -1..1",
            *(what, least, np.count_nonzero(narrow), listed),
        )
    return shift, scale


def _affine(pooled, parts, kind, least, what):
    """(shift, scale, range of what is too narrow or 0) [d]."""
    low, high, width = pooled.min, pooled.max, pooled.max - pooled.min
    magnitude = np.maximum(np.abs(low), np.abs(high))
    constant = width <= pooled.rounding * magnitude
    floor = np.maximum(least, 10 * pooled.rounding * magnitude) if least else np.zeros_like(width)
    small = ~constant & (width < floor)
    if kind == "quantiles":
        if any(m.tails is None for m in parts):
            raise ValueError(f"{what}: statistics without a sample have no quantiles: measure anew")
        weighted = [(m.tails.rows, m.count / len(m.tails.rows)) for m in parts]
        inner = tails.quantiles(weighted, _QUANTILES)
        # A gripper that is nearly always open has no range between these: then it is that of all.
        wide = inner[1] - inner[0] > np.maximum(floor, pooled.rounding * magnitude)
        low, high = np.where(wide, inner, (low, high))
    half = np.where(small, floor / 2, pooled.std if kind == "gaussian" else (high - low) / 2)
    middle = np.where(constant | (kind != "gaussian"), (low + high) / 2, pooled.mean)
    # Data of float32 have no more digits than a shift of float32.
    middle = np.where(pooled.rounding < 1e-6, middle, middle.astype(np.float32))
    return middle, np.where(constant, 0, half), np.where(small, width, 0)


def log_outliers(
    name: str,
    statistics: SourceStatistics,
    kind: str,
    outliers: str,
    masks: Mapping[str, np.ndarray],
) -> None:
    """Logs the outliers of a source in one line: the farthest ones, and what is done about them.

    Args:
      name, statistics: of the source.
      kind, outliers: see ``make_normalizer``.
      masks: by field, [d] bool, dimensions that it has; others hold fillers, which are left out.
    """
    listed = [
        (field, outlier)
        for field, moments in statistics.fields.items()
        for outlier in tails.outliers(moments)
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
