"""Arrays of steps: which are pictures, and what a feature demands of each episode."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from ambient_jax.data.storage import arrays


@pytest.mark.parametrize(
    ("shape", "dtype", "exact", "with_floats"),
    [
        ((9, 4, 6, 3), "u1", True, True),
        ((9, 4, 6, 3), "f4", False, True),
        ((9, 4, 6, 3), "f8", False, True),
        ((9, 4, 6, 3), "i4", False, False),
        ((9, 4, 6, 1), "u1", False, False),
        ((9, 3, 4, 6), "u1", False, False),
        ((9, 6, 3), "u1", False, False),
    ],
)
def test_pictures_have_three_colours_last(shape, dtype, exact, with_floats):
    assert arrays.is_picture(shape, np.dtype(dtype)) == exact
    assert arrays.is_picture(shape, np.dtype(dtype), floats=True) == with_floats
    kind = type(arrays.feature(shape, np.dtype(dtype), floats=True))
    assert (kind is tfds.features.Image) == with_floats


def test_features_are_those_of_one_step():
    number = arrays.feature((9, 7), np.dtype(">f4"))
    assert number.shape == (7,) and number.np_dtype == np.float32
    assert arrays.feature((9,), np.dtype("i8")).shape == ()
    assert arrays.feature((9, 4, 6, 3), np.dtype("u1")).shape == (4, 6, 3)
    for text in ("S5", object):
        assert isinstance(arrays.feature((9,), np.dtype(text)), tfds.features.Text)


def test_values_that_fit_are_given_as_they_are():
    for values in (np.zeros((9, 7), "f4"), np.zeros(9, bool), np.zeros((9, 4, 6, 3), "u1")):
        declared = arrays.feature(values.shape, values.dtype)
        assert arrays.checked(values, declared, "x") is values
    wide = np.zeros((9, 7), "f8")  # another precision is not another kind
    assert arrays.checked(wide, arrays.feature((9, 7), np.dtype("f4")), "x") is wide
    texts = np.array([b"a", b"b"], object)
    assert arrays.checked(texts, arrays.feature((2,), np.dtype(object)), "x") is texts


def test_pictures_of_whole_floats_become_bytes():
    values = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3))
    declared = arrays.feature(values.shape, np.dtype("f4"), floats=True)
    found = arrays.checked(values.astype("f4"), declared, "x")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, values)
    for wrong in (0.5, -1.0, 256.0, np.nan, np.inf):
        damaged = values.astype("f4")
        damaged[1, 2, 3, 0] = wrong
        with pytest.raises(ValueError, match=f"^x is {wrong} at step 1, expected pictures"):
            arrays.checked(damaged, declared, "x")


@pytest.mark.parametrize(
    ("values", "declared", "message"),
    [
        (np.zeros((9, 6)), ((9, 7), "f8"), r"x has shape \[6\] a step, expected \[7\]"),
        (np.zeros((9, 7), "i8"), ((9, 7), "f8"), "x is int64, expected float64"),
        (np.zeros(9), ((9,), object), r"x is float64 \(9,\), expected a text a step"),
        (np.full((9, 2), b"", object), ((9,), object), r"x is object \(9, 2\), expected a text"),
        (np.zeros((9, 4, 5, 3), "u1"), ((9, 4, 6, 3), "u1"), r"shape \[4, 5, 3\] a step"),
    ],
)
def test_values_of_another_shape_or_kind_are_refused(values, declared, message):
    shape, dtype = declared
    with pytest.raises(ValueError, match=message):
        arrays.checked(values, arrays.feature(shape, np.dtype(dtype)), "x")
