import mmap
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest

from ambient_jax.data import images
from experiments.benchmarks import processes


def test_the_slope_of_a_line_and_of_noise_around_it():
    line = 5 + 3 * 0.25 * np.arange(10)
    assert processes.slope(line, 0.25) == pytest.approx((3, 0), abs=1e-9)
    noise = np.random.default_rng(0).normal(size=(500, 10))
    found = np.array([processes.slope(line + e, 0.25) for e in noise])
    inside = np.mean(np.abs(found[:, 0] - 3) < found[:, 1])
    assert abs(inside - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 500)


def test_what_is_held_is_counted_once():
    before = processes.footprint()
    with images.ImageDecoder((256, 256), workers=1, capacity=100, in_flight=2) as decoder:
        kept = mmap.mmap(-1, 200 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for _ in range(200):  # in small pieces, as freed memory stays with the process
            kept.write(b"1" * (1 << 20))
        decoder._memory.ring[:] = 1  # 37.5 MiB, mapped by both processes
        found = processes.footprint()
        assert processes.workers_of(os.getpid()) == [decoder._processes[0].pid]
    assert found["share"] == pytest.approx(37.5, abs=0.5)
    # Less the pages that the process may give back meanwhile, more what a decoder takes.
    assert found["loader"] - before["loader"] == pytest.approx(200, abs=40)
    assert 5 < found["workers"] < 60 and before["workers"] == 0
    assert found["all"] == found["share"] + found["loader"] + found["workers"]
    assert found["descriptors"] > before["descriptors"]


def test_processor_time_is_what_the_kernel_says():
    command = [sys.executable, "-c", "while True: pass"]
    with subprocess.Popen(command) as busy:
        try:
            while (seconds := processes.cpu_seconds([busy.pid])) < 0.2:
                time.sleep(0.02)
            stat = pathlib.Path(f"/proc/{busy.pid}/schedstat").read_text().split()
            assert 0 <= int(stat[0]) / 1e9 - seconds < 0.2
        finally:
            busy.kill()
