"""What a process holds: memory and descriptors."""

import math
import os
import pathlib

import numpy as np
from scipy import special


def footprint() -> dict[str, float]:
    """This process's "memory" in MiB, its part of what it shares, and open "descriptors"."""
    memory = 0.0
    for line in pathlib.Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith(("Pss_Anon:", "Pss_File:")):
            memory += int(line.split()[1]) / 1024
    return {"memory": memory, "descriptors": len(os.listdir("/proc/self/fd"))}


def slope(values: list[float], width: float) -> tuple[float, float]:
    """Slope of the least-squares line through values ``width`` apart, and half its 95% interval.

    By Student's t, as if the residuals were independent.
    """
    x = np.arange(len(values)) * width
    x, y = x - x.mean(), np.asarray(values) - np.mean(values)
    rise = float(x @ y / (x @ x))
    error = math.sqrt(((y - rise * x) ** 2).sum() / (len(x) - 2) / (x @ x))
    return rise, float(special.stdtrit(len(x) - 2, 0.975)) * error
