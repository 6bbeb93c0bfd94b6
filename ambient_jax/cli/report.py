"""Writes reports: a table as markdown and JSON, and the loss of a run as a figure."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ambient_jax.data.paths import write_text
from ambient_jax.train import checkpoint

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plain(value: Any) -> Any:
    """Returns dataclasses, arrays and tuples as JSON values; NaN as None."""
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a markdown table, padded for reading in a terminal."""
    cells = [list(columns), *[[str(c) for c in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    cells = [[c.ljust(w) for c, w in zip(row, widths, strict=True)] for row in cells]
    head, *body = (f"| {' | '.join(row)} |" for row in cells)
    return "\n".join([head, f"|{'|'.join('-' * (w + 2) for w in widths)}|", *body])


def write(
    directory: pathlib.Path,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: str,
    results: dict[str, Any],
) -> str:
    """Writes ``table.md`` and ``results.json`` (with the code's revision); returns the table.

    Each file is written whole or not at all, ``results.json`` last.
    """
    directory.mkdir(parents=True, exist_ok=True)
    table = f"{markdown(columns, rows)}\n\n{caption}\n"
    content = {**plain(results), "git_revision": checkpoint.git_revision()}
    write_text(directory / "table.md", table)
    write_text(directory / "results.json", json.dumps(content, indent=2) + "\n")
    return table


def read(path: str | os.PathLike) -> dict[str, Any]:
    """Returns the content of a report's ``results.json``. Raises FileNotFoundError if it is absent,
    and ValueError unless it is a JSON object."""
    try:
        return dict(json.loads(pathlib.Path(path).read_bytes()))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path} is no report, or damaged ({error}): delete it, and repeat the command that "
            "wrote it"
        ) from error


def loss_figure(history: Sequence[dict[str, Any]]) -> Figure:
    """Draws the loss against the step, a curve per noise-level bin, from ``metrics.jsonl`` rows."""
    # Imported here, as tables do not need it.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    bins = sorted({k for row in history for k in row if k.startswith("loss_sigma/")})
    for name in bins:
        points = [(row["step"], row[name]) for row in history if name in row]
        low, _, high = name.removeprefix("loss_sigma/").partition("-")
        colour = (0.1 + 0.75 * float(low), 0.3, 0.85 - 0.75 * float(low))
        label = rf"$\sigma$ {low} to {high}"
        axes.plot(*zip(*points, strict=True), color=colour, lw=1, label=label)
    axes.set(xlabel="step", ylabel="loss per noise level", yscale="log")
    axes.grid(alpha=0.3)
    if bins:
        axes.legend(fontsize=7, ncols=1, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
