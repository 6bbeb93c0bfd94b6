"""The metadata files of a data set, which are read only once they are known to be bounded, and are
not obeyed where the files of the data set say otherwise."""

from __future__ import annotations

import math
import os
import sys
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from ambient_jax.data import files
from ambient_jax.data.features import leaves

INFO, FEATURES = "dataset_info.json", "features.json"
_MOST_SHARDS = 100_000  # of a split: as many files in one directory are more than it bears
_MOST_BYTES = (1 << 31) - 1  # of one value, which a record of as many bytes has to hold
_UNDOUBTED = 4096  # episodes of a shard: more are compared with the size of its file
_RECORD_BYTES = {"tfrecord": 16, "array_record": 1}  # that a record takes at least
_MOST_ABSENT = 1_000_000  # episodes of missing shards


class MissingShardError(FileNotFoundError):
    """The data set is there, a file that its metadata promise is not."""


def read(directory: epath.Path) -> Any:
    """The metadata, as TFDS reads them once they are known to be bounded."""
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
    try:
        return tfds.builder_from_directory(directory).info
    except Exception as error:
        if isinstance(error, OSError) and error.strerror is not None:
            raise files.unavailable(error, os.fspath(directory)) from error
        told = files.first_line(error)
    name = INFO
    try:
        tfds.features.FeatureConnector.from_json(config)
    except Exception as error:
        name, told = FEATURES, files.first_line(error)
    raise ValueError(f"{directory / name} cannot be read ({told}): fetch it again")


def _check_config(config: Any, what: str) -> None:
    """Raises ValueError if the JSON of features asks for unknown classes or dtypes.

    TFDS imports whatever a file names, and TensorFlow for a dtype that numpy does not know.
    """
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
                        f"{what} has features of the class {name[:200]!r}, expected those of "
                        "tensorflow_datasets: import the module of your own ones first"
                    )
            _check_dtype(node, what)
        inner = node.values() if isinstance(node, dict) else node
        nodes.extend(n for n in inner if isinstance(n, dict | list))


def _check_dtype(node: dict[str, Any], what: str) -> None:
    dtype = node.get("dtype")
    tensor = node.get("tensor")
    if "pythonClassName" in node and isinstance(tensor, dict) and "dtype" not in tensor:
        dtype = ""
    elif not isinstance(dtype, str) or dtype in ("", "string"):
        return
    try:
        np.dtype(dtype or "missing")
    except TypeError as error:
        raise ValueError(
            f"{what} has a tensor of the dtype {dtype[:200]!r}, expected one of numpy or 'string': "
            "fetch it again"
        ) from error


def check_sizes(features: tfds.features.FeaturesDict, what: str) -> None:
    """Raises ValueError if one value of a field would be larger than a record can be."""
    for leaf in leaves(features).values():
        if leaf.kind == "other":
            continue
        known = [d for d in leaf.shape if d is not None]
        size = math.prod(known) * max(1, leaf.dtype.itemsize)
        if any(d < 0 for d in known) or size > _MOST_BYTES:
            raise ValueError(
                f"{what}: {leaf.path!r} has the shape {list(leaf.shape)}, expected numbers >= 0 "
                "and less than 2 GiB a step: fetch it again"
            )


def listed(directory: epath.Path) -> set[str]:
    """Names of what is in the directory."""
    with files.named(os.fspath(directory)):
        return {p.name for p in directory.iterdir()}


def check_lengths(
    split: Any, file_format: str, directory: epath.Path, here: set[str], allow_missing: bool
) -> None:
    """No more shards and episodes are promised than the files can hold."""
    lengths, told = list(split.shard_lengths), f"{directory / INFO}: split {split.name!r}"
    if lengths and min(lengths) < 0:
        raise ValueError(f"{told} has a shard of {min(lengths)} episodes: fetch it again")
    if len(lengths) > len(here) and not allow_missing:
        raise MissingShardError(
            f"{told} has {len(lengths)} shards, the directory {len(here)} files: fetch them again"
        )
    absent = 0
    try:
        paths = [os.fspath(p) for p in split.filepaths]
    except Exception as error:
        raise ValueError(f"{told} has no names of files ({files.first_line(error)})") from error
    if len(set(paths)) < len(paths):
        raise ValueError(
            f"{told} has {len(paths)} shards under {len(set(paths))} names "
            f"({split.filename_template.template}): mend filepathTemplate there"
        )
    for path, length in zip(paths, lengths, strict=True):
        if os.path.basename(path) not in here:
            absent += length
        elif length > _UNDOUBTED:
            size = epath.Path(path).stat().length
            if length * _RECORD_BYTES[file_format] > size:
                raise ValueError(
                    f"{told} promises {length} episodes in {path}, whose {size} bytes cannot hold "
                    "them: fetch both again"
                )
    if absent > _MOST_ABSENT:
        raise ValueError(
            f"{told} promises {absent} episodes in shards that are missing: fetch it again"
        )


def check_files(paths: list[str], here: set[str], allow_missing: bool) -> None:
    missing = [path for path in paths if os.path.basename(path) not in here]
    if allow_missing:
        return
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise MissingShardError(
            f"shard {missing[0]}{more} is missing, which {INFO} promises: fetch it again"
        )
    for path in paths:
        files.check_file(path)
