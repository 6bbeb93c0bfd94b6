"""What a process holds: memory and descriptors."""

import os
import pathlib

import numpy as np
from scipy import stats


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
    line = stats.linregress(np.arange(len(values)) * width, values)
    return float(line.slope), float(stats.t.ppf(0.975, len(values) - 2) * line.stderr)
