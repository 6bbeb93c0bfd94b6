"""Arrays of steps [T, ...] as files of arrays hold them: which are pictures, and their features."""

from typing import Any

import numpy as np
import tensorflow_datasets as tfds


def is_picture(shape: tuple[int, ...], dtype: np.dtype, floats: bool = False) -> bool:
    """Whether an array is pictures [T, h, w, 3] of uint8, or with ``floats`` of float32 too."""
    return len(shape) == 4 and shape[3] == 3 and (dtype == np.uint8 or floats and dtype.kind == "f")


def feature(shape: tuple[int, ...], dtype: np.dtype, floats: bool = False) -> Any:
    """The TFDS feature of one step of an array; texts are bytes or objects."""
    if dtype.kind in "SO":
        return tfds.features.Text()
    if is_picture(shape, dtype, floats):
        return tfds.features.Image(shape=shape[1:])
    return tfds.features.Tensor(shape=shape[1:], dtype=dtype.newbyteorder("="))


def checked(values: np.ndarray, declared: Any, where: str) -> np.ndarray:
    """The steps of a field as its feature declares them: pictures as uint8, without rounding.

    ValueError, which names ``where``: another shape or kind, or pictures that are no whole numbers
    of 0 to 255.
    """
    if isinstance(declared, tfds.features.Text):
        if values.dtype != object or values.ndim != 1:
            raise ValueError(f"{where} is {values.dtype} {values.shape}, expected a text a step")
        return values
    if values.shape[1:] != declared.shape:
        raise ValueError(
            f"{where} has shape {list(values.shape[1:])} a step, expected "
            f"{list(declared.shape)}, as in the data set's first episode"
        )
    if isinstance(declared, tfds.features.Image):
        return _pictures(values, where)
    kinds = np.dtype(declared.np_dtype).kind, values.dtype.kind
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"{where} is {values.dtype}, expected {np.dtype(declared.np_dtype)}, as in the data "
            "set's first episode"
        )
    return values


def _pictures(values: np.ndarray, where: str) -> np.ndarray:
    if values.dtype == np.uint8:
        return values
    with np.errstate(invalid="ignore"):
        whole = values.astype(np.uint8)
    wrong = whole != values
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0])
        raise ValueError(
            f"{where} is {values[at]} at step {at[0]}, expected pictures, whole numbers of 0 to "
            "255: store them as uint8, or name the fields to read without this one"
        )
    return whole
