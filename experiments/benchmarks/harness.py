"""What benchmarks share: calls in turn, ratios with intervals, fresh processes, their memory."""

import multiprocessing
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from scipy import stats

from ambient_jax.cli import report
from ambient_jax.data import write
from ambient_jax.estimates import bootstrap
from experiments.benchmarks.timing import interleaved as interleaved


def chained(step: Callable[[Any], Any], state: Any) -> Callable[[], None]:
    """Returns a call that runs ``state = step(state)`` and waits for it."""

    def run():
        nonlocal state
        state = jax.block_until_ready(step(state))

    return run


def ratio(seconds: np.ndarray) -> tuple[float, float, float]:
    """Returns the median over repeats of second / first, and the median's 95% interval."""
    ratios = seconds[1] / seconds[0]
    return float(np.median(ratios)), *bootstrap(np.median, ratios)


def ratio_cell(seconds: np.ndarray, digits: int = 2) -> str:
    """Returns ``ratio`` as it stands in the tables."""
    middle, low, high = (f"{value:.{digits}f}" for value in ratio(seconds))
    return f"{middle} ({low} to {high})"


def in_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns the result of a call in a fresh process, whose memory holds nothing else."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def widths(features: Sequence[int]) -> str:
    """Returns a U-Net's widths as they stand in the tables, such as 32-64-128."""
    return "-".join(map(str, features))


def table(rows: Sequence[Sequence[str]]) -> str:
    """Returns rows of (measure, value, note) as markdown."""
    return report.markdown(("measure", "value", "note"), rows)


def write_sources(
    root: str, file_format: str, features: Any, episodes: Mapping[str, Sequence[dict[str, Any]]]
) -> None:
    """Writes a data set of each name's episodes, of four shards, to ``<root>/<file_format>``."""
    for name, rows in episodes.items():
        write.write_dataset(
            os.path.join(root, file_format),
            name=name,
            version="1.0.0",
            features=features,
            episodes=rows,
            file_format=file_format,
            shards=4,
        )


def footprint() -> dict[str, float]:
    """Returns this process's "memory" in MiB, with its part of shared, and open "descriptors"."""
    memory = 0.0
    for line in pathlib.Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith(("Pss_Anon:", "Pss_File:")):
            memory += int(line.split()[1]) / 1024
    return {"memory": memory, "descriptors": len(os.listdir("/proc/self/fd"))}


def slope(values: list[float], width: float) -> tuple[float, float]:
    """Fits a line to values ``width`` apart; returns its slope and half its 95% interval.

    By Student's t, as if the residuals were independent.
    """
    line = stats.linregress(np.arange(len(values)) * width, values)
    return float(line.slope), float(stats.t.ppf(0.975, len(values) - 2) * line.stderr)
