"""What processes cost: processor time, memory, descriptors."""

import os
import pathlib

import numpy as np
from scipy import stats


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    with open(f"/proc/{pid}/stat") as file:
        ticks = sum(map(int, file.read().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def footprint() -> dict[str, float]:
    """This process's "memory" in MiB, its part of what it shares, and open "descriptors"."""
    memory = 0.0
    for line in pathlib.Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith(("Pss_Anon:", "Pss_File:")):
            memory += int(line.split()[1]) / 1024
    return {"memory": memory, "descriptors": len(os.listdir("/proc/self/fd"))}


def slope(values: list[float], width: float) -> tuple[float, float]:
    """Returns the slope of the least-squares line through values at distances of ``width``, and
    half of its 95% interval (Student's t, as if residuals were independent)."""
    line = stats.linregress(np.arange(len(values)) * width, values)
    return float(line.slope), float(stats.t.ppf(0.975, len(values) - 2) * line.stderr)
