"""Plots as SVG text: curves of a few episodes over time, and a histogram.

By hand, as the data extra has no matplotlib, and a page of a hundred small plots stays sharp and
below a megabyte.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

COLOURS = ("#2563eb", "#e07b00", "#0f9d76", "#b83280", "#7c5cdb", "#64748b")


def colour(index: int) -> str:
    """The colour of a sample, by its number."""
    return COLOURS[index % len(COLOURS)]


def curves(
    series: Sequence[tuple[np.ndarray, np.ndarray]],
    title: str,
    unit: str,
    width: int = 290,
    height: int = 112,
) -> str:
    """One plot with a curve for each (times [P], values [P]); gaps where values are not finite.

    Args:
      series: of the samples, in the order of their colours.
      title: of the plot, any text.
      unit: of the times.
    """
    left, right, top, bottom = 58, 6, 22, 18
    finite = [v[np.isfinite(v)] for _, v in series]
    joined = np.concatenate(finite) if finite else np.zeros(0)
    low, high = (joined.min(), joined.max()) if joined.size else (0.0, 0.0)
    end = max((float(t[-1]) for t, _ in series if len(t)), default=0.0) or 1.0
    span = high - low
    base, scale = (low, span) if span > 0 else (low - 0.5, 1.0)
    x = lambda t: left + (width - left - right) * t / end  # noqa: E731
    y = lambda v: height - bottom - (height - top - bottom) * (v - base) / scale  # noqa: E731
    lines = []
    for i, (times, values) in enumerate(series):
        with np.errstate(invalid="ignore"):
            places = np.stack([x(times), y(values)], axis=-1)
        good = np.isfinite(values)
        for part in np.split(np.arange(len(values)), np.flatnonzero(~good)):
            points = " ".join(f"{a:.1f},{b:.1f}" for a, b in places[part[good[part]]])
            if points:
                lines.append(f'<polyline points="{points}" stroke="{colour(i)}"/>')
    ticks = [high, low] if span > 0 else [low]
    marks = "".join(
        f'<line x1="{left}" x2="{width - right}" y1="{y(v):.1f}" y2="{y(v):.1f}" class="grid"/>'
        f'<text x="{left - 5}" y="{y(v) + 3:.1f}" text-anchor="end">{_short(v)}</text>'
        for v in ticks
    )
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" class="curves" '
        f'role="img" aria-label="{escape(title)}"><text x="{left}" y="13" class="title">'
        f"{escape(_cut(title, 38))}</text>{marks}{''.join(lines)}"
        f'<text x="{left}" y="{height - 4}">0</text><text x="{width - right}" y="{height - 4}" '
        f'text-anchor="end">{_short(end)} {escape(unit)}</text></svg>'
    )


def histogram(values: np.ndarray, title: str, width: int = 620, height: int = 170) -> str:
    """A histogram of whole numbers [N], N >= 1."""
    left, right, top, bottom = 44, 12, 12, 34
    low, high = int(values.min()), int(values.max())
    bins = min(40, high - low + 1, max(8, int(2 * np.sqrt(len(values)))))
    step = max(1, -(-(high - low + 1) // bins))
    edges = np.arange(low, high + step + 1, step)
    counts, edges = np.histogram(values, edges)
    most, span = max(counts.max(), 1), edges[-1] - edges[0]
    wide, high_px = width - left - right, height - top - bottom
    floor, end = top + high_px, width - right
    bars = []
    for count, first, last in zip(counts.tolist(), edges[:-1], edges[1:], strict=True):
        if not count:
            continue
        tall = high_px * count / most
        where = f"{first}" if step == 1 else f"{first} to {last - 1}"
        bars.append(
            f'<rect x="{left + wide * (first - low) / span:.1f}" y="{floor - tall:.1f}" '
            f'width="{max(wide * step / span - 1, 0.8):.1f}" height="{tall:.1f}">'
            f"<title>{where} steps: {count} episodes</title></rect>"
        )
    texts = [(left, f"{low}", "start"), (end, f"{high}", "end")]
    labels = "".join(
        f'<text x="{x}" y="{floor + 14}" text-anchor="{anchor}">{text}</text>'
        for x, text, anchor in texts
    )
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" class="histogram" '
        f'role="img" aria-label="{escape(title)}">'
        f'<line x1="{left}" x2="{end}" y1="{floor}" y2="{floor}" class="axis"/>{"".join(bars)}'
        f'<text x="{left - 6}" y="{top + 8}" text-anchor="end">{most}</text>'
        f'<text x="{left - 6}" y="{floor}" text-anchor="end">0</text>{labels}'
        f'<text x="{left + wide / 2}" y="{floor + 28}" text-anchor="middle">{escape(title)}</text>'
        "</svg>"
    )


def _short(value: float) -> str:
    return f"{value:.3g}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
