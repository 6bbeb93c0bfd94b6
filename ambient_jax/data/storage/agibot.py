"""AgiBot World as it is published: numbers in HDF5, pictures in mp4, texts in JSON.

``proprio_stats/<task>/<episode>/proprio_stats.h5`` holds ``state/<group>/<name>`` and
``action/<group>/<name>``, ``observations/<task>/<episode>/videos/<camera>_color.mp4`` the pictures,
``task_info/task_<task>.json`` the texts. Fields have the names that they have after conversion to
LeRobot, so that one spec reads both: ``steps/observation/states.joint.position``,
``steps/actions.joint.position``, ``steps/observation/images.head``. ``steps/timestamp`` is in s
from the first step. The language of a step is the ``action_text`` of its segment, else the task's
name, which is ``steps/task_name`` too. Depth and tactile pictures are not read.

Commands follow the public converter to LeRobot
(https://github.com/Tavish9/any4lerobot, agibot2lerobot). ``action/<group>/index`` are the steps in
which a command was sent. Where a command has fewer rows than the episode has steps, they are those
of these steps (of the joints' index, if the group's is empty), and the others hold the state. More
rows than steps are damage. A velocity without rows is 0; any other field without rows is absent
from the episode, where the converter would write positions of 0 that nobody commanded.

The files are read directly: an episode is a file, and finds its videos by its number.
https://huggingface.co/datasets/agibot-world/AgiBotWorld-Alpha (format of the files)
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ambient_jax.data import dataset
from ambient_jax.data.features import leaves, nest
from ambient_jax.data.storage import agibot_info, arrays, hdf5
from ambient_jax.data.storage.video import Clip

HZ = 30.0  # of all its robots and cameras, as its own converter writes
_COLOR = "_color.mp4"
_GROUPS = {"state": "steps/observation/states.", "action": "steps/actions."}
_LANGUAGE = "steps/language_instruction"
_TASK_NAME = "steps/task_name"
_TIME = "steps/timestamp"
_RATE = 0.2  # share by which the time between two steps may differ from 1 / HZ, in the median


def is_here(path: str) -> bool:
    """Whether a folder holds AgiBot World as it is published."""
    return any(os.path.isdir(os.path.join(path, n)) for n in ("proprio_stats", "task_info"))


class AgibotDataset(dataset.FolderDataset):
    """One copy of AgiBot World, or of some of its tasks; see ``storage.open_dataset``.

    Splits are "train", all episodes that task_info lists, and "task_<number>". A field whose width
    differs between tasks (grippers have 2 numbers, hands 12) is only there in splits of one task. A
    camera without its file is absent in the episode.
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
        directory = os.path.abspath(os.fspath(directory))
        required, keys = list(required), None if keys is None else list(keys)
        tasks = agibot_info.read(directory)
        by_split = {"train": [row for rows in tasks.values() for row in rows]}
        by_split |= {f"task_{task}": rows for task, rows in tasks.items()}
        name, which = dataset.choose(split, {n: len(r) for n, r in by_split.items()}, directory)
        self._rows = [by_split[name][i] for i in which]
        self.directory = directory
        paths = [self._numbers(row) for row in self._rows]
        if not allow_missing:
            gone = [path for path in paths if not os.path.exists(path)]
            dataset.raise_missing(
                gone, "fetch it, or take a split such as 'task_327[:10]' without it"
            )
        self._fields, features = self._schema(required, keys)
        opened = dataset.Opened(
            name=os.path.basename(directory),
            version="agibot",
            features=features,
            files=paths,
            ids=np.array([row.episode for row in self._rows]),
            hz=HZ,
        )
        super().__init__(directory, opened, split, required, keys=keys, last_step=last_step)
        self._leaves = leaves(self.features)
        self._cameras = [k for k in self.keys if k.startswith("steps/observation/images.")]
        tasks_read = dict.fromkeys(row.task for row in self._rows)
        texts = [agibot_info.path_of(directory, task) for task in tasks_read]
        self._marks = texts + [self._video(r, c) for r in self._rows for c in self._cameras]

    def _numbers(self, row):
        where = "proprio_stats", str(row.task), str(row.episode), "proprio_stats.h5"
        return os.path.join(self.directory, *where)

    def _videos(self, row):
        return os.path.join(
            self.directory, "observations", str(row.task), str(row.episode), "videos"
        )

    def _videos_of(self, position):
        return [self._video(self._rows[position], camera) for camera in self._cameras]

    def _video(self, row, camera):
        name = camera.removeprefix("steps/observation/images.")
        return os.path.join(self._videos(row), name + _COLOR)

    def _schema(self, required, keys):
        """({path: name in the file}, features), of one episode of each task."""
        names: dict[str, str] = {}
        features: dict[str, Any] = {}
        differing: dict[str, str] = {}
        by_task: dict[int, list[agibot_info.Row]] = {}
        for row in self._rows:
            by_task.setdefault(row.task, []).append(row)
        for task, rows in by_task.items():
            for name, array in self._first(rows).items():
                group, _, rest = name.partition("/")
                path = _GROUPS[group] + rest.replace("/", ".")
                if path in features and features[path].shape != array.shape:
                    shapes = f"{list(features[path].shape)} and {list(array.shape)} (task {task})"
                    differing[path] = shapes
                names[path] = name
                features.setdefault(path, array)
            folders = (self._videos(row) for row in rows)
            folder = next((f for f in folders if os.path.isdir(f)), None)
            for file in sorted(os.listdir(folder)) if folder else ():
                if file.endswith(_COLOR):
                    path = f"steps/observation/images.{file.removesuffix(_COLOR)}"
                    features[path] = tfds.features.Image(shape=(None, None, 3))
        for path, shapes in differing.items():
            if path in required or path in (keys or ()):
                raise ValueError(
                    f"{self.directory}: {path} has shape {shapes} in tasks of this split: take a "
                    "source for each kind, with splits such as 'task_327'"
                )
            del features[path], names[path]
        features[_TIME] = tfds.features.Scalar(np.float64)
        for path in ("steps/is_first", "steps/is_last"):
            features[path] = tfds.features.Scalar(np.bool_)
        for path in (_LANGUAGE, _TASK_NAME):
            features[path] = tfds.features.Text()
        tree = nest({path.removeprefix("steps/"): f for path, f in features.items()})
        return names, tfds.features.FeaturesDict({"steps": tfds.features.Dataset(tree)})

    def _first(self, rows):
        """{name: feature} of the fields of the first sound episode, {} if none is there."""
        error = None
        for row in rows:
            path = self._numbers(row)
            if not os.path.exists(path):
                continue
            try:
                with hdf5.opened(path) as file:
                    return {
                        name: arrays.feature(array.shape, array.dtype)
                        for name, array in _fields(file, path).items()
                    }
            except ValueError as damaged:
                error = error or damaged
        if error:
            raise error
        return {}

    def _episode(self, position):
        row = self._rows[position]
        path = self._numbers(row)
        with hdf5.opened(path) as file:
            _groups(file, path)
            length, times = _times(file, path)
            flat: dict[str, Any] = dataset.boundaries(length)
            for key in [key for key in self.keys if key in self._fields]:
                feature, where = self._leaves[key].feature, f"{path}: {self._fields[key]}"
                values = _steps(file, self._fields[key], length, feature.shape, path)
                if values is not None:
                    flat[key] = arrays.checked(values, feature, where)
        if _TIME in self.keys and times is not None:
            flat[_TIME] = times
        if _TASK_NAME in self.keys:
            flat[_TASK_NAME] = np.array([row.name.encode()] * length, object)
        if _LANGUAGE in self.keys:
            flat[_LANGUAGE] = _texts(row, length)
        for camera in self._cameras:
            video = self._video(row, camera)
            absent = "" if os.path.exists(video) else "the file is missing"
            flat[camera] = Clip(video, np.arange(length) / HZ, 1 / HZ, absent)
        return flat


