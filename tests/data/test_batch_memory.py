import gc
import os

import jax
import numpy as np
import pytest

from ambient_jax.data import batch_memory

LAYOUT = {
    "action": ((3, 2), "<f4"),
    "mask": ((3,), "|b1"),
    "none": ((0,), "<f4"),
    "image": ((2, 5, 7, 3), "|u1"),
    "id": ((3,), "<i4"),
}


@pytest.fixture
def memory():
    made = batch_memory.Memory(rows=5)
    yield made
    made.close()


def filled(memory, value):
    slot = memory.take()
    arrays = memory.arrays(slot)
    for array in arrays.values():
        array[...] = value
    return slot, arrays


def test_arrays_are_those_of_the_layout_and_do_not_overlap(memory):
    memory.take()  # before any layout is known
    assert memory.place(LAYOUT) == LAYOUT
    _, arrays = filled(memory, 0)
    for number, (name, array) in enumerate(arrays.items()):
        assert (array.shape[1:], array.dtype.str) == LAYOUT[name]
        assert len(array) == 5 and array.ctypes.data % 64 == 0
        array[...] = number % 2
    for number, array in enumerate(arrays.values()):
        assert (array == number % 2).all()


def test_both_sides_see_the_same_bytes(memory):
    memory.place(LAYOUT)
    other = batch_memory.Memory(5, os.dup(memory.file))
    other.place(LAYOUT)
    kept = []
    for value in (1, 0):  # two slots
        slot, arrays = filled(memory, value)
        kept.append(arrays)
        seen = other.arrays(slot)
        assert all((array == value).all() for array in seen.values())
        seen["id"][2] = 9
        assert (arrays["id"][2] == 9).all()
    other.close()


@pytest.mark.parametrize("holder", ["array", "view", "device"])
def test_a_slot_is_used_again_once_nothing_refers_to_it(memory, holder):
    memory.place(LAYOUT)
    slot, arrays = filled(memory, 1)
    if holder == "array":
        kept = arrays["image"]
    elif holder == "view":
        kept = arrays["image"][1:3, 0].reshape(2, -1)[:, ::2]
    else:
        kept = jax.device_put(arrays["action"])  # maybe without a copy
    del arrays
    other, arrays = filled(memory, 0)
    assert (np.asarray(kept) == 1).all()
    del arrays
    if holder != "device":  # which may have copied
        assert memory.take() == other != slot
    del kept
    gc.collect()
    assert {memory.take(), memory.take()} >= {slot}


def test_arrays_outlive_the_memory():
    memory = batch_memory.Memory(rows=5)
    memory.place(LAYOUT)
    _, arrays = filled(memory, 1)
    memory.close()
    memory.close()
    assert all((array == 1).all() for array in arrays.values())


def test_objects_are_refused(memory):
    with pytest.raises(ValueError, match="'text' holds Python objects, .*assemblers to 1"):
        memory.place({"text": ((), "|O")})


def test_kept_ids_do_not_keep_images():
    memory = batch_memory.Memory(rows=4)
    memory.place({"id": ((3,), "<i4"), "image": ((300, 300, 3), "|u1")})
    kept = []
    for value in range(5):
        slot, arrays = filled(memory, value)
        arrays = batch_memory.detached(arrays)
        assert slot == 0 and (arrays["image"] == value).all()
        kept.append(arrays["id"])
        del arrays
    assert [ids[0, 0] for ids in kept] == [0, 1, 2, 3, 4]
    memory.close()
