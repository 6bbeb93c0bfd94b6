"""From curves of P(clean) to bounds of every step, as a table that can be written and joined."""

import numpy as np
import pytest

from ambient_jax.annotate import annotation, buckets
from ambient_jax.annotate.evidence import grid
from ambient_jax.data import bounds
from tests.annotate.made import LEVELS, evidence

CLEAN = (True, [np.zeros((4, 1))] * 2)
# Of six steps in two episodes: where each curve passes 0.45 is known.
PASSES = np.array([0.2, 0.2, 0.4, 0.4, 0.6, 1.0])
CURVES = np.where(LEVELS > PASSES[:, None], 0.5, 0.0)
CORRUPT = (False, [np.zeros((4, 1)), np.zeros((2, 1))])


def decided(granularity, sigma_max=0.0, curves=CURVES, **options):
    made = evidence(
        {"a": CLEAN, "b": CORRUPT}, {"b": curves}, granularity=(granularity,), **options
    )
    return made, *annotation.decide(made, "b", granularity, sigma_max)


def crossing(curve, tau=0.05):
    """Where a curve that rises passes 0.5 - tau, linear between levels; 1 if it does not."""
    above = np.flatnonzero(curve > 0.5 - tau)
    if not len(above):
        return 1.0
    last = above[0]
    return np.interp(0.5 - tau, curve[last - 1 : last + 1], LEVELS[last - 1 : last + 1])


def rounded(low):
    """Up to the next level of 64; 1 above all."""
    return next((level for level in grid(64) if level >= np.float32(low)), 1.0) if low < 1 else 1.0


def test_every_step_alone_has_the_level_of_its_own_curve():
    made, low, table = decided("datapoint")
    want = [rounded(crossing(c)) for c in CURVES]
    np.testing.assert_allclose(low, want, atol=1e-6)
    np.testing.assert_allclose(bounds.lookup(table, "b", *table_ids()).sigma_min, want, atol=1e-6)
    assert want[-1] == 1.0 and len(set(want)) == 4
    assert table.fingerprints == {"b": "print of b"} and table.method == "classifier"
    assert table.how["granularity"] == "datapoint" and table.how["levels"] == LEVELS.tolist()


def table_ids():
    return np.array([10, 10, 10, 10, 11, 11]), np.array([0, 1, 2, 3, 0, 1])


@pytest.mark.parametrize(
    ("granularity", "units"), [("dataset", [0] * 6), ("episode", [0, 0, 0, 0, 1, 1])]
)
def test_steps_of_a_unit_share_the_level_of_its_mean_curve(granularity, units):
    _, low, table = decided(granularity)
    means = [CURVES[np.array(units) == u].mean(0) for u in range(max(units) + 1)]
    want = np.array([rounded(crossing(m)) for m in means])
    np.testing.assert_allclose(low, want, atol=1e-6)
    np.testing.assert_allclose(table.sigma_min, want[units], atol=1e-6)
    np.testing.assert_array_equal(np.stack([table.episode, table.step]), table_ids())


def test_rejection_admits_each_step_by_its_own_lot():
    curves = np.tile(np.linspace(0.05, 0.45, len(LEVELS)), (6, 1))
    _, low, table = decided("rejection", curves=curves)
    lot = buckets.lots("b", *table_ids())  # the seed of the evidence is 0
    threshold = np.minimum(lot / (1 + lot), 0.45)
    want = np.interp(threshold, curves[0], LEVELS, left=0.0, right=1.0)
    np.testing.assert_allclose(low, [rounded(level) if level else 0 for level in want], atol=1e-6)
    np.testing.assert_allclose(table.sigma_min, low, atol=1e-6)
    assert len(set(low.tolist())) > 3 and table.how["granularity"] == "rejection"


def test_a_size_is_that_of_the_granularity_or_of_the_options():
    for granularity, bucket, count in (("random:2", 100, 3), ("random", 3, 2), ("random", 9, 1)):
        assert len(decided(granularity, bucket=bucket)[1]) == count
    _, low, table = decided("ordered:2")
    assert sorted(low) == low.tolist() and sorted(table.sigma_min) == table.sigma_min.tolist()


def test_what_is_judged_in_part_bounds_every_step():
    made = evidence({"a": CLEAN, "b": CORRUPT}, {"b": CURVES[:3]}, granularity=("dataset",))
    low, table = annotation.decide(made, "b", "dataset", 0.0)
    assert len(table) == 6 and len(set(table.sigma_min.tolist())) == len(low) == 1
    np.testing.assert_allclose(low, rounded(crossing(CURVES[:3].mean(0))), atol=1e-6)


def test_sigma_max_never_passes_sigma_min_but_where_all_levels_are_admitted():
    looks_clean = np.full((6, len(LEVELS)), 0.5)
    curves = np.where(np.arange(6)[:, None] < 2, looks_clean, CURVES)
    _, low, table = decided("datapoint", 0.75, curves)
    assert (low[:2] == 0).all() and (table.sigma_max[:2] == 1).all()
    np.testing.assert_allclose(table.sigma_max[2:], np.minimum(0.75, low[2:]), atol=1e-6)
    assert table.sigma_max[2] < 0.75 == table.sigma_max[5]


def test_a_warning_says_that_nothing_is_admitted(caplog):
    decided("dataset", curves=np.zeros((6, len(LEVELS))))
    assert "b looks corrupt at every noise level (dataset)" in caplog.text


def test_tables_are_written_by_granularity_and_read_back(tmp_path):
    tables = {g: decided(g)[2] for g in ("dataset", "random:2")}
    made = annotation.Annotations(tables, {}, {"b": 0.0}, decided("dataset")[0], None, None)
    paths = made.write(tmp_path / "bounds")
    assert {g: p.name for g, p in paths.items()} == {
        "dataset": "dataset.parquet",
        "random:2": "random_2.parquet",
    }
    for granularity, path in paths.items():
        found = bounds.read(path)
        np.testing.assert_array_equal(found.sigma_min, tables[granularity].sigma_min)
        np.testing.assert_array_equal(found.sigma_max, tables[granularity].sigma_max)
