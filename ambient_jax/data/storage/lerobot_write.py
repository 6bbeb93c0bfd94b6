"""Writes any data set as LeRobot v3.0: tables in parquet, pictures in mp4 or in the tables.

LeRobot's own package reads it. A field keeps its name, ``steps/observation/a/b`` becomes
``observation.a.b``. Not kept, with a warning that names them: fields of an episode rather than of a
step, and fields whose size varies. LeRobot does not tell a number from a vector of one.
https://huggingface.co/docs/lerobot/lerobot-dataset-v3
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tqdm
from absl import logging

from ambient_jax import _checks
from ambient_jax.data import files
from ambient_jax.data.dataset import LAST_ACTION, NOTES, Dataset
from ambient_jax.data.features import flatten
from ambient_jax.data.paths import expanded, replacing_folder
from ambient_jax.data.storage import lerobot_fields as fields_lib
from ambient_jax.data.storage import lerobot_files as files_lib
from ambient_jax.data.storage.lerobot import LeRobotDataset
from ambient_jax.data.storage.lerobot_fields import NUMBERED, Field
from ambient_jax.data.storage.lerobot_files import CHUNK, PLACE, Moments, Tables, indices
from ambient_jax.data.storage.lerobot_meta import INFO
from ambient_jax.data.storage.lerobot_schema import LANGUAGE
from ambient_jax.data.storage.video_write import CODECS, VideoWriter

_MEGABYTE = 1 << 20
_ROWS = 1000  # episodes that are written to the list at once
_TOLERANCE = 1e-4  # s, of LeRobot's own reader


def about(dataset: Dataset) -> dict[str, Any]:
    """What LeRobot says about a data set beyond its features: "fps", "robot_type", "tasks" (texts
    in order) and "names" of numbers by field; of one that was converted from LeRobot too."""
    if isinstance(dataset, LeRobotDataset):
        return dataset.meta.about
    path = os.path.join(dataset.directory, NOTES)
    given = files.read_json(path).get("lerobot") if os.path.isfile(path) else None
    return given if isinstance(given, dict) else {}


def write_lerobot(
    directory: str | os.PathLike[str],
    dataset: Dataset,
    *,
    hz: float | None = None,
    videos: str = "h264",
    language: str = LANGUAGE,
    robot_type: str = "",
    data_megabytes: float = 100,
    video_megabytes: float = 200,
    overwrite: bool = False,
    progress: bool = False,
) -> Path:
    """Writes a split's episodes, one at a time in memory, and returns the folder.

    It appears under its name once all is written. Episodes are numbered from 0 on.

    Args:
      directory: the new folder.
      dataset: from ``storage.open_dataset``, best with ``decode_images=False``, which keeps
        encoded pictures as they are, and ``last_step="keep"``.
      hz: steps per second; the data set's own by default.
      videos: "h264" or "av1" (a little is lost), "lossless" (h264 of RGB, ten times as large), or
        "" to keep pictures in the tables: encoded ones as they are, others as PNG.
      language: the text that becomes the task; none where the data set lacks it.
      robot_type: of info.json; the data set's own by default.
      data_megabytes, video_megabytes: sizes from which on the next episode begins another file.
      overwrite: replace a folder of that name.
      progress: show a bar.

    Raises:
      FileExistsError: the folder exists and ``overwrite`` is False.
      ValueError: hz is unknown, or an episode cannot be read or written (named).
    """
    _checks.one_of("videos", videos, ("", *CODECS))
    if hz is not None:
        _checks.number("hz", hz, 0, above=True)
    known = about(dataset)
    hz = hz or getattr(dataset, "hz", None) or known.get("fps")
    if not hz:
        raise ValueError(f"{dataset.directory} does not say its rate: give hz=, steps per second")
    limits = data_megabytes * _MEGABYTE, video_megabytes * _MEGABYTE
    with replacing_folder(expanded(directory), overwrite) as partial:
        writer = _Writer(partial, dataset, known, float(hz), videos, language, limits)
        bar = {"total": len(dataset), "unit": "episode", "desc": dataset.name}
        try:
            for number, episode in tqdm.tqdm(_episodes(dataset), **bar, disable=not progress):
                try:
                    writer.add(flatten(episode))
                except ValueError as error:
                    where = f"{dataset.directory}, episode {number}"
                    raise ValueError(f"{where}: {error}") from error
        except BaseException:
            with contextlib.suppress(Exception):  # files that are deleted
                writer.close()
            raise
        writer.close()
        writer.finish(robot_type or known.get("robot_type", ""))
    logging.info("wrote %s: %d episodes, %d steps", directory, writer.count, writer.steps)
    return Path(expanded(directory))


def _episodes(dataset: Dataset) -> Iterator[tuple[int, Any]]:
    for shard in range(len(dataset.shard_lengths)):
        yield from dataset.stream(shard)


class _Writer:
    """The files of one new data set."""

    def __init__(
        self,
        folder: Path,
        dataset: Dataset,
        known: Mapping[str, Any],
        hz: float,
        videos: str,
        language: str,
        limits: tuple[float, float],
    ):
        self._folder, self._dataset, self._known, self._hz = folder, dataset, known, hz
        self._codec, self._language, self._limits = videos, language, limits
        self.count = self.steps = 0
        self._fields: dict[str, Field] = {}
        self._videos: dict[str, VideoWriter] = {}
        self._tables: Tables | None = None
        self._listing: Tables | None = None
        self._rows: list[dict[str, Any]] = []
        self._tasks = {t: i for i, t in enumerate(dict.fromkeys(known.get("tasks", ())))}
        self._moments: dict[str, Moments] = {}
        self._time, self._retimed, self._filler = "float32", 0, False

    def add(self, flat: Mapping[str, Any]) -> None:
        """Writes one flat episode."""
        if not self.count:
            self._begin(flat)
        steps = {p: v for p, v in flat.items() if p.startswith("steps/")}
        if missing := [p for p in self._fields if p not in steps]:
            raise ValueError(f"it has no {missing[0]}, which the first episode has")
        length = len(next(iter(steps.values())))
        if not length:
            raise ValueError("it has no step, LeRobot needs one: take a split without it")
        texts = self._texts(steps, length)
        numbers = self._numbers(steps, texts)
        columns = {name: pa.array(value) for name, value in numbers.items()}
        stats = {name: files_lib.moments(value[:, None]) for name, value in numbers.items()}
        row: dict[str, Any] = {
            "episode_index": self.count,
            "tasks": list(dict.fromkeys(texts)),
            "length": length,
            "dataset_from_index": self.steps,
            "dataset_to_index": self.steps + length,
        }
        for path, field in self._fields.items():
            if field.kind == "picture":
                stats[field.name] = files_lib.picture_moments(steps[path])
            elif field.kind == "number":
                values = np.asarray(steps[path]).reshape(length, *field.shape)
                stats[field.name] = files_lib.moments(values)
            if field.dtype == "video":
                row |= self._film(field, steps[path], length)
            else:
                columns[field.name] = fields_lib.column(field, steps[path])
        self._tables = self._tables or Tables(self._folder / "data", self._limits[0])
        row |= indices("data/", self._tables.write(pa.table(columns)))
        row |= indices("meta/episodes/", 0)
        for name, moments in stats.items():
            row |= {f"stats/{name}/{what}": value.tolist() for what, value in moments.items()}
            self._moments[name] = files_lib.pooled(self._moments.get(name), moments)
        self._rows.append(row)
        if len(self._rows) == _ROWS:
            self._list()
        self.count, self.steps = self.count + 1, self.steps + length

    def _begin(self, flat: Mapping[str, Any]) -> None:
        raw = self._dataset.ends_in_filler and self._dataset.last_step != "drop"
        self._filler = raw and bool(np.ravel(flat.get("steps/is_last", False))[-1])
        task = self._language if self._language in flat else ""
        self._fields, left_out = fields_lib.fields(
            self._dataset, flat, self._known, bool(self._codec), task
        )
        if not self._known:
            anew = "LeRobot's own, it is numbered anew"
            left_out |= {f"steps/{n}": anew for n in NUMBERED if f"steps/{n}" in flat}
        for path, why in left_out.items():
            logging.warning("%s: %s is left out: %s", self._dataset.directory, path, why)
        if not task:
            logging.warning("%s has no %s: tasks are ''", self._dataset.directory, self._language)

    def _texts(self, steps: Mapping[str, Any], length: int) -> list[str]:
        if self._language not in steps:
            return [""] * length
        values = steps[self._language]
        try:
            return [t.decode() if isinstance(t, bytes) else str(t) for t in values]
        except UnicodeDecodeError as error:
            raise ValueError(f"{self._language} is no UTF-8 text ({error})") from error

    def _numbers(self, steps: Mapping[str, Any], texts: Sequence[str]) -> dict[str, np.ndarray]:
        """The columns that every data set of LeRobot has."""
        for text in texts:
            self._tasks.setdefault(text, len(self._tasks))
        at = np.arange(len(texts))
        times = self._times(steps, len(texts))
        self._time = times.dtype.name
        return {
            "timestamp": times,
            "frame_index": at,
            "episode_index": np.full(len(texts), self.count),
            "index": self.steps + at,
            "task_index": np.array([self._tasks[text] for text in texts]),
        }

    def _times(self, steps: Mapping[str, Any], length: int) -> np.ndarray:
        """Timestamps [T] in s: those given, if pictures are found by them."""
        even = np.arange(length) / self._hz
        given = np.asarray(steps.get("steps/timestamp", even.astype(np.float32))).reshape(length)
        if given.dtype.kind == "f" and np.abs(given - even).max() < max(
            _TOLERANCE, even[-1] * np.finfo(given.dtype).eps
        ):
            return given
        self._retimed += 1
        return even.astype(given.dtype if given.dtype.kind == "f" else np.float32)

    def _film(self, field: Field, value: Any, length: int) -> dict[str, Any]:
        """Appends an episode to a camera's video; columns that say where it is."""

        def path(number: int) -> str:
            place = PLACE.format(**indices("", number))
            return str(self._folder / "videos" / field.name / f"{place}.mp4")

        if field.name not in self._videos:
            self._videos[field.name] = VideoWriter(path, self._hz, self._codec, self._limits[1])
        place = self._videos[field.name].write(fields_lib.pictures(value))
        if place.pictures != length:
            raise ValueError(f"{field.path} has {place.pictures} pictures in {length} steps")
        at = {"from_timestamp": place.start, "to_timestamp": place.stop}
        prefix = f"videos/{field.name}/"
        return indices(prefix, place.file) | {f"{prefix}{name}": time for name, time in at.items()}

    def _list(self) -> None:
        if self._rows:
            schema = self._listing.schema if self._listing else None
            self._listing = self._listing or Tables(self._folder / "meta/episodes", np.inf)
            self._listing.write(pa.Table.from_pylist(self._rows, schema))
        self._rows = []

    def close(self) -> None:
        """Ends all files."""
        self._list()
        for writer in (*self._videos.values(), self._tables, self._listing):
            if writer:
                writer.close()

    def finish(self, robot_type: str) -> None:
        """Writes the metadata."""
        if self._retimed:
            logging.warning(
                "%s: steps/timestamp of %d of %d episodes did not fit %g Hz from 0 s on, LeRobot's "
                "reader needs that: they are step / hz now",
                *(self._dataset.directory, self._retimed, self.count, self._hz),
            )
        features = {}
        for field in self._fields.values():
            features[field.name] = field.info
            if field.dtype == "video":
                features[field.name]["info"] = self._video_info(field)
        default = {"timestamp": self._time} | dict.fromkeys(NUMBERED, "int64")
        features |= {n: {"dtype": d, "shape": [1], "names": None} for n, d in default.items()}
        info = {
            "codebase_version": "v3.0",
            "robot_type": robot_type or "unknown",
            "total_episodes": self.count,
            "total_frames": self.steps,
            "total_tasks": len(self._tasks),
            "chunks_size": CHUNK,
            "data_files_size_in_mb": int(self._limits[0] / _MEGABYTE),
            "video_files_size_in_mb": int(self._limits[1] / _MEGABYTE),
            "fps": int(self._hz) if self._hz == int(self._hz) else self._hz,
            "splits": {"train": f"0:{self.count}"},
            "data_path": f"data/{PLACE}.parquet",
            "video_path": f"videos/{{video_key}}/{PLACE}.mp4" if self._videos else None,
            "features": features,
        }
        files_lib.write_json(self._folder / INFO, info)
        if self._filler:
            files_lib.write_json(self._folder / "meta" / NOTES, {LAST_ACTION: "filler"})
        stats = {
            name: {what: value.tolist() for what, value in moments.items()}
            for name, moments in self._moments.items()
        }
        files_lib.write_json(self._folder / "meta/stats.json", stats)
        files_lib.write_tasks(self._folder / "meta/tasks.parquet", list(self._tasks))

    def _video_info(self, field: Field) -> dict[str, Any]:
        height, width, channels = field.shape
        return {
            "video.height": height,
            "video.width": width,
            "video.channels": channels,
            "video.codec": "av1" if self._codec == "av1" else "h264",
            "video.pix_fmt": self._videos[field.name].pixels,
            "video.fps": self._hz,
            "video.is_depth_map": False,
            "has_audio": False,
        }
