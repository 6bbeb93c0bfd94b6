"""The bounds file: sigma_min and sigma_max of every step, written once and joined by training.

It is a parquet file with the columns of ``BoundsTable``; source is a dictionary of strings. The
metadata of its schema are one JSON text: format, method and settings, the library's version and, by
source, the data's fingerprint and the number of rows. Rows are joined by id, and only to data of
the same fingerprint.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ambient_jax import __version__, _checks, admission
from ambient_jax.data import files
from ambient_jax.data.paths import check_local, expanded, replacing

FORMAT = 1
METADATA_KEY = b"ambient_jax.bounds"
_SCHEMA = pa.schema(
    [
        ("source", pa.dictionary(pa.int32(), pa.string())),
        ("episode", pa.int64()),
        ("step", pa.int32()),
        ("sigma_min", pa.float32()),
        ("sigma_max", pa.float32()),
    ]
)
_ANNOTATE = "make one with python -m ambient_jax.annotate"


@dataclasses.dataclass(frozen=True, eq=False)
class BoundsTable:
    """Bounds of the steps of K sources: N rows in any order.

    Attributes:
      names: the sources.
      source: [N] int32, index into ``names``.
      episode: [N] int64, id of ``RldsDataset.episode_ids``.
      step: [N] int32, position in the episode.
      sigma_min, sigma_max: [N] float32 in [0, 1]; clean (0, 1), unusable (1, 0), else
        sigma_max <= sigma_min.
      fingerprints: ``RldsDataset.fingerprint`` of each source's data.
      method: how the bounds were chosen, such as "classifier".
      how: the method's settings (tau, rule, granularity, levels, ...), as JSON values.
      version: version of the library that made them.

    Raises:
      ValueError: a name, fingerprint, column or id is malformed.
    """

    names: tuple[str, ...]
    source: np.ndarray
    episode: np.ndarray
    step: np.ndarray
    sigma_min: np.ndarray
    sigma_max: np.ndarray
    fingerprints: Mapping[str, str]
    method: str
    how: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    version: str = __version__

    def __post_init__(self):
        names = tuple(self.names)
        for i, name in enumerate(names):
            if not isinstance(name, str) or not name or name in names[:i]:
                raise ValueError(f"name {i} is {name!r}, expected names that differ, not empty")
            if not self.fingerprints.get(name):
                raise ValueError(
                    f"source {name!r} has no fingerprint, expected RldsDataset.fingerprint of the "
                    "annotated data"
                )
        object.__setattr__(self, "names", names)
        for name in _SCHEMA.names:
            values = getattr(self, name)
            number = name.startswith("sigma")
            values = np.asarray(values, np.float32) if number else _integers(name, values)
            object.__setattr__(self, name, values)
            shape = values.shape
            if len(shape) != 1 or shape != self.source.shape:
                raise ValueError(
                    f"{name} has shape {shape}, expected [N] as source has {self.source.shape}"
                )
        if self.source.size and not (0 <= self.source.min() and self.source.max() < len(names)):
            wrong = self.source[(self.source < 0) | (self.source >= len(names))][0]
            raise ValueError(f"source holds {wrong}, expected 0 to {len(names) - 1}, into names")

    def __len__(self) -> int:
        return self.source.size

    def digest(self, name: str) -> str:
        """Returns a hash of one source's rows, which changes with its bounds."""
        rows = self.rows(name)
        digest = hashlib.sha256()
        for column in (self.episode, self.step, self.sigma_min, self.sigma_max):
            digest.update(np.ascontiguousarray(column[rows]).tobytes())
        return digest.hexdigest()[:16]

    def rows(self, name: str) -> np.ndarray:
        """Returns the row numbers of one source; raises ValueError if the table lacks it."""
        if name not in self.names:
            raise ValueError(
                f"there are no bounds of source {name!r}, only of "
                f"{', '.join(self.names) or 'none'}{_checks.nearest(name, self.names)}"
            )
        return np.flatnonzero(self.source == self.names.index(name))


def for_source(
    name: str,
    fingerprint: str,
    episode,
    step,
    sigma_min,
    sigma_max=None,
    *,
    method: str,
    how: Mapping[str, Any] | None = None,
) -> BoundsTable:
    """Makes the table of one source, from arguments of ``BoundsTable``.

    The bounds are [N] or scalar; sigma_max None is 1 where sigma_min is 0 (clean), else 0.
    """
    episode = np.asarray(episode)
    low = np.asarray(sigma_min, np.float32)
    high = np.asarray(admission.default_sigma_max(low)) if sigma_max is None else sigma_max
    low, high = (np.broadcast_to(b, episode.shape) if np.ndim(b) == 0 else b for b in (low, high))
    columns = np.zeros(episode.shape, np.int32), episode, step, low, high
    return BoundsTable((name,), *columns, {name: fingerprint}, method, dict(how or {}))


