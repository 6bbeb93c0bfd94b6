import mmap

import numpy as np
import pytest

from experiments.benchmarks import harness, library, sweep


def test_the_ratio_is_the_median_of_pairs_with_an_interval_around_it():
    seconds = np.array([[1.0, 2.0, 4.0, 1.0], [1.1, 2.2, 4.4, 9.0]])
    middle, low, high = harness.ratio(seconds)
    assert middle == pytest.approx(1.1)
    assert low <= middle <= high <= 9


def test_functions_are_called_in_turn_after_one_warm_up():
    calls = []
    seconds = harness.interleaved([lambda: calls.append("a"), lambda: calls.append("b")], 3)
    assert calls == ["a", "b"] * 4 and seconds.shape == (2, 3)


def test_the_slope_of_a_line_and_of_noise_around_it():
    line = 5 + 3 * 0.25 * np.arange(10)
    assert harness.slope(line, 0.25) == pytest.approx((3, 0), abs=1e-9)
    noise = np.random.default_rng(0).normal(size=(500, 10))
    measured = np.array([harness.slope(line + e, 0.25) for e in noise])
    inside = np.mean(np.abs(measured[:, 0] - 3) < measured[:, 1])
    assert abs(inside - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 500)


def test_memory_and_descriptors_are_counted():
    before = harness.footprint()
    kept = mmap.mmap(-1, 200 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for _ in range(200):  # in small pieces, as freed memory stays with the process
        kept.write(b"1" * (1 << 20))
    with open(__file__):
        measured = harness.footprint()
    # Less the pages that the process may give back meanwhile.
    assert measured["memory"] - before["memory"] == pytest.approx(200, abs=40)
    assert measured["descriptors"] > before["descriptors"]


@pytest.mark.slow
def test_rows_are_made_by_running_what_they_name():
    row = library.loss_row(batch=4, repeats=2, features=(8,))
    assert row[0].startswith("ambient step") and float(row[1].split()[0]) > 0
    assert "chunks/s" in library.latency_row(2, steps=2, repeats=1, features=(8,))[2]


@pytest.mark.slow
def test_the_sweep_row_is_made_by_training():
    row = sweep.sweep_row(2, batch=4, repeats=2, features=(8,))
    assert row[0].startswith("2 policies together") and 0 < float(row[1].split()[0]) < 10
