"""Times calls in turn; needs NumPy alone, as what an accelerator runs may have little else."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


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
