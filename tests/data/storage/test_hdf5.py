"""HDF5 files that are damaged, or lead elsewhere."""

import os

import h5py
import numpy as np
import pytest

from ambient_jax.data.storage import hdf5


@pytest.fixture
def path(tmp_path):
    path = str(tmp_path / "x.h5")
    with h5py.File(path, "w") as file:
        file["group/numbers"] = np.arange(6.0).reshape(3, 2)
        file["group/texts"] = ["a", "bc", ""]
        file.create_dataset("group/packed", data=np.zeros((4000, 2)), compression="gzip")
        file["group/one"] = 5
    return path


def test_arrays_and_values(path):
    with hdf5.opened(path) as file:
        found = hdf5.arrays(file, "x")
        assert set(found) == {"group/numbers", "group/texts", "group/packed"}
        values = hdf5.values(hdf5.find(file, "group/numbers", "x"))
        np.testing.assert_array_equal(values, np.arange(6.0).reshape(3, 2))
        assert hdf5.values(found["group/texts"]).tolist() == [b"a", b"bc", b""]
        assert hdf5.find(file, "group/none", "x") is None
        assert hdf5.find(file, "group", "x") is None


def test_what_is_no_sound_file(path, tmp_path):
    whole = open(path, "rb").read()
    other = str(tmp_path / "other.h5")
    for content in (b"", b"# text\n" * 99, whole[:-1], whole[: len(whole) // 2]):
        with open(other, "wb") as file:
            file.write(content)
        with pytest.raises(ValueError, match=f"{other} is no HDF5 file, cut or damaged .*fetch"):
            with hdf5.opened(other) as file:
                file["group"]
    os.remove(other)
    with pytest.raises(FileNotFoundError, match=f"{other} does not exist"):
        with hdf5.opened(other):
            pass
    with pytest.raises(ValueError, match="is a directory, expected a file"):
        with hdf5.opened(str(tmp_path)):
            pass


def test_damaged_content(path):
    with h5py.File(path) as file:
        chunk = file["group/packed"].id.get_chunk_info(0)
    with open(path, "r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(b"\xff" * chunk.size)
    with pytest.raises(ValueError, match=f"{path} is no HDF5 file, cut or damaged"):
        with hdf5.opened(path) as file:
            hdf5.values(hdf5.find(file, "group/packed", path))


def test_any_changed_byte_is_an_error_or_a_value(path):
    """Damage anywhere ends in numbers or in one line, never in another error."""
    whole, rng = open(path, "rb").read(), np.random.default_rng(0)
    for _ in range(150):
        content = bytearray(whole)
        for at in rng.integers(0, min(len(content), 6000), 4):
            content[at] = rng.integers(256)
        with open(path, "wb") as file:
            file.write(content)
        try:
            with hdf5.opened(path) as file:
                for array in hdf5.arrays(file, path).values():
                    hdf5.values(array)
        except (ValueError, OSError) as error:
            assert path in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("kind", ["link", "raw", "virtual"])
def test_arrays_in_other_files_are_refused(kind, path, tmp_path):
    other = str(tmp_path / "secret")
    with h5py.File(other, "w") as file:
        file["a"] = np.arange(3.0)
    with h5py.File(path, "r+") as file:
        if kind == "link":
            file["group/b"] = h5py.ExternalLink(other, "a")
        elif kind == "raw":
            file.create_dataset("group/b", (3,), "u1", external=[(other, 0, 3)])
        else:
            layout = h5py.VirtualLayout((3,), "f8")
            layout[:] = h5py.VirtualSource(other, "a", shape=(3,))
            file.create_virtual_dataset("group/b", layout)
    with hdf5.opened(path) as file:
        with pytest.raises(ValueError, match="x: group: b lies in another file|x: b lies in"):
            hdf5.arrays(file["group"], "x")
        with pytest.raises(ValueError, match="x: group/b lies in another file, expected it in"):
            hdf5.find(file, "group/b", "x")


def test_circles_of_groups_end(path):
    with h5py.File(path, "r+") as file:
        file["group/again"] = file["group"]
    with hdf5.opened(path) as file, pytest.raises(ValueError, match="or a circle of links"):
        hdf5.arrays(file, "x")
