"""Groups: a source, or the steps of a source that share their bounds."""

import types

import numpy as np
import pytest

from ambient_jax import mixing
from ambient_jax.data import bounds, groups

LENGTHS = {"clean": [3], "free": [2, 2], "bound": [2, 0, 3]}  # steps of each episode
IDS = {"clean": [0], "free": [0, 1], "bound": [7, 8, 9]}


def cut(low=None, high=None, fingerprint="of bound", ids=IDS["bound"]):
    """Groups with a bounds file of five steps, by default of one pair of bounds."""
    names = tuple(LENGTHS)
    sources = mixing.make_sources([1, 2, 5], [True, False, False], [0, 0.4, 0], [0, 0.2, 0])
    datasets = {
        n: types.SimpleNamespace(episode_ids=np.array(IDS[n]), fingerprint=f"of {n}") for n in names
    }
    statistics = {n: types.SimpleNamespace(lengths=np.array(LENGTHS[n])) for n in names}
    episode, step = np.repeat(ids, LENGTHS["bound"]), [0, 1, 0, 1, 2]
    low, high = (np.full(5, v) if np.ndim(v) == 0 else np.array(v) for v in (low or 0.5, high or 0))
    order = [3, 1, 4, 0, 2]  # a file's rows may come in any order
    columns = (np.asarray(c)[order] for c in (episode, step, low, high))
    file = bounds.for_source("bound", fingerprint, *columns, method="test")
    return groups.cut(names, sources, datasets, statistics, {"bound": file})


def test_a_source_without_a_file_is_one_group():
    found = cut()
    assert found.owner.tolist() == [0, 1, 2] and found.within.tolist() == [0, 0, 0]
    assert found.of_step[:2] == (None, None) and found.of_step[2].tolist() == [0] * 5
    np.testing.assert_allclose(found.sources.weight, [1 / 8, 2 / 8, 5 / 8])
    np.testing.assert_allclose(found.sources.sigma_min, [0, 0.4, 0.5])
    np.testing.assert_allclose(found.sources.sigma_max, [0, 0.2, 0], atol=1e-7)
    assert np.asarray(found.sources.clean).tolist() == [True, False, False]


def test_steps_of_a_pair_of_bounds_share_a_group_by_their_number():
    found = cut(low=[0.5, 0.25, 0.5, 0.5, 0.25], high=[0.125, 0, 0, 0.125, 0])
    # (0.25, 0), (0.5, 0), (0.5, 0.125): two, one and two of five steps.
    assert found.of_step[2].tolist() == [2, 0, 1, 2, 0]
    assert found.owner.tolist() == [0, 1, 2, 2, 2] and found.within.tolist() == [0, 0, 0, 1, 2]
    np.testing.assert_allclose(found.sources.weight, np.array([5, 10, 10, 5, 10]) / 40)
    np.testing.assert_allclose(found.sources.sigma_min[2:], [0.25, 0.5, 0.5])
    np.testing.assert_allclose(found.sources.sigma_max[2:], [0, 0, 0.125])
    assert found.owner.dtype == found.within.dtype == np.int32


def test_a_file_of_other_data_or_of_too_many_bounds_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="were made on other data"):
        cut(fingerprint="of others")
    with pytest.raises(ValueError, match="3 of 5 steps of source 'bound' have no bounds"):
        cut(ids=[7, 8, 10])
    monkeypatch.setattr(groups, "MAX_GROUPS", 2)
    low = [0.5, 0.25, 0.5, 0.5, 0.25]
    assert len(cut(low=low).owner) == 4
    with pytest.raises(ValueError, match="'bound' has 3 different pairs of bounds, .*at most 2"):
        cut(low=[0.5, 0.25, 0.5, 0.75, 0.25])
