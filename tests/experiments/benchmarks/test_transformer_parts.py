"""The parts of the transformer's step: their gradients, and the sums of the table."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import transformer_parts as parts


def test_a_part_is_timed_with_its_gradient():
    x, w = parts.arrays((3, 2), (2, 4))
    y, (of_x, of_w) = parts.with_gradient(lambda x, w: x @ w)(x, w)
    np.testing.assert_allclose(of_x, y @ w.T, rtol=1e-6)  # the output is its own cotangent
    np.testing.assert_allclose(of_w, x.T @ y, rtol=1e-6)


def test_processor_time_without_compilation():
    x = jnp.ones((600, 600))
    assert (
        0
        < parts.milliseconds(2, lambda x: x + 1, x)
        < parts.milliseconds(2, lambda x: x @ x @ x @ x, x)
    )


def test_the_table_sums_up_to_the_step(monkeypatch):
    # Of a small network: its parts are the same.
    monkeypatch.setattr(parts, "WIDTH", 16)
    monkeypatch.setattr(parts, "DEPTH", 2)
    rows = parts.table(batch=4, repeats=1)
    assert all(len(row) == len(parts.COLUMNS) for row in rows)
    names, times, each, a_step, _ = zip(*rows, strict=True)
    total = float(a_step[-1])
    assert sum(map(float, a_step[:-1])) == pytest.approx(total, abs=0.05 * len(rows))
    measured = dict(zip(names, zip(times, each, strict=True), strict=True))
    assert measured["products of the MLP"][0] == "2"
    assert measured["layer norm, scale and shift"][0] == "5"  # two a block and the last one
    assert all(float(ms) >= 0 for name, (_, ms) in measured.items() if ms and "rest" not in name)
