"""Diffusion Policy's replay buffers: Zarr arrays over all steps, ``data/<name>``, and where
episodes end, ``meta/episode_ends``; in a folder ``x.zarr`` or one file ``x.zarr.zip``.

``data/action`` is ``steps/action``, every other array ``steps/observation/<name>``. Arrays
[T, h, w, 3] of uint8 are pictures, and so are those of floats, as PushT stores them, if their
numbers are whole. The format states no rate and no language: give ``hz`` in the spec. An episode's
id is its number; the only split is "train".

The arrays are read directly: Zarr finds the chunks of an episode by its steps, so a converted copy
would cost room and gain nothing.
https://github.com/real-stanford/diffusion_policy (replay buffer)
"""

from __future__ import annotations

import glob
import os
import re
import zipfile
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from ambient_jax import _packages
from ambient_jax.data import dataset, files
from ambient_jax.data.features import leaves
from ambient_jax.data.files import first_line
from ambient_jax.data.storage import arrays

_ENDS = "meta/episode_ends"
_MARKS = (".zgroup", ".zarray", "zarr.json")
_ARRAY = re.compile(r"data/([^/]+)/(?:\.zarray|zarr\.json)")


def is_here(path: str) -> bool:
    """Whether a path is a Zarr store in a folder or zip file, or a folder with some."""
    return bool(_stores(path))


