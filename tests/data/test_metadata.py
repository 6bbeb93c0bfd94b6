"""Metadata of RLDS are checked against bounds, and against the files beside them."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from etils import epath

from ambient_jax.data import features, metadata
from ambient_jax.data.metadata import FEATURES, INFO


@pytest.fixture
def folder(write_source):
    return epath.Path(write_source("walks", [3, 4, 2], shards=2))


def change(path, edit):
    content = json.loads(path.read_text())
    path.write_text(json.dumps(edit(content) or content))


def test_what_was_written_is_read(folder):
    info = metadata.read(folder)
    assert (info.name, str(info.version)) == ("walks", "1.0.0")
    assert info.splits["train"].num_examples == 3 and len(info.splits["train"].shard_lengths) == 2
    assert "steps/observation/state" in features.leaves(info.features)


def nodes(content):
    yield content
    for inner in content.values() if isinstance(content, dict) else content:
        if isinstance(inner, dict | list):
            yield from nodes(inner)


def set_in_tensors(name, value):
    """Sets a field of every tensor in features.json."""

    def edit(content):
        for node in nodes(content):
            if isinstance(node, dict) and isinstance(node.get("tensor"), dict):
                node["tensor"][name] = value

    return edit


def other_class(content):
    content["pythonClassName"] = "no_such.Feature"


def twice(content):
    content["splits"] *= 2


def many_shards(content):
    content["splits"][0]["shardLengths"] = ["1"] * 100_001


def nameless(content):
    del content["name"]
    content["splits"] = {"train": 3}


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        (FEATURES, other_class, "has features of the class 'no_such.Feature', expected those of"),
        (FEATURES, set_in_tensors("dtype", "float33"), "a tensor of the dtype 'float33', expected"),
        (FEATURES, set_in_tensors("shape", 3), "features.json cannot be read"),
        (INFO, twice, "has the split 'train' twice"),
        (INFO, many_shards, "lists 100001 shards of a split, expected at most 100000"),
        (INFO, nameless, "dataset_info.json cannot be read"),
    ],
)
def test_damaged_metadata_are_refused_in_one_line(folder, name, edit, message):
    change(folder / name, edit)
    with pytest.raises(ValueError, match=message) as caught:
        metadata.read(folder)
    assert "\n" not in str(caught.value) and name in str(caught.value)


@pytest.mark.parametrize("name", [FEATURES, INFO])
def test_a_file_that_is_missing_or_no_json(folder, name):
    (folder / name).write_text("{")
    with pytest.raises(ValueError, match=f"{name} cannot be read, it is no JSON"):
        metadata.read(folder)
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} does not exist"):
        metadata.read(folder)


@pytest.mark.parametrize(
    ("shape", "dtype", "fits"),
    [
        ((1 << 28,), np.float64, False),
        ((1 << 28,), np.float32, True),
        ((1 << 14, 1 << 14), np.float64, False),
        ((None, 7), np.float32, True),
        ((0, 7), np.float32, True),
    ],
)
def test_one_value_must_fit_into_a_record(shape, dtype, fits):
    """The bound is 2 GiB - 1: 2^28 numbers of 8 bytes are one byte too many."""
    if fits and shape == (1 << 28,):
        shape = ((1 << 28) - 1,)
    tree = tfds.features.FeaturesDict({"x": tfds.features.Tensor(shape=shape, dtype=dtype)})
    fields = features.leaves(tree).values()
    if fits:
        metadata.check_sizes(fields, "f.json")
        return
    with pytest.raises(ValueError, match="f.json: 'x' has the shape .*less than 2 GiB a step"):
        metadata.check_sizes(fields, "f.json")


@dataclasses.dataclass
class Split:
    """What is read of TFDS's split info."""

    shard_lengths: list
    filepaths: list
    name: str = "train"

    @property
    def filename_template(self):
        return self

    template = "{SPLIT}"


def check(lengths, folder, *, names=None, file_format="array_record", allow_missing=False):
    paths = [str(folder / name) for name in (names or [f"s{i}" for i in range(len(lengths))])]
    there = {p.name for p in folder.iterdir()}
    metadata.check_lengths(Split(lengths, paths), file_format, folder, there, allow_missing)


def test_lengths_are_compared_with_the_files(tmp_path):
    folder = epath.Path(tmp_path)
    for name, size in {"s0": 10, "s1": 79_999}.items():
        (folder / name).write_bytes(bytes(size))
    check([5, 4096], folder)
    check([5, 79_999], folder)
    check([5, 4999], folder, file_format="tfrecord")  # a record has at least 16 bytes
    for lengths, options, message in (
        ([5, -1], {}, "has a shard of -1 episodes"),
        ([5, 80_000], {}, "promises 80000 episodes in .*s1, whose 79999 bytes cannot hold them"),
        ([5, 5000], {"file_format": "tfrecord"}, "promises 5000 episodes in .*s1"),
        ([5, 5], {"names": ["s0", "s0"]}, "has 2 shards under 1 names .*mend filepathTemplate"),
    ):
        with pytest.raises(ValueError, match=message):
            check(lengths, folder, **options)
    with pytest.raises(metadata.MissingShardError, match="has 3 shards, the directory 2 files"):
        check([1, 1, 1], folder)
    check([1, 1, 1], folder, allow_missing=True)
    with pytest.raises(ValueError, match="promises 1000001 episodes in shards that are missing"):
        check([1, 1, 1_000_001], folder, allow_missing=True)


def test_all_files_must_be_there_and_be_files(tmp_path):
    (tmp_path / "s0").touch()
    (tmp_path / "s1").mkdir()
    paths = [str(tmp_path / name) for name in ("s0", "s1", "s2", "s3")]
    metadata.check_files(paths[:1], {"s0"})
    with pytest.raises(metadata.MissingShardError, match="s2 and 1 more is missing"):
        metadata.check_files(paths, {"s0", "s1"})
    with pytest.raises(metadata.MissingShardError, match="s2 is missing"):
        metadata.check_files(paths[:3], {"s0", "s1"})
    with pytest.raises(ValueError, match="s1 is a directory, expected a file"):
        metadata.check_files(paths[:2], {"s0", "s1"})
