"""What processes cost: processor time, memory, descriptors."""

import os
import pathlib

import numpy as np
from scipy import stats


def workers_of(pid: int) -> list[int]:
    """Processes that decode images for this one."""
    found = []
    for path in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        for child in path.read_text().split():
            if b"image_worker" in pathlib.Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of some processes."""
    ticks = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as file:
            ticks += sum(map(int, file.read().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def footprint() -> dict[str, float]:
    """MiB of this process ("loader"), its "workers" and the file they "share"; descriptors."""
    files, shared = os.listdir("/proc/self/fd"), {}
    for number in files:
        try:
            if os.readlink(f"/proc/self/fd/{number}").startswith("/memfd:images"):
                found = os.stat(f"/proc/self/fd/{number}")
                shared[found.st_ino] = found.st_blocks * 512  # a mapping has a descriptor too
        except FileNotFoundError:  # the descriptor of the listing itself
            pass
    found = {"share": sum(shared.values()) / 2**20, "descriptors": len(files)}
    for name, pids in (("loader", [os.getpid()]), ("workers", workers_of(os.getpid()))):
        found[name] = 0.0
        for pid in pids:
            for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith(("Pss_Anon:", "Pss_File:")):
                    found[name] += int(line.split()[1]) / 1024
    return found | {"all": found["share"] + found["loader"] + found["workers"]}


def slope(values: list[float], width: float) -> tuple[float, float]:
    """Returns the slope of the least-squares line through values at distances of ``width``, and
    half of its 95% interval (Student's t, as if residuals were independent)."""
    line = stats.linregress(np.arange(len(values)) * width, values)
    return float(line.slope), float(stats.t.ppf(0.975, len(values) - 2) * line.stderr)
