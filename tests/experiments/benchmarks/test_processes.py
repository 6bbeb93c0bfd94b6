import mmap

import numpy as np
import pytest

from experiments.benchmarks import processes


def test_the_slope_of_a_line_and_of_noise_around_it():
    line = 5 + 3 * 0.25 * np.arange(10)
    assert processes.slope(line, 0.25) == pytest.approx((3, 0), abs=1e-9)
    noise = np.random.default_rng(0).normal(size=(500, 10))
    found = np.array([processes.slope(line + e, 0.25) for e in noise])
    inside = np.mean(np.abs(found[:, 0] - 3) < found[:, 1])
    assert abs(inside - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 500)


def test_memory_and_descriptors_are_counted():
    before = processes.footprint()
    kept = mmap.mmap(-1, 200 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for _ in range(200):  # in small pieces, as freed memory stays with the process
        kept.write(b"1" * (1 << 20))
    with open(__file__):
        found = processes.footprint()
    # Less the pages that the process may give back meanwhile.
    assert found["memory"] - before["memory"] == pytest.approx(200, abs=40)
    assert found["descriptors"] > before["descriptors"]