def _fields(file, path) -> dict[str, Any]:
    """The arrays of numbers below state and action that have rows, by name, without indices."""
    found = {}
    for group in _groups(file, path):
        for name, array in hdf5.arrays(file[group], f"{path}: {group}").items():
            if array.dtype.kind in "biuf" and len(array) and not name.endswith("/index"):
                found[f"{group}/{name}"] = array
    return found


def _groups(file, path):
    for group in _GROUPS:
        if not hasattr(file.get(group), "keys"):
            raise ValueError(
                f"{path} has no group {group!r}, expected 'state' and 'action': leave it out"
            )
    return list(_GROUPS)


def _times(file, path) -> tuple[int, np.ndarray | None]:
    """(steps of the episode, their times [T] in s or None): by its timestamps, else its joints."""
    stamps = hdf5.find(file, "timestamp", path)
    if stamps is None:
        joints = hdf5.find(file, "state/joint/position", path)
        if joints is None or not joints.ndim or not len(joints):
            raise ValueError(f"{path} has neither timestamp nor state/joint/position: leave it out")
        return len(joints), None
    stamps = hdf5.values(stamps)
    if stamps.ndim != 1 or stamps.dtype.kind not in "iuf" or not len(stamps):
        raise ValueError(
            f"{path}: timestamp is {stamps.dtype} {list(stamps.shape)}, expected ns of each step "
            "[T], at least one: leave the episode out"
        )
    times = (stamps - stamps[0]).astype(np.float64) / 1e9
    gaps = np.diff(times)
    if (gaps <= 0).any():
        step = int(np.flatnonzero(gaps <= 0)[0])
        raise ValueError(
            f"{path}: timestamp does not rise after step {step}: leave the episode out"
        )
    if len(gaps) and abs(np.median(gaps) * HZ - 1) > _RATE:
        raise ValueError(
            f"{path}: timestamps are {np.median(gaps):.4g} s apart, expected {1 / HZ:.4g} s, as "
            "pictures are (their unit is ns): leave the episode out"
        )
    return len(times), times


