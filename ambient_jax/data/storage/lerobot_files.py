"""Files of a LeRobot data set that is being written: tables, tasks, statistics."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ambient_jax.data.storage.lerobot_fields import pictures

CHUNK = 1000  # files of a folder
PLACE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
_LOOKED_AT = 8  # pictures of an episode that its statistics are taken from

Moments = dict[str, np.ndarray]


def indices(prefix: str, number: int) -> dict[str, int]:
    """Columns that say where a file is."""
    return {f"{prefix}chunk_index": number // CHUNK, f"{prefix}file_index": number % CHUNK}


class Tables:
    """Parquet files of a folder, one row group a call; another file from ``limit`` bytes on."""

    def __init__(self, folder: pathlib.Path, limit: float):
        self._folder, self._limit = folder, limit
        self._file = -1
        self._sink: Any = None
        self._writer: pq.ParquetWriter | None = None
        self.schema: pa.Schema | None = None

    def write(self, table: pa.Table) -> int:
        """Appends rows and returns the number of their file."""
        self.schema = self.schema or table.schema
        if self._writer is None or self._sink.tell() >= self._limit:
            self.close()
            self._file += 1
            path = self._folder / f"{PLACE.format(**indices('', self._file))}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            self._sink = path.open("wb")
            self._writer = pq.ParquetWriter(self._sink, self.schema)
        self._writer.write_table(table.cast(self.schema), row_group_size=max(1, len(table)))
        return self._file

    def close(self) -> None:
        """Ends the file that is open."""
        if self._writer is not None:
            self._writer.close()
            self._sink.close()
            self._writer = None


def write_tasks(path: pathlib.Path, texts: Sequence[str]) -> None:
    """Writes the table of tasks, whose texts pandas sees as the index, as LeRobot's reader does."""
    table = pa.table({"task_index": np.arange(len(texts)), "task": pa.array(texts, pa.string())})
    columns = [("task_index", "int64", "int64"), ("task", "unicode", "object")]
    described = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            {"name": n, "field_name": n, "pandas_type": p, "numpy_type": t, "metadata": None}
            for n, p, t in columns
        ],
        "pandas_version": "2.2.0",
    }
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(described)}), path)


def write_json(path: pathlib.Path, content: Any) -> None:
    """Writes JSON as LeRobot does, indented."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False), encoding="utf-8")


def moments(values: np.ndarray) -> Moments:
    """Of values [N, ...]: "min", "max", "mean" and "std" [...], "count" [1], in float64."""
    values = np.asarray(values, np.float64)
    return {
        "min": values.min(0),
        "max": values.max(0),
        "mean": values.mean(0),
        "std": values.std(0),
        "count": np.array([len(values)]),
    }


def picture_moments(value: Any) -> Moments:
    """Moments of the colours, [3, 1, 1] within 0 to 1, of some pictures over the episode."""
    at = np.unique(np.linspace(0, len(value) - 1, _LOOKED_AT).round().astype(int))
    seen = [p for i in at for p in pictures(value[int(i) : int(i) + 1])]
    colours = np.stack(seen).reshape(-1, 3) / 255
    found = moments(colours) | {"count": np.array([len(seen)])}
    return {n: v if n == "count" else v.reshape(3, 1, 1) for n, v in found.items()}


def pooled(old: Mapping[str, np.ndarray] | None, new: Moments) -> Moments:
    """Moments of the values of both."""
    if old is None:
        return new
    count = old["count"] + new["count"]
    share = float(new["count"][0] / count[0])
    shift = new["mean"] - old["mean"]
    variance = (1 - share) * old["std"] ** 2 + share * new["std"] ** 2
    return {
        "min": np.minimum(old["min"], new["min"]),
        "max": np.maximum(old["max"], new["max"]),
        "mean": old["mean"] + share * shift,
        "std": np.sqrt(variance + share * (1 - share) * shift**2),
        "count": count,
    }
