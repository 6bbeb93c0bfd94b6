"""LeRobot data sets v2.0, v2.1 and v3.0: tables in parquet, pictures in mp4 or in the tables.

Fields keep their names: ``observation.state`` is ``steps/observation/state``,
``observation.images.front`` is ``steps/observation/images.front``, ``action`` is ``steps/action``,
and all others, such as ``timestamp``, lie under ``steps`` too. ``next.reward`` is also ``reward``.
Beside them come ``language_instruction`` (the text of ``task_index``), ``is_first`` and
``is_last``. Rows of an episode are found by the table's own ``episode_index``.
https://huggingface.co/docs/lerobot/lerobot-dataset-v3
"""

from __future__ import annotations

import collections
import json
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ambient_jax.data import dataset, files
from ambient_jax.data.files import first_line
from ambient_jax.data.storage.lerobot_meta import INFO, Metadata
from ambient_jax.data.storage.lerobot_schema import LANGUAGE, path_of
from ambient_jax.data.storage.video import Clip

_INDEX = ("episode_index", "task_index", "timestamp")
_CACHED = 1 << 28  # bytes of the parts of tables that are kept


def is_here(directory: str) -> bool:
    """Whether a folder holds a data set of LeRobot."""
    return os.path.isfile(os.path.join(directory, INFO))