def _steps(file, name, length, shape, path) -> np.ndarray | None:
    """A field [T, *shape], None if it has no rows; commands as the module's text says."""
    array = hdf5.find(file, name, path)
    rows = hdf5.values(array) if array is not None and array.ndim else np.zeros(0)
    if len(rows) == length:
        return rows
    is_velocity = name.startswith("action/") and name.endswith("/velocity")
    if not len(rows) and not (is_velocity and array is not None):
        return None
    if len(rows) > length or name.startswith("state/"):
        raise ValueError(
            f"{path}: {name} has {len(rows)} rows, the episode has {length} steps: leave it out"
        )
    if is_velocity:
        held = np.zeros((length, *shape), rows.dtype)
    else:
        state = hdf5.find(file, name.replace("action/", "state/", 1), path)
        held = hdf5.values(state) if state is not None else rows
        if held.shape != (length, *rows.shape[1:]):
            raise ValueError(
                f"{path}: {name} has {len(rows)} rows for {length} steps, and no state of that "
                "shape to hold between them: leave it out, or name the fields to read without it"
            )
    if len(rows):
        held = held.astype(rows.dtype)
        held[_sent(file, name, length, len(rows), path)] = rows
    return held


def _sent(file, name, length, count, path) -> np.ndarray:
    """Steps in which a field's commands were sent."""
    index = None
    for group in dict.fromkeys((name.split("/")[1], "joint")):
        index = hdf5.find(file, f"action/{group}/index", path)
        if index is not None and index.size:
            break
    steps = hdf5.values(index) if index is not None else np.zeros(0, int)
    ok = steps.shape == (count,) and steps.dtype.kind in "iu"
    if not ok or (steps < 0).any() or (steps >= length).any() or (np.diff(steps) <= 0).any():
        raise ValueError(
            f"{path}: {name} has {count} rows for {length} steps, and its index does not say which "
            f"({len(steps)} entries, expected {count} rising steps below {length}): leave it out"
        )
    return steps


def _texts(row: agibot_info.Row, length: int) -> np.ndarray:
    texts = np.array([row.name.encode()] * length, object)
    for start, end, text in row.segments:
        if text:
            texts[start:end] = text.encode()
    return texts