def concatenate(parts: Sequence[BoundsTable]) -> BoundsTable:
    """Joins tables of different sources with the same method and settings into one."""
    if not parts:
        raise ValueError("there are no bounds to concatenate")
    first = parts[0]
    for part in parts[1:]:
        if (part.method, _json(part.how)) != (first.method, _json(first.how)):
            raise ValueError(
                f"bounds of {', '.join(part.names)} and of {', '.join(first.names)} were chosen "
                "with different methods or settings: keep them in two files"
            )
    offsets = np.cumsum([0, *(len(part.names) for part in parts[:-1])])
    names = tuple(name for part in parts for name in part.names)
    source = np.concatenate([p.source + k for p, k in zip(parts, offsets, strict=True)])
    columns: dict[str, Any] = {
        n: np.concatenate([getattr(p, n) for p in parts]) for n in _SCHEMA.names[1:]
    }
    prints = {n: f for part in parts for n, f in part.fingerprints.items()}
    columns |= {"names": names, "source": source, "fingerprints": prints, "version": __version__}
    return dataclasses.replace(first, **columns)


def write(path: str | os.PathLike[str], table: BoundsTable) -> pathlib.Path:
    """Checks the table and writes the file whole or not at all; makes its folder."""
    for name in table.names:
        check(table, name)
    counts = np.bincount(table.source, minlength=len(table.names)).tolist()
    metadata = {
        "format": FORMAT,
        "method": table.method,
        "how": json.loads(_json(table.how)),
        "version": table.version,
        "sources": {
            name: {"fingerprint": table.fingerprints[name], "rows": rows}
            for name, rows in zip(table.names, counts, strict=True)
        },
    }
    source = pa.DictionaryArray.from_arrays(
        pa.array(table.source, pa.int32()), pa.array(table.names, pa.string())
    )
    columns = [pa.array(getattr(table, f.name), f.type) for f in list(_SCHEMA)[1:]]
    schema = _SCHEMA.with_metadata({METADATA_KEY: json.dumps(metadata).encode()})
    arrow = pa.Table.from_arrays([source, *columns], schema=schema)
    check_local("the bounds file", path)
    path = pathlib.Path(expanded(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        pq.write_table(arrow, file, compression="zstd")
    return path


def read(path: str | os.PathLike[str]) -> BoundsTable:
    """Reads a bounds file; ``lookup`` and ``check`` then check the bounds of a source.

    Raises FileNotFoundError, or ValueError if it is damaged, no bounds file, or too new.
    """
    path = pathlib.Path(expanded(path))
    if path.is_dir():
        raise FileNotFoundError(f"{path} is a directory: give the bounds file in it")
    if not path.is_file():
        near = ""
        if path.parent.is_dir():
            near = _checks.nearest(path.name, [p.name for p in path.parent.iterdir()])
        raise FileNotFoundError(f"there is no bounds file {path}{near}; {_ANNOTATE}")
    try:
        table = pq.read_table(path, partitioning=None).unify_dictionaries()
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:  # an error of the machine
            raise files.unavailable(error, str(path)) from error
        reason = files.first_line(error)[:200]
        raise ValueError(
            f"{path} is no parquet file, or damaged ({reason}); {_ANNOTATE}"
        ) from error
    metadata = _metadata(path, table.schema)
    sources = metadata.pop("sources")
    names = tuple(sources)
    columns: dict[str, Any] = {}
    for field in _SCHEMA:
        if field.name not in table.schema.names:
            raise ValueError(f"{path} has no column {field.name!r}: {_ANNOTATE} again")
        column = table[field.name]
        try:
            column = column.cast(field.type).combine_chunks()
        except (pa.ArrowException, NotImplementedError) as error:
            raise ValueError(
                f"{path}: column {field.name!r} is {column.type}, expected {field.type}"
            ) from error
        if column.null_count:
            raise ValueError(f"{path}: column {field.name!r} has {column.null_count} empty cells")
        columns[field.name] = column
    source = columns.pop("source")
    numbers = {name: k for k, name in enumerate(names)}
    number = np.asarray([numbers.get(n, -1) for n in source.dictionary.to_pylist()], np.int32)
    number = number[source.indices.to_numpy()]
    counts = np.bincount(number + 1, minlength=len(names) + 1).tolist()
    expected = [0, *(spec["rows"] for spec in sources.values())]
    for name, count, rows in zip(("unknown sources", *names), counts, expected, strict=True):
        if count != rows:
            raise ValueError(
                f"{path} holds {count} rows of {name}, its metadata say {rows}: it was edited "
                "without them; change bounds with read and write of this module"
            )
    return BoundsTable(
        names=names,
        source=number,
        **{name: column.to_numpy(zero_copy_only=False) for name, column in columns.items()},
        fingerprints={n: spec["fingerprint"] for n, spec in sources.items()},
        **metadata,
    )


def lookup(
    table: BoundsTable, name: str, episode, step, fingerprint: str | None = None
) -> admission.Bounds:
    """Returns the bounds of M steps of one source, joined by id.

    Args:
      table, name: the file's content and the source.
      episode, step: [M] ids, in any order; the table may have more rows.
      fingerprint: fingerprint of the training data; None skips the comparison.

    Raises:
      ValueError: the source is not in the file, its data have another fingerprint, an id has no row
        or two, or a row of the source has impossible bounds.
    """
    rows = table.rows(name)
    annotated = table.fingerprints[name]
    if fingerprint is not None and fingerprint != annotated:
        raise ValueError(
            f"bounds of source {name!r} were made on other data (fingerprint {annotated}) than "
            f"these ({fingerprint}): annotate again, or open the version, split and videos they "
            "were made on"
        )
    episode, step = _integers("episode", episode), _integers("step", step)
    if episode.ndim != 1 or episode.shape != step.shape:
        raise ValueError(
            f"episode and step have shapes {episode.shape} and {step.shape}, expected [M] both"
        )
    keys, order, episodes, low, span = _check(table, name, rows)
    matched = np.zeros(episode.shape, bool)
    place = np.zeros(episode.shape, np.int64)
    if rows.size:
        number = np.minimum(np.searchsorted(episodes, episode), episodes.size - 1)
        offset = step.astype(np.int64) - low
        key = number * span + offset
        place = np.minimum(np.searchsorted(keys, key), keys.size - 1)
        matched = (episodes[number] == episode) & (offset >= 0) & (offset < span)
        matched &= keys[place] == key
    missing = np.flatnonzero(~matched)
    if missing.size:
        i = missing[0]
        raise ValueError(
            f"{missing.size} of {episode.size} steps of source {name!r} have no bounds, the first "
            f"is episode {episode[i]} step {step[i]}: annotate the whole of this split"
        )
    at = rows[order[place]]
    return admission.Bounds(table.sigma_min[at], table.sigma_max[at])


def check(table: BoundsTable, name: str) -> None:
    """Raises ValueError if ``lookup`` of some step of a source would; reads no data."""
    _check(table, name, table.rows(name))


def _check(table, name, rows):
    """Checks one source's rows; returns (sorted keys, their order, episodes, first step, span)."""
    low, high = table.sigma_min[rows], table.sigma_max[rows]

    def row(i):
        r = rows[i]
        return f"source {name!r} episode {table.episode[r]} step {table.step[r]} (row {r})"

    admission.check_bounds(low, high, where=row, ordered=True)
    episodes, number = np.unique(table.episode[rows], return_inverse=True)
    step = table.step[rows].astype(np.int64)
    first = step.min() if rows.size else 0
    # Keys cannot overflow: fewer than 2^31 episodes times fewer than 2^32 steps.
    span = step.max() - first + 1 if rows.size else 1
    keys = number * span + (step - first)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    twice = np.flatnonzero(keys[1:] == keys[:-1])
    if twice.size:
        raise ValueError(
            f"{twice.size} rows repeat an id, the first is {row(order[twice[0] + 1])}: keep one "
            "row per step"
        )
    return keys, order, episodes, first, span


def _integers(name, values):
    limits = np.iinfo(np.int64 if name == "episode" else np.int32)
    values = np.asarray(values)
    if values.size and not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"{name} is of type {values.dtype}, expected integers")
    if values.size and (values.max() > limits.max or values.min() < limits.min):
        raise ValueError(f"{name} holds {values.min()} to {values.max()}, beyond {limits.dtype}")
    return values.astype(limits.dtype)


def _json(how):
    try:
        return json.dumps(dict(how), default=_plain, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"how cannot be kept as JSON ({error}): give numbers, strings, lists and dicts"
        ) from error


def _plain(value):
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} {value!r:.80}")


def _metadata(path, schema):
    stored = (schema.metadata or {}).get(METADATA_KEY)
    if stored is None:
        raise ValueError(
            f"{path} is a parquet file but no bounds file (its schema has no metadata "
            f"{METADATA_KEY.decode()!r}): {_ANNOTATE}"
        )
    try:
        metadata = json.loads(stored)
        number = int(metadata["format"])
        if number <= FORMAT:
            fields = ("method", "how", "version", "sources")
            metadata = {field: metadata[field] for field in fields}
            for spec in metadata["sources"].values():
                spec["fingerprint"], spec["rows"] = str(spec["fingerprint"]), int(spec["rows"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path}: the metadata of its schema are damaged ({error!r}); {_ANNOTATE}"
        ) from error
    if number > FORMAT:
        raise ValueError(
            f"{path} has format {number}, made by ambient_jax {metadata.get('version')}; this one "
            f"({__version__}) reads up to {FORMAT}: install a newer ambient_jax"
        )
    return metadata
