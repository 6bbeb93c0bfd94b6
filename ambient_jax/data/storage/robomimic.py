"""robomimic's HDF5 data sets (and MimicGen, RoboCasa, LIBERO): demonstrations in one file.

``data/demo_<i>/actions`` is ``steps/action``, ``obs/<name>`` is ``steps/observation/<name>``,
``rewards`` is ``steps/reward``; all others, such as ``dones``, ``states`` and ``next_obs/<name>``,
keep their names under ``steps``. What does not have one row a step is left out. A demonstration's
number is its id. Splits are the filter keys under ``mask``; without a mask of that name, "train" is
all. The rate is the ``control_freq`` of ``env_args``. Language comes from the demonstration's
``ep_meta`` (RoboCasa) or from ``problem_info`` (LIBERO).

The file is read directly: HDF5 finds a demonstration by its name, so a converted copy would cost
room and gain nothing.
https://robomimic.github.io/docs/datasets/overview.html
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ambient_jax.data import dataset
from ambient_jax.data.features import leaves, nest
from ambient_jax.data.files import first_line
from ambient_jax.data.storage import arrays, hdf5

_SUFFIXES = (".hdf5", ".h5")
_DEMO = re.compile(r"demo_(\d{1,18})")
_NAMES = {"actions": "action", "rewards": "reward", "obs": "observation"}
_LANGUAGE = "steps/language_instruction"


def is_here(path: str) -> bool:
    """Whether a path is an HDF5 file, or a folder with some."""
    return bool(_files(path))


class RobomimicDataset(dataset.FolderDataset):
    """One data set of robomimic; see ``storage.open_dataset``.

    The path is the file, or a folder with no other one. ``allow_missing`` has nothing to allow: the
    one file is there or not.
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
        self._path = path = _file(os.fspath(directory))
        with hdf5.opened(path) as file:
            self._names = _demos(file, path)
            splits = _splits(file, self._names, path)
            name, which = dataset.choose(split, {n: len(s) for n, s in splits.items()}, path)
            ids = splits[name][which]
            self._fields, features = self._schema(file, [*ids, *self._names])
            hz = _rate(file["data"], path)
        opened = dataset.Opened(
            name=os.path.splitext(os.path.basename(path))[0],
            version="robomimic",
            features=features,
            files=[path] * len(ids),
            ids=ids,
            hz=hz,
        )
        super().__init__(path, opened, split, required, keys=keys, last_step=last_step)
        self._leaves = leaves(self.features)

    def _schema(self, file, numbers):
        """({path: name in a demo}, features), as the first demo that is whole has them."""
        for number in numbers:
            demo = file["data"][self._names[number]]
            if (steps := _length(demo)) > 0:
                break
        else:
            raise ValueError(
                f"{self._path} has no demo with actions, expected data/demo_<i>/actions"
            )
        fields, flat = {}, {"is_first": tfds.features.Scalar(np.bool_)}
        flat["is_last"] = tfds.features.Scalar(np.bool_)
        for name, array in hdf5.arrays(demo, f"{self._path}, {self._names[number]}").items():
            if len(array) == steps or name.startswith("obs/"):
                head, slash, rest = name.partition("/")
                path = f"{_NAMES.get(head, head)}{slash}{rest}"
                fields[f"steps/{path}"] = name
                flat[path] = arrays.feature(array.shape, array.dtype)
        if _language(file["data"], demo, self._path):
            flat["language_instruction"] = tfds.features.Text()
        return fields, tfds.features.FeaturesDict({"steps": tfds.features.Dataset(nest(flat))})

    def _episode(self, position):
        name = self._names[int(self.episode_ids[position])]
        where = f"{self._path}, {name}"
        with hdf5.opened(self._path) as file:
            demo = file["data"][name]
            length = _length(demo)
            if length < 0:
                raise ValueError(f"{where} has no actions [T, D]: leave it out")
            stated = demo.attrs.get("num_samples", length)
            if not length or stated != length:
                raise ValueError(
                    f"{where} has {length} actions and num_samples {stated!r}, expected the same, "
                    "at least 1: leave it out, or fetch the file again"
                )
            flat: dict[str, Any] = dataset.boundaries(length)
            for path in [key for key in self.keys if key in self._fields]:
                flat[path] = self._read(demo, path, length, where)
            if _LANGUAGE in self.keys:
                text = _language(file["data"], demo, where).encode()
                flat[_LANGUAGE] = np.array([text] * length, object)
        return flat

    def _read(self, demo, path, length, where):
        name = self._fields[path]
        array = hdf5.find(demo, name, where)
        if array is None:
            raise ValueError(f"{where} has no {name}, which other demos have: leave it out")
        if not array.ndim or len(array) != length:
            rows = len(array) if array.ndim else "no"
            raise ValueError(
                f"{where}: {name} has {rows} steps, actions has {length}: the same is expected"
            )
        feature = self._leaves[path].feature
        return arrays.checked(hdf5.values(array), feature, f"{where}: {name}")


