"""Metadata of a LeRobot data set: checked before a table is opened.

``meta/info.json`` names the fields and where files lie. Episodes and tasks are lines of JSON in
v2.0 and v2.1, tables of parquet in v3.0.
"""

import functools
import glob
import json
import os
import re
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow_datasets as tfds

from ambient_jax.data import files
from ambient_jax.data.files import first_line
from ambient_jax.data.storage import lerobot_schema as schema
from ambient_jax.data.storage.lerobot_schema import path_of

INFO = "meta/info.json"
VERSIONS = ("v2.0", "v2.1", "v3.0")
_PLACE = re.compile(r"\{(\w+)(?::\d*d)?\}")
_COUNTS = {"total_episodes": "episodes", "total_frames": "steps"}
_MOST_HZ = 10_000
_MOST_SECONDS = 1e9  # of a video


class Metadata:
    """What the files under ``meta`` say.

    Attributes:
      directory, version: of the data set.
      hz: frames per second.
      fields: the features of info.json by name.
      features: the same as TFDS connectors, nested as an episode is.
      cameras: names of the fields that are videos.
      episodes: one row an episode, with "episode_index", "length", "tasks" and, in v3, its files.
      tasks: text by number.
    """

    def __init__(self, directory: str):
        self.directory = directory
        self._info = self._json(INFO)
        self.version = self._version()
        self.hz = self._number("fps", 0, _MOST_HZ)
        self.fields = self._fields()
        self.cameras = tuple(n for n, f in self.fields.items() if f["dtype"] == "video")
        self._check_templates()
        self.tasks = self._tasks()
        self.episodes = self._episodes()
        self._check_counts()

    @property
    def listing(self) -> str:
        """The file that lists the episodes."""
        return "meta/episodes" if self.is_v3 else "meta/episodes.jsonl"

    @property
    def is_v3(self) -> bool:
        return self.version == "v3.0"

    @property
    def about(self) -> dict[str, Any]:
        """What features cannot say: "fps", "robot_type", "tasks" in order, "names" by field."""
        whole = list(self.tasks) == list(range(len(self.tasks)))
        given = {n: self._info["features"][n].get("names") for n in self.fields}
        return {
            "fps": self.hz,
            "robot_type": str(self._info.get("robot_type") or ""),
            "tasks": list(self.tasks.values()) if whole else [],
            "names": {n: names for n, names in given.items() if names},
        }

    @functools.cached_property
    def marks(self) -> list[str]:
        """Paths of the files that were read."""
        tasks = "meta/tasks.parquet" if self.is_v3 else "meta/tasks.jsonl"
        names = [INFO, tasks, *(self._parts() if self.is_v3 else [self.listing])]
        return [os.path.join(self.directory, name) for name in names]

    @functools.cached_property
    def features(self) -> tfds.features.FeaturesDict:
        return schema.connectors(self.fields)

    def splits(self) -> dict[str, np.ndarray]:
        """Positions of each split's episodes; of those that are listed."""
        count = len(self.episodes)
        given = self._info.get("splits") or {"train": f"0:{count}"}
        if not isinstance(given, dict):
            self._refuse(f"splits are {given!r}, expected {{'train': '0:{count}'}}")
        out = {}
        for name, span in given.items():
            ends = re.fullmatch(r"(\d+):(\d+)", str(span))
            if not ends:
                self._refuse(f"split {name!r} is {span!r}, expected 'first:end', such as '0:100'")
            numbers = [e["episode_index"] for e in self.episodes]
            first, end = int(ends[1]), int(ends[2])
            out[name] = np.array([i for i, n in enumerate(numbers) if first <= n < end], np.int64)
        return out

    def table(self, episode: Mapping[str, Any]) -> str:
        """Path of the table with an episode's numbers."""
        return self._place("data_path", episode, "data/")

    def video(self, episode: Mapping[str, Any], camera: str) -> tuple[str, float]:
        """Path of an episode's video, and the time in s at which the episode begins in it."""
        start = episode.get(f"videos/{camera}/from_timestamp", 0.0)
        if not isinstance(start, int | float) or not 0 <= start < _MOST_SECONDS:
            number = episode["episode_index"]
            text = f"videos/{camera}/from_timestamp of episode {number} is {start!r}, expected s"
            self._refuse(text, self.listing)
        return self._place("video_path", episode, f"videos/{camera}/", video_key=camera), start

    def stated(self) -> dict[str, dict[str, np.ndarray]]:
        """What the data set's own files say of each field; see ``dataset.Dataset.stated``."""
        path = os.path.join(self.directory, "meta/stats.json")
        if os.path.exists(path):
            return {
                path_of(name): schema.moments(s)
                for name, s in self._json("meta/stats.json").items()
            }
        rows = self._lines("meta/episodes_stats.jsonl", optional=True)
        return schema.pooled([row["stats"] for row in rows if "stats" in row])

    def _refuse(self, text: str, name: str = INFO) -> NoReturn:
        raise ValueError(f"{os.path.join(self.directory, name)}: {text}")

    def _json(self, name: str) -> dict[str, Any]:
        value = files.read_json(os.path.join(self.directory, name))
        if not isinstance(value, dict):
            self._refuse(f"it is {type(value).__name__}, expected an object", name)
        return value

    def _lines(self, name: str, optional: bool = False) -> list[dict[str, Any]]:
        """Objects of a file of JSON lines."""
        path, rows = os.path.join(self.directory, name), []
        if optional and not os.path.exists(path):
            return []
        with files.open_file(path) as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except ValueError as error:
                    self._refuse(f"line {number} is no JSON ({first_line(error)})", name)
                if not isinstance(row, dict):
                    self._refuse(f"line {number} is no JSON object", name)
                rows.append(row)
        return rows

    def _version(self) -> str:
        version = self._info.get("codebase_version")
        if version not in VERSIONS:
            self._refuse(
                f"codebase_version is {version!r}, expected one of {', '.join(VERSIONS)}: convert "
                "the data set with LeRobot's own scripts"
            )
        return str(version)

    def _number(self, name: str, low: float, high: float) -> float:
        value = self._info.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low < value <= high:
            self._refuse(f"{name} is {value!r}, expected a number above {low}, at most {high}")
        return float(value)  # type: ignore[arg-type]

    def _fields(self) -> dict[str, dict[str, Any]]:
        try:
            return schema.read_fields(self._info.get("features"))
        except ValueError as error:
            self._refuse(str(error))

    def _check_templates(self) -> None:
        for template in ("data_path", *(["video_path"] if self.cameras else [])):
            text = self._info.get(template)
            if not isinstance(text, str) or not text:
                self._refuse(f"{template} is {text!r}, expected where files lie")
            bare = _PLACE.sub("", text)
            if "{" in bare or "}" in bare:
                self._refuse(
                    f"{template} is {text!r}, expected places such as {{episode_index:06d}}"
                )
            if os.path.isabs(text) or ".." in text.split("/") or "://" in text:
                self._refuse(f"{template} is {text!r}, which leads out of the data set")

    def _place(self, template: str, episode: Mapping[str, Any], prefix: str, **more: str) -> str:
        """A file by its template; by its name, where a template is not what was written."""
        values = {"episode_index": episode["episode_index"], **more}
        if self.is_v3:
            values |= {f"{n}_index": episode.get(f"{prefix}{n}_index") for n in ("chunk", "file")}
        else:
            values["episode_chunk"] = episode["episode_index"] // self._chunk
        text = str(self._info[template])
        for place in _PLACE.finditer(text):
            if values.get(place[1]) is None:
                self._refuse(f"{template} asks for {place[1]!r}, which {self.listing} has not")
        path = os.path.join(self.directory, text.format(**values))
        if not self.is_v3 and not os.path.exists(path):
            found = self._by_name.get((more.get("video_key", ""), os.path.basename(path)))
            path = found or path
        return path

    @functools.cached_property
    def _by_name(self) -> dict[tuple[str, str], str]:
        """Files of v2 by (camera, file name)."""
        out = {}
        for pattern, is_video in (("data/*/*.parquet", False), ("videos/*/*/*.mp4", True)):
            for path in glob.glob(os.path.join(glob.escape(self.directory), pattern)):
                camera = os.path.basename(os.path.dirname(path)) if is_video else ""
                out[camera, os.path.basename(path)] = path
        return out

    @functools.cached_property
    def _chunk(self) -> int:
        size = self._info.get("chunks_size", 1000)
        if type(size) is not int or size < 1:
            self._refuse(f"chunks_size is {size!r}, expected a positive whole number")
        return size

    def _tasks(self) -> dict[int, str]:
        if self.is_v3:
            table = self._parquet("meta/tasks.parquet")
            name = "task" if "task" in table.column_names else "__index_level_0__"
            self._need(table, ("task_index", name), "meta/tasks.parquet")
            numbers, texts = table["task_index"].to_pylist(), table[name].to_pylist()
        else:
            rows = self._lines("meta/tasks.jsonl")
            for row in rows:
                if type(row.get("task_index")) is not int or "task" not in row:
                    self._refuse(f"{row} lacks its task_index or task", "meta/tasks.jsonl")
            numbers, texts = [r["task_index"] for r in rows], [r["task"] for r in rows]
        return {int(n): str(t) for n, t in sorted(zip(numbers, texts, strict=True))}

    def _episodes(self) -> list[dict[str, Any]]:
        rows = self._listed() if self.is_v3 else self._lines(self.listing)
        seen: set[int] = set()
        for row in rows:
            index, length = row.get("episode_index"), row.get("length")
            if type(index) is not int or index < 0 or index in seen:
                self._refuse(f"episode_index {index!r} is no number or comes twice", self.listing)
            if type(length) is not int or length < 1:
                self._refuse(
                    f"episode {index} has length {length!r}, expected at least 1 step", self.listing
                )
            seen.add(index)
        if not rows:
            self._refuse("it lists no episode", self.listing)
        rows.sort(key=lambda row: row["episode_index"])
        return rows

    def _parts(self) -> list[str]:
        pattern = os.path.join(glob.escape(self.directory), "meta/episodes/*/*.parquet")
        return [os.path.relpath(p, self.directory) for p in sorted(glob.glob(pattern))]

    def _listed(self) -> list[dict[str, Any]]:
        """Rows of v3's tables of episodes, without their statistics."""
        if not self._parts():
            raise FileNotFoundError(
                f"{self.directory} has no meta/episodes/*/*.parquet, which v3.0 needs: fetch it"
            )
        rows = []
        for name in self._parts():
            table = self._parquet(name)
            columns = ["episode_index", "length", "tasks", "data/chunk_index", "data/file_index"]
            columns += [
                f"videos/{camera}/{what}"
                for camera in self.cameras
                for what in ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
            ]
            self._need(table, [c for c in columns if c != "tasks"], name)
            rows += table.select([c for c in columns if c in table.column_names]).to_pylist()
        return rows

    def _parquet(self, name: str) -> pa.Table:
        path = os.path.join(self.directory, name)
        files.check_file(path)
        try:
            file = pq.ParquetFile(path)
            wanted = [n for n in file.schema_arrow.names if not n.startswith("stats/")]
            return file.read(columns=wanted)
        except pa.ArrowException as error:
            raise ValueError(
                f"{path} cannot be read ({first_line(error)}): fetch it again"
            ) from error

    def _need(self, table: pa.Table, columns: Any, name: str) -> None:
        for column in columns:
            if column not in table.column_names:
                self._refuse(f"it has no column {column!r}", name)

    def _check_counts(self) -> None:
        counted = len(self.episodes), sum(e["length"] for e in self.episodes)
        for (name, what), count in zip(_COUNTS.items(), counted, strict=True):
            stated = self._info.get(name, count)
            if stated != count:
                self._refuse(
                    f"{name} is {stated!r}, but {self.listing} lists {count} {what}: one of the "
                    "two is of another version of the data"
                )
