"""The page about a data set, as text for a terminal and as HTML of one file."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from ambient_jax.data.look import plots, tables
from ambient_jax.data.look.cameras import short
from ambient_jax.data.look.fields import Numbers
from ambient_jax.data.look.samples import Sample
from ambient_jax.data.look.style import STYLE
from ambient_jax.data.look.summary import Summary
from ambient_jax.data.look.tables import Table

_NOTHING = "nothing was found"
# No script, and nothing from a network: a page of foreign data can do nothing.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def text(summary: Summary) -> str:
    """The page for a terminal."""
    rows = tables.facts(summary)
    width = max(len(name) for name, _ in rows)
    parts = ["\n".join(f"{name.ljust(width)}  {_plain(value)}" for name, value in rows)]
    parts[0] += f"\n{'folder'.ljust(width)}  {summary.directory}"
    listed = [tables.fields(summary)]
    listed += [*tables.dimensions(summary), tables.cameras(summary), *tables.texts(summary, 5)]
    parts += [_text_table(table) for table in listed if table.rows]
    wrong = tables.problems(summary, 5)
    parts.append(_text_table(wrong, 400) if wrong.rows else f"{wrong.title}: {_NOTHING}")
    return "\n\n".join(parts)


def _plain(value):
    """Without control characters, which a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in value)


def _text_table(table: Table, most: int = 110) -> str:
    used = [i for i, _ in enumerate(table.columns) if any(row[i] for row in table.rows)]
    cells = [[table.columns[i] for i in used]]
    cells += [[_cut(_plain(row[i]), most) for i in used] for row in table.rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(used))]
    left = [table.columns[i] in table.words for i in used]
    lines = [
        "  ".join(
            c.ljust(w) if words else c.rjust(w)
            for c, w, words in zip(row, widths, left, strict=True)
        ).rstrip()
        for row in cells
    ]
    rule = "-" * min(110, max(map(len, lines)))
    return "\n".join([table.title, rule, *lines, *([table.note] if table.note else [])])


def _cut(line, most):
    return line if len(line) <= most else f"{line[: most - 3]}..."


def html(summary: Summary, samples: Sequence[Sample]) -> str:
    """The page as HTML that needs no other file and no network."""
    name = escape(summary.name)
    body = [
        f"<header><h1>{name}</h1><p>{_subtitle(summary)}</p></header>",
        _cards(summary),
        _wrong(summary),
        _section("Episodes", _episodes(summary, samples)) if samples else "",
        _section("Fields over time", _curves(summary, samples)) if samples else "",
        _section("Fields", _fields(summary)),
        _section("Cameras", _table(tables.cameras(summary))) if summary.cameras else "",
        _section("Language and other texts", _texts(summary)) if summary.texts else "",
        _section("Lengths", _lengths(summary)) if len(summary.lengths) else "",
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head>\n<body><main>\n{chr(10).join(filter(None, body))}\n"
        "</main></body></html>\n"
    )


def _subtitle(s):
    return escape(" · ".join([f"{s.format} {s.version}", f"split {s.split}", s.directory]))


def _section(title, content):
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def _cards(summary: Summary) -> str:
    s, m = summary, summary.motion
    hours = [("hours", f"{s.hours:.2f}")] if s.hours is not None else []
    cards = [
        ("episodes", f"{s.episodes:,}"),
        ("steps", f"{s.steps:,}"),
        ("rate", f"{s.hz:g} Hz" if s.hz else "unknown"),
        *hours,
    ]
    if len(s.lengths):
        cards.append(("median length", f"{np.median(s.lengths):g} steps"))
    if m:
        cards.append(("idle steps", f"{100 * m.idle:.1f} %"))
        cards.append(("squared jerk", f"{m.median_jerk:#.3g}"))
    tiles = "".join(
        f'<div class="card"><b>{escape(value)}</b><span>{escape(label)}</span></div>'
        for label, value in cards
    )
    lines = [f"Jerk: {tables.jerk(m, s.hz)}.", f"Idle: {tables.idle(m)}."] if m else []
    notes = "".join(f"<p class=note>{escape(line)}</p>" for line in lines)
    return f'<div class="cards">{tiles}</div>{notes}'


def _wrong(summary: Summary) -> str:
    table = tables.problems(summary, 10)
    if not table.rows:
        return f'<section><h2>{table.title}</h2><p class="good">Nothing was found.</p></section>'
    return _section(table.title, _table(table))


