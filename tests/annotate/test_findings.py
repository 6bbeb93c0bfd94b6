"""Analyses that need no classifier of their own, on sources whose answers are known."""

import numpy as np
import pytest

from ambient_jax.annotate import findings
from tests.annotate.made import LEVELS, evidence


def counted(*lengths):
    """Episodes of actions (number of the step, of all)."""
    ends = np.cumsum(lengths)
    return [np.arange(e - n, e, dtype=float)[:, None] for e, n in zip(ends, lengths, strict=True)]


def test_chunks_lie_within_their_episodes():
    made = evidence({"a": (True, counted(6, 3, 4)), "b": (False, counted(5))}, horizon=4)
    first = findings.chunks_of(made, made.steps("a"))[:, 0, 0]
    assert first.tolist() == [0, 1, 2, 9]
    chunks = findings.chunks_of(made, made.steps("b"))
    np.testing.assert_array_equal(chunks[..., 0], np.arange(2)[:, None] + np.arange(4))
    some = findings.chunks_of(made, made.steps("a"), most=2)[:, 0, 0].tolist()
    assert len(some) == 2 and set(some) < {0, 1, 2, 9} and some == sorted(some)
    assert len(findings.chunks_of(made, made.steps("a"), most=4)) == 4


def test_bucket_noise_falls_as_the_root_of_the_size():
    """P(clean) is a step whose height varies: sigma_min of a mean is linear in it here."""
    rng = np.random.default_rng(0)
    height = rng.uniform(0.3, 0.4, 6000)
    curves = np.where(LEVELS > 0.4, 0.5, height[:, None])
    made = evidence({"a": (True, counted(4)), "b": (False, counted(6000))}, {"b": curves})
    found = findings.bucket_noise(made)["b"]
    assert found["size"] == [1, 10, 100, 1000]
    alone = 0.3 + 0.2 * (0.45 - height) / (0.5 - height)  # between the levels 0.3 and 0.5
    np.testing.assert_allclose(found["mean"][0], alone.mean(), rtol=1e-6)
    np.testing.assert_allclose(found["std"][0], alone.std(), rtol=1e-6)
    np.testing.assert_allclose(found["std"][1:3], alone.std() / np.sqrt([10, 100]), rtol=0.25)


@pytest.mark.parametrize("count", [4, 12])
def test_sizes_of_buckets_leave_five_of_them(count):
    curves = np.tile(np.linspace(0, 0.5, len(LEVELS)), (count, 1))
    made = evidence({"a": (True, counted(4)), "b": (False, counted(count))}, {"b": curves})
    found = findings.bucket_noise(made)["b"]
    assert found["size"] == ([1] if count >= 5 else [])
    np.testing.assert_allclose(found["mean"], [0.82][: len(found["size"])])  # 0.45 is passed there
    np.testing.assert_allclose(found["std"], [0][: len(found["size"])], atol=1e-12)


def test_spectra_of_white_noise_and_of_its_sum():
    rng = np.random.default_rng(0)
    white = [rng.normal(size=(400, 2)) for _ in range(20)]
    walks = [np.cumsum(w, 0) for w in white]
    made = evidence({"a": (True, walks), "b": (False, white), "c": (False, walks)}, horizon=16)
    found = findings.spectra(made)
    frequency, sources = found["frequency"], found["sources"]
    np.testing.assert_allclose(frequency, np.arange(9) / 16)
    assert sources["a"]["exponent"] > sources["b"]["exponent"] + 1.2
    assert set(sources["a"]) == set(sources["b"]) - {"bound"}
    bound = sources["b"]["bound"]
    assert bound.shape == LEVELS.shape and (np.diff(bound) <= 0).all() and bound[0] > 0.9
    np.testing.assert_allclose(sources["c"]["bound"], 0, atol=1e-6)  # the same chunks


def test_spectra_of_sources_that_stand_still_have_no_power_law():
    still = [np.ones((9, 1))] * 2
    found = findings.spectra(evidence({"a": (True, still), "b": (False, still)}))["sources"]
    assert set(found["a"]) == {"psd"} and set(found["b"]) == {"psd", "bound"}
    np.testing.assert_allclose(found["b"]["bound"], 0)
