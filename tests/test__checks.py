import jax
import numpy as np
import pytest

from ambient_jax import _checks


def test_the_nearest_name_is_suggested_and_nothing_far():
    assert _checks.nearest("cosin", ["vp", "cosine"]) == "; did you mean 'cosine'?"
    assert _checks.nearest("xyz", ["vp", "cosine"]) == ""


def test_one_of():
    _checks.one_of("law", "a", ["a", "b"])
    with pytest.raises(ValueError, match="law is 'c', expected one of a, b"):
        _checks.one_of("law", "c", ["a", "b"])


def test_one_of_many_names_the_first_and_the_nearest():
    names = [f"bridge_{i}" for i in range(39)] + ["fractal", "kuka", "taco_play"]
    with pytest.raises(ValueError, match="bridge_38, fractal and 2 more; did you mean 'taco_play'"):
        _checks.one_of("data set", "taco_plays", names)
    with pytest.raises(ValueError, match="bridge_38, fractal; did you mean 'fractal'"):
        _checks.one_of("data set", "fractals", names[:40])


def test_same_shape_names_the_odd_one_and_skips_none():
    _checks.same_shape(h=np.zeros((2, 3)), x0=np.zeros((2, 3)), mask=None)
    with pytest.raises(ValueError, match=r"x0 has shape \(3,\), expected h's \(2, 3\)"):
        _checks.same_shape(h=np.zeros((2, 3)), x0=np.zeros(3))


def test_scalar():
    _checks.scalar(sigma=0.3, sigma_min=np.float32(0.1), sigma_max=None)
    with pytest.raises(ValueError, match=r"sigma has shape \(4,\), expected a scalar"):
        _checks.scalar(sigma=np.zeros(4))


def test_keys_of_either_kind_and_seeds_are_one_key():
    """jax.random.key is the stock definition; the old kind is its data."""
    want = jax.random.key_data(jax.random.key(7))
    for given in (7, np.int64(7), jax.random.key(7), jax.random.PRNGKey(7)):
        np.testing.assert_array_equal(jax.random.key_data(_checks.key(given)), want)
    old = np.asarray(jax.random.split(jax.random.PRNGKey(7), 3))
    assert _checks.key(old).shape == (3,)
    np.testing.assert_array_equal(jax.random.key_data(_checks.key(old)), old)


@pytest.mark.parametrize(
    ("value", "limits", "told"),
    [
        (0, dict(low=1, whole=True), "x is 0, expected at least 1"),
        (9, dict(low=1, high=8, whole=True), "x is 9, expected at most 8"),
        (1.5, dict(low=1, high=8, whole=True), r"x is 1.5, expected a whole number in \[1, 8\]"),
        (1.0, dict(low=0, high=1, below=True), r"x is 1.0, expected in \[0, 1\)"),
        (0.0, dict(low=0, above=True), "x is 0.0, expected above 0"),
        (float("nan"), {}, "x is nan, expected a number"),
        (True, dict(low=0), "x is True, expected a number at least 0"),
        (np.True_, {}, "expected a number"),
        ("3", dict(high=5), "x is '3', expected a number"),
        (None, {}, "x is None, expected a number"),
    ],
)
def test_numbers(value, limits, told):
    with pytest.raises(ValueError, match=told):
        _checks.number("x", value, **limits)


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.25), np.int64(1)])
def test_numbers_that_are_right(value):
    _checks.number("x", value, 0, 1)


def test_names():
    _checks.names("x", ("a", "b"))
    for value in ("a", ("a", "a"), ("",), 3, ("a", 1)):
        with pytest.raises(ValueError, match="^x "):
            _checks.names("x", value)