def _files(path: str) -> list[str]:
    if os.path.isfile(path):
        return [path] if path.endswith(_SUFFIXES) else []
    inside = glob.glob(os.path.join(glob.escape(path), "*"))
    return sorted(p for p in inside if p.endswith(_SUFFIXES) and os.path.isfile(p))


def _file(path: str) -> str:
    found = _files(path)
    if len(found) > 1:
        names = ", ".join(os.path.basename(p) for p in found[:3])
        raise ValueError(
            f"{path} has {len(found)} HDF5 files ({names}{', ...' if len(found) > 3 else ''}), "
            "expected one: give the path of the file, a source for each"
        )
    if not found:
        raise FileNotFoundError(f"{path} is no HDF5 file (.hdf5 or .h5) and has none in it")
    return found[0]


def _demos(file, path) -> dict[int, str]:
    """Names of the demonstrations by number, in the order of numbers."""
    group = file.get("data")
    if group is None or not hasattr(group, "keys"):
        raise ValueError(
            f"{path} has no group 'data', it has {', '.join(file) or 'nothing'}: it is none of "
            "robomimic's, whose demonstrations are data/demo_<i>"
        )
    found: dict[int, str] = {}
    for name in group:
        match = _DEMO.fullmatch(name)
        if not match or int(match[1]) in found:
            raise ValueError(f"{path} has data/{name}, expected demo_<number>, each number once")
        found[int(match[1])] = name
    if not found:
        raise ValueError(f"{path} has no demonstration in its group 'data'")
    return dict(sorted(found.items()))


def _splits(file, names: Mapping[int, str], path) -> dict[str, np.ndarray]:
    """Numbers of each split's demonstrations, rising."""
    numbers = {name: number for number, name in names.items()}
    splits = {"train": np.array(list(names), np.int64)}
    for key, array in hdf5.arrays(file.get("mask") or {}, f"{path}: mask").items():
        chosen = [name.decode() if isinstance(name, bytes) else name for name in hdf5.values(array)]
        for name in chosen:
            if name not in numbers:
                raise ValueError(
                    f"{path}: mask/{key} names {name!r}, which is none of the {len(names)} demos "
                    "under 'data': remove it from the mask, or fetch the file again"
                )
        splits[key] = np.array(sorted({numbers[name] for name in chosen}), np.int64)
    return splits


def _length(demo) -> int:
    """Steps of a demonstration, -1 if it has no actions."""
    array = demo.get("actions") if hasattr(demo, "keys") else None
    return len(array) if array is not None and getattr(array, "ndim", 0) == 2 else -1


def _json(group, name, where) -> dict[str, Any]:
    """An attribute that is a JSON object, {} if it is not there."""
    text = hdf5.text(group, name)
    try:
        value = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: {name} is no JSON ({first_line(error)})") from error
    return value if isinstance(value, dict) else {}


def _rate(data, path) -> float | None:
    options = _json(data, "env_args", path).get("env_kwargs")
    hz = options.get("control_freq") if isinstance(options, dict) else None
    if hz is None:
        return None
    if isinstance(hz, bool) or not isinstance(hz, int | float) or not 0 < hz < float("inf"):
        raise ValueError(
            f"{path}: env_args has control_freq {hz!r}, expected a positive rate in Hz"
        )
    return float(hz)


def _language(data, demo, where) -> str:
    text = _json(demo, "ep_meta", where).get("lang")
    text = text or _json(data, "problem_info", where).get("language_instruction") or ""
    return "".join(text) if isinstance(text, list) else str(text)
