"""A summary as tables, which the terminal and the HTML page both show."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np

from ambient_jax.data.look.cameras import short
from ambient_jax.data.look.fields import BOOKKEEPING, Numbers
from ambient_jax.data.look.motion import STILL, Motion
from ambient_jax.data.look.summary import Summary

DIMS = 64  # numbers of a field that have a row of their own


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of text under a title; ``note`` is a line below, ``words`` the columns of text."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[str] = ()
    note: str = ""


def facts(summary: Summary) -> list[tuple[str, str]]:
    """(name, value) of the data set as a whole."""
    s, lengths = summary, summary.lengths
    unread = s.episodes - len(lengths)
    rows = [
        ("data set", f"{s.name} {s.version}".strip()),
        ("format", s.format),
        ("split", s.split),
        ("episodes", _count(s.episodes) + (f" ({unread} unreadable)" if unread else "")),
        ("steps", _count(s.steps)),
        ("rate", f"{s.hz:g} Hz" if s.hz else "unknown"),
        ("hours", f"{s.hours:.2f}" if s.hours is not None else "unknown, without a rate"),
    ]
    if len(lengths):
        rows.append(("lengths", lengths_line(lengths)))
    if s.motion:
        rows += [("jerk", jerk(s.motion, s.hz)), ("idle", idle(s.motion))]
    return rows


def lengths_line(lengths: np.ndarray) -> str:
    middle = f"{np.median(lengths):g}"
    return f"{lengths.min()} to {lengths.max()} steps, median {middle}"


def jerk(motion: Motion, hz: float | None) -> str:
    if math.isnan(motion.jerk):
        return "unknown: no episode has 4 steps"
    unit = "(action units / s³)²" if hz else "(action units / step³)²"
    return f"mean square {motion.jerk:.4g} {unit}, median episode {motion.median_jerk:.4g}"


def idle(motion: Motion) -> str:
    """What the share of idle steps is, in a line."""
    of = "" if motion.sampled == 1 else f", of {100 * motion.sampled:.2g} % of the steps"
    return (
        f"{100 * motion.idle:.2f} % of steps change no action by {100 * STILL:g} % of its range"
        f"{of}; {100 * motion.repeated:.2f} % repeat the action exactly"
    )


def fields(summary: Summary) -> Table:
    """One row a field of any kind."""
    columns = ("field", "dtype", "shape", "min", "max", "mean", "std", "constant", "outliers")
    rows = [_field_row(field) for field in summary.numbers]
    blank = [""] * 4
    for text in summary.texts:
        many = f"{len(text.counts)}{'+' if text.more else ''}"
        rows.append([short(text.path), "text", f"{many} different", *blank, "", ""])
    for camera in summary.cameras:
        size = ", ".join(camera.sizes) or "no picture"
        rows.append([short(camera.path), "picture", size, *blank, "", ""])
    rows += [[short(path), dtype, why, *blank, "", ""] for path, dtype, why in summary.others]
    note = (
        "mean and std over all numbers of a field, its dimensions below; constant: dimensions that "
        "never change; outliers: values beyond 10 times the range of the rest"
    )
    return Table("Fields", columns, rows, ("field", "dtype", "shape"), note)


def _field_row(field: Numbers) -> list[str]:
    shape = "×".join(map(str, field.shape)) or "1"
    row = [short(field.path), field.dtype, shape]
    m = field.moments
    if m is None:
        return [*row, "no finite step", "", "", "", "", ""]
    spread = math.sqrt(float((m.std**2 + (m.mean - m.mean.mean()) ** 2).mean()))
    values = [float(m.min.min()), float(m.max.max()), float(m.mean.mean()), spread]
    constant = int(field.constant.sum())
    many = len(field.outliers)
    return [
        *(*row, *map(number, values)),
        f"{constant} of {len(field.constant)}" if constant else "",
        str(many) if many else "",
    ]


def dimensions(summary: Summary) -> Iterator[Table]:
    """A table for each field of 2 to ``DIMS`` numbers: one row a dimension."""
    columns = ("dimension", "name", "min", "max", "mean", "std", "remarks")
    for field in summary.numbers:
        m = field.moments
        if m is None or not 1 < m.mean.size <= DIMS or field.path in BOOKKEEPING:
            continue
        rows = []
        for dim in range(m.mean.size):
            name = field.name_of(dim)
            found = [o for o in field.outliers if o.dim == dim]
            remarks = ["constant"] if field.constant[dim] else []
            if found:
                remarks.append(f"{len(found)} outlier{'s' if len(found) > 1 else ''}")
            values = (v[dim] for v in (m.min, m.max, m.mean, m.std))
            shown = "" if name == str(dim) else name
            rows.append([str(dim), shown, *map(number, values), ", ".join(remarks)])
        yield Table(short(field.path), columns, rows, ("name", "remarks"))


def cameras(summary: Summary) -> Table:
    columns = ("camera", "size", "codec", "episodes", "absent", "still", "one colour")
    rows = []
    for c in summary.cameras:
        seen = sum(c.sizes.values())
        counts = [str(n) if n else "" for n in (c.absent, c.still, c.blank)]
        rows.append([short(c.path), _counted(c.sizes), _counted(c.codecs), str(seen), *counts])
    note = (
        "episodes with pictures; absent: without; still, one colour: pictures in no video that are "
        "the same in all steps of an episode; videos are decoded in the episodes shown only"
    )
    return Table("Cameras", columns, rows, ("camera", "size", "codec"), note)


def texts(summary: Summary, most: int) -> Iterator[Table]:
    """A table for each field of texts, with its ``most`` frequent ones."""
    for field in summary.texts:
        rows = [
            [str(n), one_line(text) or "(empty)"] for text, n in list(field.counts.items())[:most]
        ]
        left = len(field.counts) - len(rows)
        note = f"and {left}{' or more' if field.more else ''} others" if left or field.more else ""
        title = f"{short(field.path)}: {len(field.counts)}{'+' if field.more else ''} different"
        yield Table(title, ("episodes", "text"), rows, ("text",), note)


def problems(summary: Summary, most: int) -> Table:
    """What is wrong, with ``most`` examples of each kind."""
    rows = []
    for problem in summary.problems:
        for i, (episode, text) in enumerate(problem.examples[:most]):
            hit = str(problem.episodes or "") if i == 0 else ""
            kind = problem.kind if i == 0 else ""
            what = one_line(text.replace(f"{summary.directory}/", ""))
            rows.append([kind, hit, "" if episode is None else str(episode), what])
        more = max(problem.episodes, len(problem.examples)) - len(problem.examples[:most])
        if more > 0:
            rows.append(["", "", "", f"and {more} more"])
    columns = ("problem", "episodes", "episode", "what")
    return Table("What is wrong", columns, rows, ("problem", "what"))


def number(value: float) -> str:
    return f"{value:.5g}"


def one_line(text: str) -> str:
    return " ".join(str(text).split())


def _counted(counts):
    if len(counts) < 2:
        return ", ".join(counts)
    return ", ".join(f"{name} ({n})" for name, n in counts.items())


def _count(value: int) -> str:
    return f"{value:,}".replace(",", " ")
