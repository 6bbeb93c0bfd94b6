"""What all benchmarks share: calls in turn, ratios with intervals, fresh processes, the table."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ambient_jax.cli import report
from ambient_jax.estimates import bootstrap


def interleaved(functions: Sequence[Callable[[], Any]], repeats: int) -> np.ndarray:
    """Returns seconds [functions, repeats] of calls in turn: a busy machine slows all alike."""
    for function in functions:
        function()
    seconds = np.zeros((len(functions), repeats))
    for repeat in range(repeats):
        for row, function in zip(seconds, functions, strict=True):
            begin = time.perf_counter()
            function()
            row[repeat] = time.perf_counter() - begin
    return seconds


def ratio(seconds: np.ndarray) -> tuple[float, float, float]:
    """Returns the median over repeats of second / first, and the median's 95% interval."""
    ratios = seconds[1] / seconds[0]
    return float(np.median(ratios)), *bootstrap(np.median, ratios)


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