class LeRobotDataset(dataset.FolderDataset):
    """One data set of LeRobot; see ``storage.open_dataset``.

    A camera is absent in episodes whose video is missing. A data set that lacks a table opens only
    with ``allow_missing``; the episodes in it cannot be read.
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
        directory = os.fspath(directory)
        self.meta = Metadata(directory)
        self.ends_in_filler = dataset.notes_filler(os.path.join(directory, "meta"), default=False)
        splits = self.meta.splits()
        name, which = dataset.choose(split, {n: len(s) for n, s in splits.items()}, directory)
        self._rows = [self.meta.episodes[i] for i in splits[name][which]]
        tables = [self.meta.table(row) for row in self._rows]
        if not allow_missing:
            gone = [path for path in dict.fromkeys(tables) if not os.path.exists(path)]
            dataset.raise_missing(gone, "fetch it, or take a split without its episodes")
        opened = dataset.Opened(
            name=os.path.basename(os.path.abspath(directory)),
            version=self.meta.version,
            features=self.meta.features,
            files=tables,
            ids=np.array([row["episode_index"] for row in self._rows]),
            hz=self.meta.hz,
        )
        super().__init__(directory, opened, split, required, keys=keys, last_step=last_step)
        self.in_order = self.meta.is_v3
        self._columns = [n for n in self.meta.fields if path_of(n) in self.keys]
        if "steps/reward" in self.keys and "reward" not in self.meta.fields:
            self._columns.append("next.reward")
        cameras = [c for c in self.meta.cameras if path_of(c) in self.keys]
        self._columns = list(dict.fromkeys(n for n in self._columns if n not in cameras))
        self._videos = {c: [self.meta.video(row, c) for row in self._rows] for c in cameras}
        seen = [path for clips in self._videos.values() for path, _ in clips]
        self._marks = [*self.meta.marks, *dict.fromkeys(seen)]
        self._tables = _Tables()

    def stated(self):
        return self.meta.stated() if len(self) == len(self.meta.episodes) else {}

    def dimensions(self):
        return {path_of(name): field["names"] for name, field in self.meta.fields.items()}

    def _episode(self, position):
        row, file = self._rows[position], self._file(position)
        number, length = row["episode_index"], row["length"]
        table = self._tables.rows(file, number, [*self._columns, *_INDEX])
        if len(table) != length:
            raise ValueError(
                f"{file} has {len(table)} rows of episode {number}, {self.meta.listing} says "
                f"{length}: one of the two is of another version of the data"
            )
        where = f"{file}, episode {number}"
        flat: dict[str, Any] = dataset.boundaries(length)
        for name in self._columns:
            flat[path_of(name)] = _values(table[name], self.meta.fields[name], f"{where}: {name}")
        if "steps/reward" in self.keys and "next.reward" in self._columns:
            flat.setdefault("steps/reward", flat["steps/next.reward"])
        if LANGUAGE in self.keys:
            flat[LANGUAGE] = self._texts(row, table, where)
        for camera, videos in self._videos.items():
            path, start = videos[position]
            absent = "" if os.path.exists(path) else "the file is missing"
            times = start + self._times(table, where)
            flat[path_of(camera)] = Clip(path, times, 1 / self.meta.hz, absent)
        return flat

    def _videos_of(self, position):
        return [videos[position][0] for videos in self._videos.values()]

    def _file(self, position):
        return self.shard_files[dataset.file_of(self._ends, position)]

    def _texts(self, row, table, where):
        if "task_index" not in table.column_names:
            return np.array([str((row.get("tasks") or [""])[0]).encode()] * len(table), object)
        numbers = table["task_index"].to_pylist()
        for number in set(numbers) - set(self.meta.tasks):
            raise ValueError(
                f"{where} has task_index {number}, which is none of the {len(self.meta.tasks)} "
                "tasks under meta: fetch them again"
            )
        return np.array([self.meta.tasks[n].encode() for n in numbers], object)

    def _times(self, table, where):
        """Times [T] in s from the first step, which rise by a step's time each.

        A video begins with its episode's first step, whose timestamp is not always 0.
        """
        period = 1 / self.meta.hz
        if "timestamp" not in table.column_names:
            return np.arange(len(table)) * period
        field = {"dtype": "float64", "shape": ()}
        times = _values(table["timestamp"], field, f"{where}: timestamp").astype(np.float64)
        wrong = ~(np.abs(np.diff(times) - period) <= period / 2)  # NaN too
        if wrong.any():
            step = int(np.flatnonzero(wrong)[0])
            raise ValueError(
                f"{where}: timestamp goes from {times[step]:.4f} to {times[step + 1]:.4f} s at "
                f"step {step}, but fps is {self.meta.hz:g}: {INFO} has another rate than the data"
            )
        return times - times[0]


class _Tables:
    """Rows of episodes from parquet files; parts that were read last stay in memory."""

    def __init__(self):
        self._parts: collections.OrderedDict[tuple, pa.Table] = collections.OrderedDict()
        self._spans: dict[str, Mapping[int, tuple[int, int]]] = {}
        self._lock = threading.Lock()

    def __getstate__(self):
        return {}

    def __setstate__(self, state):
        self.__init__()

    def rows(self, path: str, episode: int, columns: Sequence[str]) -> pa.Table:
        """The rows of one episode; ValueError: the file is damaged or has no such episode."""
        files.check_file(path)
        try:
            with pq.ParquetFile(path) as file, self._lock:
                names = file.schema_arrow.names
                for name in columns:
                    if name not in names and name not in _INDEX:
                        raise ValueError(
                            f"{path} has no column {name!r}, it has {', '.join(names)}"
                        )
                columns = [n for n in dict.fromkeys(columns) if n in names]
                start, stop = self._span(path, file, episode)
                return self._slice(path, file, columns, start, stop)
        except pa.ArrowException as error:
            raise ValueError(
                f"{path} cannot be read ({first_line(error)}): fetch it again"
            ) from error
        except OSError as error:
            if "Parquet" in str(error) or "parquet" in str(error):
                text = f"{path} cannot be read ({first_line(error)}): fetch it again"
                raise ValueError(text) from error
            raise files.unavailable(error, path) from error

    def _span(self, path, file, episode):
        if path not in self._spans:
            if "episode_index" not in file.schema_arrow.names:
                raise ValueError(f"{path} has no column 'episode_index'")
            index = file.read(columns=["episode_index"])["episode_index"].to_numpy()
            edges = np.flatnonzero(np.diff(index)) + 1
            starts, stops = [0, *edges], [*edges, len(index)]
            spans = dict(zip(index[starts].tolist(), zip(starts, stops, strict=True), strict=True))
            if len(spans) < len(starts):
                raise ValueError(f"{path}: rows of one episode do not follow each other")
            self._spans[path] = spans
        if episode not in self._spans[path]:
            raise ValueError(f"{path} has no row of episode {episode}")
        return self._spans[path][episode]

    def _slice(self, path, file, columns, start, stop):
        pieces, first = [], 0
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if first < stop and start < first + count:
                part = self._part(path, file, group, columns)
                pieces.append(part.slice(max(start - first, 0), stop - max(start, first)))
            first += count
        return pa.concat_tables(pieces)

    def _part(self, path, file, group, columns):
        key = path, group, tuple(columns)
        if key not in self._parts:
            self._parts[key] = file.read_row_group(group, columns=columns)
            while len(self._parts) > 1 and sum(t.nbytes for t in self._parts.values()) > _CACHED:
                self._parts.popitem(last=False)
        self._parts.move_to_end(key)
        return self._parts[key]


def _values(column: pa.ChunkedArray, field: Mapping[str, Any], where: str) -> np.ndarray:
    """A column as an array [T, ...]: numbers, texts as bytes, or encoded pictures."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks else pa.array([], column.type)
    if array.null_count:
        raise ValueError(f"{where} is empty at step {int(np.argmax(array.is_null()))}")
    if field["dtype"] == "image":
        return _pictures(array, where)
    if field["dtype"] in ("string", "language"):
        texts = [t if isinstance(t, str) else json.dumps(t) for t in array.to_pylist()]
        return np.array([t.encode() for t in texts], object)
    shape = tuple(field["shape"])
    length = len(array)
    while pa.types.is_nested(array.type):
        if not (
            pa.types.is_list(array.type)
            or pa.types.is_large_list(array.type)
            or pa.types.is_fixed_size_list(array.type)
        ):
            raise ValueError(f"{where} is {array.type}, expected numbers")
        sizes = np.unique(pc.list_value_length(array))
        if len(sizes) > 1:
            low, high = sizes[[0, -1]]
            raise ValueError(f"{where} has {low} to {high} numbers a step, {INFO} says {shape}")
        array = array.flatten()
    if array.null_count or not (
        pa.types.is_integer(array.type)
        or pa.types.is_floating(array.type)
        or pa.types.is_boolean(array.type)
    ):
        raise ValueError(f"{where} is {array.type} with {array.null_count} gaps, expected numbers")
    values = array.to_numpy(zero_copy_only=False)
    size = int(np.prod(shape))
    if values.size != length * size:
        raise ValueError(
            f"{where} has {values.size / max(length, 1):g} numbers a step, {INFO} says {size}"
        )
    return values.astype(field["dtype"], copy=False).reshape(length, *shape)


def _pictures(array: Any, where: str) -> np.ndarray:
    """Encoded pictures, [T] bytes."""
    blobs = [p.get("bytes") if isinstance(p, dict) else p for p in array.to_pylist()]
    for step, blob in enumerate(blobs):
        if not isinstance(blob, bytes) or not blob:
            raise ValueError(f"{where} has no picture at step {step}, expected its bytes")
    out = np.empty(len(blobs), object)
    out[:] = blobs
    return out