def _table(table: Table) -> str:
    used = [i for i, _ in enumerate(table.columns) if any(row[i] for row in table.rows)]
    kinds = ["word" if table.columns[i] in table.words else "figure" for i in used]
    head = "".join(
        f'<th class="{kind}">{escape(table.columns[i])}</th>'
        for i, kind in zip(used, kinds, strict=True)
    )
    rows = "".join(
        "<tr>"
        + "".join(
            f'<td class="{kind}">{escape(row[i])}</td>' for i, kind in zip(used, kinds, strict=True)
        )
        + "</tr>"
        for row in table.rows
    )
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
        f"</div>{note}"
    )


def _fields(summary: Summary) -> str:
    parts = [_table(tables.fields(summary))]
    for table in tables.dimensions(summary):
        parts.append(
            f"<details><summary>{escape(table.title)}: {len(table.rows)} dimensions</summary>"
            f"{_table(table)}</details>"
        )
    return "".join(parts)


def _texts(summary: Summary) -> str:
    parts = [f"<h3>{escape(t.title)}</h3>{_table(t)}" for t in tables.texts(summary, 50)]
    return "".join(parts)


def _lengths(summary: Summary) -> str:
    line = escape(tables.lengths_line(summary.lengths))
    return f"<p>{line}</p>{plots.histogram(summary.lengths, 'steps of an episode')}"


def _episodes(summary: Summary, samples: Iterable[Sample]) -> str:
    parts = []
    for i, sample in enumerate(samples):
        time = f", {sample.length / summary.hz:.1f} s" if summary.hz else ""
        said = f" <q>{escape(sample.instruction)}</q>" if sample.instruction.strip() else ""
        strips = "".join(_strip(path, shown) for path, shown in sample.pictures.items())
        parts.append(
            f"<article><h3>{_swatch(i)}Episode {sample.episode} <small>{sample.length} steps"
            f"{time}</small>{said}</h3>{strips}</article>"
        )
    return "".join(parts)


def _strip(path: str, shown: tuple[tuple[int, bytes], ...] | str) -> str:
    label = f'<span class="camera">{escape(short(path))}</span>'
    if isinstance(shown, str):
        return f'<div class="strip">{label}<span class="none">{escape(shown)}</span></div>'
    pictures = "".join(
        f'<figure><img src="data:image/jpeg;base64,{base64.b64encode(blob).decode()}" '
        f'alt="{escape(short(path))} at step {step}"><figcaption>step {step}</figcaption></figure>'
        for step, blob in shown
    )
    return f'<div class="strip">{label}<div class="pictures">{pictures}</div></div>'


def _curves(summary: Summary, samples: Sequence[Sample]) -> str:
    key = "".join(f"<span>{_swatch(i)}episode {s.episode}</span>" for i, s in enumerate(samples))
    parts = [f'<p class="key">{key}</p>']
    unit, scale = ("s", 1 / summary.hz) if summary.hz else ("steps", 1.0)
    for field in summary.numbers:
        having = [s for s in samples if field.path in s.curves]
        if not having or field.constant.all():
            continue
        times = [s.steps * scale if s in having else np.zeros(0) for s in samples]
        panels = []
        for dim in np.flatnonzero(~field.constant).tolist():
            none = np.zeros(0)
            values = [s.curves[field.path][:, dim] if s in having else none for s in samples]
            name = field.name_of(dim)
            title = f"{dim} {name}" if name != str(dim) else name
            title = short(field.path) if len(field.constant) == 1 else title
            series = [(t, v.astype(np.float64)) for t, v in zip(times, values, strict=True)]
            panels.append(plots.curves(series, title, unit))
        many = len(field.constant)
        count = f" <small>{many} dimensions</small>" if many > 1 else ""
        opened = " open" if len(parts) < 3 else ""
        parts.append(
            f"<details{opened}><summary>{escape(short(field.path))}{count}</summary>"
            f'<div class="panels">{"".join(panels)}</div>{_constants(field)}</details>'
        )
    return "".join(parts)


def _constants(field: Numbers) -> str:
    dims = np.flatnonzero(field.constant).tolist()
    if not dims or field.moments is None:
        return ""
    values = ", ".join(f"{field.name_of(d)} = {field.moments.mean[d]:.4g}" for d in dims)
    return f'<p class="note">Constant: {escape(values)}</p>'


def _swatch(index: int) -> str:
    return f'<i class="swatch" style="background:{plots.colour(index)}"></i>'
