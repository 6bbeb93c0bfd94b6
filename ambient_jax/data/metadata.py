"""Reads the metadata files of a data set and checks their sizes and the files beside them."""

import math
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ambient_jax.data import files
from ambient_jax.data.bucket import BucketPath
from ambient_jax.data.features import Leaf
from ambient_jax.data.paths import ReadablePath, readable

INFO, FEATURES = "dataset_info.json", "features.json"
_MOST_SHARDS = 100_000  # shards of a split; a directory cannot well hold more files
_MOST_BYTES = (1 << 31) - 1  # largest value: the largest record
_UNDOUBTED = 4096  # episodes of a shard; more are compared with the size of its file
_RECORD_BYTES = {"tfrecord": 16, "array_record": 1}  # bytes of the smallest record
_MOST_ABSENT = 1_000_000  # episodes of missing shards


class MissingShardError(FileNotFoundError):
    """The data set exists, but lacks a file that its metadata list."""


def read(directory: ReadablePath) -> Any:
    """Reads dataset_info.json and features.json; returns a ``tfds.core.DatasetInfo``.

    Raises FileNotFoundError or ValueError if a file is missing, too large, or not of TFDS.
    """
    info = files.read_json(os.fspath(directory / INFO))
    config = files.read_json(os.fspath(directory / FEATURES))
    _check_config(config, os.fspath(directory / FEATURES))
    for path in directory.iterdir():
        if path.suffix == ".txt":  # names of labels, which TFDS reads too
            files.check_file(os.fspath(path))
    splits = info.get("splits")
    splits = [s for s in splits if isinstance(s, dict)] if isinstance(splits, list) else []
    names = [split.get("name") for split in splits]
    if (twice := next((n for n in names if names.count(n) > 1), None)) is not None:
        raise ValueError(f"{directory / INFO} has the split {twice!r} twice: fetch it again")
    for split in splits:
        lengths = split.get("shardLengths", split.get("shard_lengths"))
        if isinstance(lengths, list) and len(lengths) > _MOST_SHARDS:
            raise ValueError(
                f"{directory / INFO} lists {len(lengths)} shards of a split, expected at most "
                f"{_MOST_SHARDS}: fetch it again"
            )
    name = FEATURES
    try:
        tfds.features.FeatureConnector.from_json(config)
        name = INFO
        return _info(directory)
    except Exception as error:
        if isinstance(error, OSError) and error.strerror is not None:
            raise files.unavailable(error, os.fspath(directory)) from error
        why = files.first_line(error)
        raise ValueError(f"{directory / name} cannot be read ({why}): fetch it again") from error


def _info(directory: ReadablePath) -> Any:
    if not isinstance(directory, BucketPath):
        return tfds.builder_from_directory(directory).info
    # TFDS would read a bucket by TensorFlow, if that is installed.
    with tempfile.TemporaryDirectory() as copy:
        for path in directory.iterdir():
            if path.suffix in (".json", ".txt"):
                path.download(pathlib.Path(copy, path.name))
        return tfds.builder_from_directory(copy).info


def shard_paths(directory: ReadablePath, paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Returns paths of a data set's shards, which TFDS may take to be elsewhere for a bucket."""
    whole = [os.fspath(path) for path in paths]
    if isinstance(directory, BucketPath):
        return [os.fspath(directory / os.path.basename(path)) for path in whole]
    return whole


def _size(path: str) -> int:
    file = readable(path)
    return file.size() if isinstance(file, BucketPath) else file.stat().length


def _check_config(config: Any, path: str) -> None:
    """Refuses unknown classes and dtypes: TFDS would import their modules, or TensorFlow."""
    nodes = [config]
    while nodes:
        node = nodes.pop()
        if isinstance(node, dict):
            names = [node.get("pythonClassName"), node.get("python_class_name")]
            names += [node.get("type")] if "content" in node else []
            for name in (n for n in names if isinstance(n, str)):
                module = name.rpartition(".")[0]
                if not name.startswith("tensorflow_datasets.") and module not in sys.modules:
                    raise ValueError(
                        f"{path} has features of the class {name[:200]!r}, expected those of "
                        "tensorflow_datasets: import the module of your own ones first"
                    )
            tensor = node.get("tensor")
            if "pythonClassName" in node and isinstance(tensor, dict) and "dtype" not in tensor:
                _check_dtype("missing", path)
            _check_dtype(node.get("dtype"), path)
        inner = node.values() if isinstance(node, dict) else node
        nodes.extend(n for n in inner if isinstance(n, dict | list))


def _check_dtype(dtype: Any, path: str) -> None:
    if isinstance(dtype, str) and dtype not in ("", "string"):
        try:
            np.dtype(dtype)
        except TypeError as error:
            raise ValueError(
                f"{path} has a tensor of the dtype {dtype[:200]!r}, expected one of numpy or "
                "'string': fetch it again"
            ) from error


def check_sizes(fields: Iterable[Leaf], path: str) -> None:
    """Raises ValueError if one value of a field would be larger than a record can be."""
    for leaf in fields:
        if leaf.kind == "other":
            continue
        sides = [d for d in leaf.shape if d is not None]
        size = math.prod(sides) * max(1, leaf.dtype.itemsize)
        if any(d < 0 for d in sides) or size > _MOST_BYTES:
            raise ValueError(
                f"{path}: {leaf.path!r} has the shape {list(leaf.shape)}, expected numbers >= 0 "
                "and less than 2 GiB a step: fetch it again"
            )


def check_lengths(
    split: Any, file_format: str, directory: ReadablePath, names: set[str], allow_missing: bool
) -> None:
    """Checks that a split lists no more shards and episodes than its files can hold.

    ``split`` is the ``tfds.core.SplitInfo`` of the whole split, ``names`` are the names of the
    files in the version directory.
    """
    lengths, where = list(split.shard_lengths), f"{directory / INFO}: split {split.name!r}"
    if lengths and min(lengths) < 0:
        raise ValueError(f"{where} has a shard of {min(lengths)} episodes: fetch it again")
    if len(lengths) > len(names) and not allow_missing:
        raise MissingShardError(
            f"{where} has {len(lengths)} shards, the directory {len(names)} files: fetch them again"
        )
    try:
        paths = shard_paths(directory, split.filepaths)
    except Exception as error:
        raise ValueError(f"{where} has no names of files ({files.first_line(error)})") from error
    if len(set(paths)) < len(paths):
        raise ValueError(
            f"{where} has {len(paths)} shards under {len(set(paths))} names "
            f"({split.filename_template.template}): mend filepathTemplate there"
        )
    absent = 0
    for path, length in zip(paths, lengths, strict=True):
        if os.path.basename(path) not in names:
            absent += length
        elif length > _UNDOUBTED:
            size = _size(path)
            if length * _RECORD_BYTES[file_format] > size:
                raise ValueError(
                    f"{where} promises {length} episodes in {path}, whose {size} bytes cannot hold "
                    "them: fetch both again"
                )
    if absent > _MOST_ABSENT:
        raise ValueError(
            f"{where} promises {absent} episodes in shards that are missing: fetch it again"
        )


def check_files(paths: list[str], names: set[str]) -> None:
    """Checks that all shards are among the names of the directory, and files."""
    if missing := [path for path in paths if os.path.basename(path) not in names]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise MissingShardError(
            f"shard {missing[0]}{more} is missing, which {INFO} promises: fetch it again"
        )
    for path in paths:
        files.check_file(path)
