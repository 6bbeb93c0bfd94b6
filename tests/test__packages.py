"""A package that is absent is one line; formats need packages of their own, RLDS needs none."""

import subprocess
import sys

import pytest

from ambient_jax import _packages

SCRIPT = """
import sys
for name in ("av", "h5py", "zarr"):
    sys.modules[name] = None
from ambient_jax.data import storage
data = storage.open_dataset(sys.argv[1])
print(len(data), len(data[0]["steps"]["action"]) > 0)
for path in sys.argv[2:]:
    try:
        storage.open_dataset(path)
    except ImportError as error:
        print(error)
"""


def test_rlds_needs_none_of_them(toy_data, tmp_path):
    (tmp_path / "x.hdf5").touch()
    (tmp_path / "y.zarr").mkdir()
    (tmp_path / "y.zarr/.zgroup").touch()
    paths = [toy_data["good"], str(tmp_path / "x.hdf5"), str(tmp_path / "y.zarr")]
    command = [sys.executable, "-c", SCRIPT, *paths]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert first == "12 True"
    for line, path, name in zip(rest, paths[1:], ("h5py", "zarr"), strict=True):
        assert line.startswith(path) and f"needs the package {name!r}" in line
        assert line.endswith("pip install 'ambient_jax[formats]'")


def test_what_is_installed_is_given():
    assert _packages.need("json", "a file", "formats").loads("[1]") == [1]
    told = r"^a file needs the package 'no_such_one' .*: pip install 'ambient_jax\[x\]', or not$"
    with pytest.raises(_packages.MissingError, match=told):
        _packages.need("no_such_one", "a file", "x", otherwise=", or not")