class ZarrDataset(dataset.FolderDataset):
    """One replay buffer; see ``storage.open_dataset``.

    The path is the store, or a folder with no other one. Zarr reads chunks that are not there as
    zeros, as writers leave out chunks of zeros: where some are missing, a warning says how many.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        split: str = "train",
        required: Iterable[str] = (),
        *,
        keys: Iterable[str] | None = None,
        allow_missing: bool = False,
        last_step: str = "",
    ):
        self._path = path = _store(os.fspath(directory))
        self._opened: tuple[int, Any] | None = None
        required, keys = list(required), None if keys is None else list(keys)
        entries = _entries(path)
        self._arrays, unreadable = self._open(entries)
        for name, error in unreadable.items():
            if keys is None or _covers([*required, *keys], _path_of(name)):
                raise _unopened(f"{path}: data/{name}", error) from error
        ends = self._read_ends()
        self._starts = np.concatenate([[0], ends])
        _, ids = dataset.choose(split, {"train": len(ends)}, path)
        flat: dict[str, Any] = {
            name: tfds.features.Scalar(np.bool_) for name in ("is_first", "is_last")
        }
        observation: dict[str, Any] = {}
        for name, array in self._arrays.items():
            feature = arrays.feature(array.shape, np.dtype(array.dtype), floats=True)
            (flat if name == "action" else observation)[name] = feature
        if observation:
            flat["observation"] = observation
        name = os.path.basename(os.path.abspath(path)).removesuffix(".zip").removesuffix(".zarr")
        single = os.path.isfile(path)
        opened = dataset.Opened(
            name=name,
            version="zarr",
            features=tfds.features.FeaturesDict({"steps": tfds.features.Dataset(flat)}),
            files=[path if single else os.path.join(path, _file_of_ends(entries))] * len(ids),
            ids=ids,
        )
        super().__init__(path, opened, split, required, keys=keys, last_step=last_step)
        self._arrays = {n: a for n, a in self._arrays.items() if _path_of(n) in self.keys}
        self._leaves = leaves(self.features)
        self._check(int(ends[-1]))
        wanted = [_ENDS, *(f"data/{name}" for name in self._arrays)]
        if not single:
            mine = [e for e in entries if any(e.startswith(f"{w}/") for w in wanted)]
            self._marks = [os.path.join(path, entry) for entry in mine]

    def __getstate__(self):
        return self.__dict__ | {"_opened": None, "_arrays": dict.fromkeys(self._arrays)}

    def _episode(self, position):
        episode = int(self.episode_ids[position])
        start, stop = self._starts[episode : episode + 2].tolist()
        flat: dict[str, Any] = dataset.boundaries(stop - start)
        for name in self._arrays:
            where = f"{self._path}, episode {episode}: data/{name}"
            values = self._values(f"data/{name}", where, slice(start, stop))
            flat[_path_of(name)] = arrays.checked(
                values, self._leaves[_path_of(name)].feature, where
            )
        return flat

    def _group(self):
        """The store, opened once in each process: two processes cannot share a zip file."""
        if self._opened is None or self._opened[0] != os.getpid():
            zarr = _packages.need("zarr", f"{self._path} (Zarr)", "formats")
            try:
                if os.path.isfile(self._path):
                    store = zarr.storage.ZipStore(self._path, mode="r", read_only=True)
                else:
                    store = zarr.storage.LocalStore(self._path, read_only=True)
                group = zarr.open_group(store, mode="r", use_consolidated=False)
            except Exception as error:
                raise _unreadable(self._path, error) from error
            self._opened = os.getpid(), group
        return self._opened[1]

    def _open(self, entries):
        """({name: array}, {name: why it cannot be opened}) of the arrays of numbers under data."""
        group, found, wrong = self._group(), {}, {}
        names = [match[1] for entry in entries if (match := _ARRAY.fullmatch(entry))]
        if not names:
            raise ValueError(
                f"{self._path} has no array under 'data', expected data/action and others: it is "
                "no replay buffer, or was not fetched whole"
            )
        for name in sorted(set(names)):
            try:
                array = group[f"data/{name}"]
                if array.ndim and np.dtype(array.dtype).kind in "biuf":
                    found[name] = array
            except Exception as error:  # an unknown codec, or damaged in any way
                wrong[name] = error
        return found, wrong

    def _read_ends(self):
        try:
            there = _ENDS in self._group()
        except Exception as error:
            raise _unreadable(f"{self._path}: {_ENDS}", error) from error
        if not there:
            raise ValueError(
                f"{self._path} has no array {_ENDS}, which says where episodes end: it is no "
                "replay buffer, or was not fetched whole"
            )
        ends = self._values(_ENDS, f"{self._path}: {_ENDS}", slice(None))
        if ends.ndim != 1 or ends.dtype.kind not in "iu" or not len(ends):
            raise ValueError(
                f"{self._path}: {_ENDS} is {ends.dtype} {list(ends.shape)}, expected the step "
                "after each episode's last one, whole numbers [N]"
            )
        ends = ends.astype(np.int64)
        for i in np.flatnonzero(np.diff(ends, prepend=0) <= 0)[:1]:
            before = ends[i - 1] if i else 0
            raise ValueError(
                f"{self._path}: {_ENDS} is {ends[i]} at episode {i} after {before}, expected "
                "rising numbers: an episode has a step at least"
            )
        return ends

    def _check(self, steps):
        """ValueError where an array has not one row a step; a warning where chunks are missing."""
        for name, array in self._arrays.items():
            if array.shape[0] != steps:
                raise ValueError(
                    f"{self._path}: data/{name} has {array.shape[0]} steps, the last episode of "
                    f"{_ENDS} ends at {steps}: one of the two is of another version of the data"
                )
            try:
                there = array.nchunks_initialized
            except Exception as error:
                raise _unreadable(f"{self._path}: data/{name}", error) from error
            if there < array.nchunks:
                logging.warning(
                    "%s: data/%s has %d of %d chunks; the others read as zeros: fetch it again, "
                    "unless it was written so",
                    *(self._path, name, there, array.nchunks),
                )

    def _values(self, name, where, steps):
        try:
            return self._group()[name][steps]
        except Exception as error:
            raise _unreadable(where, error) from error


def _path_of(name: str) -> str:
    return "steps/action" if name == "action" else f"steps/observation/{name}"


def _covers(wanted: Iterable[str], path: str) -> bool:
    return any(path == key or path.startswith(f"{key}/") for key in wanted)


def _unreadable(where: str, error: Exception) -> Exception:
    """An error of a store as one line: of the machine, or of damaged files."""
    if isinstance(error, MemoryError) or isinstance(error, OSError) and error.errno:
        return files.unavailable(error, where)
    if isinstance(error, ImportError):
        return error
    return ValueError(f"{where} cannot be read ({first_line(error)}): fetch it again")


def _unopened(where: str, error: Exception) -> Exception:
    if "codec" not in str(error):
        return _unreadable(where, error)
    return ValueError(
        f"{where} cannot be read ({first_line(error)}): install the package that registers its "
        "codec, or name the fields to read without it"
    )


def _stores(path: str) -> list[str]:
    """The path itself if it is a store, else the stores in it."""
    if os.path.isfile(path):
        return [path] if path.endswith(".zarr.zip") else []
    if path.rstrip("/").endswith(".zarr") and os.path.isdir(path):
        return [path]
    if any(os.path.exists(os.path.join(path, mark)) for mark in _MARKS):
        return [path]
    inside = glob.glob(os.path.join(glob.escape(path), "*.zarr"))
    return sorted(inside + glob.glob(os.path.join(glob.escape(path), "*.zarr.zip")))


def _store(path: str) -> str:
    found = _stores(path)
    if len(found) > 1:
        names = ", ".join(os.path.basename(p) for p in found[:3])
        raise ValueError(
            f"{path} has {len(found)} Zarr stores ({names}{', ...' if len(found) > 3 else ''}), "
            "expected one: give the path of the store, a source for each"
        )
    if not found:
        raise FileNotFoundError(
            f"{path} is no Zarr store (x.zarr or x.zarr.zip) and has none in it"
        )
    return found[0]


def _entries(path: str) -> list[str]:
    """Names of a store's files, from its root."""
    if os.path.isfile(path):
        files.check_file(path)
        try:
            with zipfile.ZipFile(path) as file:
                return sorted(file.namelist())
        except Exception as error:  # zipfile raises many kinds
            raise _unreadable(path, error) from error
    found = []
    for folder, _, names in os.walk(path):
        found += [os.path.relpath(os.path.join(folder, name), path) for name in names]
    return sorted(found)


def _file_of_ends(entries: list[str]) -> str:
    return next(e for e in entries if e in (f"{_ENDS}/.zarray", f"{_ENDS}/zarr.json"))
