"""Data sets whose files are damaged, hostile, no files, or not what their metadata say."""

import errno
import json
import os
import pathlib
import shutil
import socket
import struct
import zlib

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from ambient_jax import mixing
from ambient_jax.data import example_proto, files, records, rlds
from ambient_jax.data import mixture as mixtures
from ambient_jax.data.write import rlds_features, write_dataset
from ambient_jax.train import config as config_lib

INFO, FEATURES = "dataset_info.json", "features.json"
SHARD = "good-train.array_record-00001-of-00004"
RECORDS = "toy-train.tfrecord-00000-of-00001"


def copied(bench):
    """A data set of array_record, two splits of which one is empty: its version directory."""
    path = pathlib.Path(shutil.copytree(bench.toy["good"], bench.path / "good"))
    with_info(path, lambda info: info["splits"].append({"name": "none", "shardLengths": []}))
    return path


def written(bench, observation=None, values=None, **options):
    """A data set of TFRecord with one episode of two steps: its version directory."""
    step = np.zeros((2, 2), np.float32)
    flag = np.zeros(2, bool)
    steps = {"observation": {"state": step if values is None else values}, "action": step}
    steps |= {name: flag for name in ("is_first", "is_last", "is_terminal")}
    steps |= {name: step[:, 0] for name in ("reward", "discount")}
    return write_dataset(
        bench.path,
        name="toy",
        version="1.0.0",
        features=rlds_features({"state": observation or step[0]}, step[0]),
        episodes=[{"steps": steps}],
        file_format="tfrecord",
        **options,
    )


def with_info(path, edit, file=INFO):
    content = json.loads((path / file).read_text())
    edit(content)
    (path / file).write_text(json.dumps(content))


def opened(name, replace, split="train"):
    """Opens a copy after ``replace(path of one file)``, which finds nothing there."""

    def act(bench):
        path = copied(bench)
        (path / name).unlink()
        replace(path / name)
        rlds.open_dataset(path, split)

    return act


def text(name, content):
    return opened(name, lambda path: path.write_bytes(content))


def info(edit, split="train"):
    """Opens a copy after ``edit(content of dataset_info.json)``."""

    def act(bench):
        path = copied(bench)
        with_info(path, edit)
        read_all(rlds.open_dataset(path, split))

    return act


def train(**fields):
    return info(lambda content: content["splits"][0].update(fields))


def action(**fields):
    """Reads a copy whose features.json has other fields of the action."""

    def edit(content):
        steps = content["featuresDict"]["features"]["steps"]["sequence"]["feature"]
        feature = steps["featuresDict"]["features"]["action"]
        feature.update({n: v for n, v in fields.items() if n == "pythonClassName"})
        feature["tensor"].update({n: v for n, v in fields.items() if n != "pythonClassName"})

    def act(bench):
        path = copied(bench)
        with_info(path, edit, FEATURES)
        read_all(rlds.open_dataset(path))

    return act


def shape(*dimensions):
    return action(shape={"dimensions": [str(d) for d in dimensions]})


def read_all(dataset):
    return [e for shard in range(len(dataset.shard_files)) for e in dataset.stream(shard)]


def shard(edit, name=RECORDS):
    """Reads a data set after ``edit(bytes of a shard)``, which returns other bytes."""

    def act(bench):
        path = written(bench) if name == RECORDS else copied(bench)
        (path / name).write_bytes(edit((path / name).read_bytes()))
        read_all(rlds.open_dataset(path))

    return act


def framed(record, length=None):
    header = struct.pack("<Q", len(record) if length is None else length)
    crc = lambda data: struct.pack("<I", records.masked_crc32c(data))  # noqa: E731
    return header + crc(header) + record + crc(record)


def record(edit):
    """Reads an episode whose record is another, under checksums that are right."""
    return shard(lambda content: framed(edit(content[12:-4])))


def make_socket(path):
    # The name of a socket may have 107 bytes, less than a test's folder.
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def large_zlib(unknown):
    """A tensor that is larger than its shape once it is decompressed."""

    def act(bench):
        size = (None, 2) if unknown else (2,)
        feature = tfds.features.Tensor(shape=(2,), dtype=np.float32, encoding="zlib")
        path = written(bench, feature)
        if unknown:
            bench.monkeypatch.setattr(example_proto, "_INFLATED_BYTES", 1 << 10)
            bench.monkeypatch.setattr(example_proto, "_INFLATED_RATIO", 20)
            with_info(path, lambda content: known(content, size), FEATURES)
        small = zlib.compress(bytes(8))
        name = path / RECORDS
        example = example_proto.parse(name.read_bytes()[12:-4])
        values = example.feature["steps/observation/state"].bytes_list.value
        assert list(values) == [small] * 2
        values[1] = zlib.compress(bytes(1 << 20))
        name.write_bytes(framed(as_record(example)))
        read_all(rlds.open_dataset(path))

    return act


def known(content, size):
    steps = content["featuresDict"]["features"]["steps"]["sequence"]["feature"]
    observation = steps["featuresDict"]["features"]["observation"]["featuresDict"]["features"]
    observation["state"]["tensor"]["shape"]["dimensions"] = [str(d or -1) for d in size]


def as_record(features):
    body = features.SerializeToString()
    length, size = len(body), b""
    while length > 0x7F:
        size, length = size + bytes([length & 0x7F | 0x80]), length >> 7
    return b"\x0a" + size + bytes([length]) + body


def feature(edit):
    """Reads an episode after ``edit(features of its record)``."""

    def changed(content):
        features = example_proto.parse(content)
        edit(features.feature)
        return as_record(features)

    return record(changed)


def ints(name, *values):
    def edit(features):
        features[name].Clear()
        features[name].int64_list.value.extend(values)

    return feature(edit)


def raiser(code):
    def fails(*_, **__):
        raise OSError(code, os.strerror(code))

    return fails


def failing(code):
    """Reads a data set while its machine fails."""

    def act(bench):
        dataset = rlds.open_dataset(written(bench))
        bench.monkeypatch.setattr(records, "read_record", raiser(code))
        read_all(dataset)

    return act


def unreadable_metadata(bench):
    path = copied(bench)
    bench.monkeypatch.setattr(type(epath.Path(path)), "open", raiser(errno.EMFILE))
    rlds.open_dataset(path)


def mixture(bench):
    config = config_lib.default()
    path = str(copied(bench))
    config.data.sources.demos = config_lib.source(path, "clean", split="none")
    mixtures.open_mixture(config.data, mixing.get("ambient"), cache=bench.path / "cache")


def cut(size):
    return lambda content: content[:size]


CASES = {
    "info: a FIFO": (opened(INFO, os.mkfifo), "dataset_info.json is a FIFO, expected a file"),
    "info: a device without end": (
        opened(INFO, lambda path: path.symlink_to("/dev/zero")),
        "dataset_info.json is a device, expected a file",
    ),
    "info: a directory": (opened(INFO, os.mkdir), "dataset_info.json is a directory"),
    "info: a link to itself": (
        opened(INFO, lambda path: path.symlink_to(path.name)),
        "dataset_info.json is no file .Too many levels of symbolic links",
    ),
    "info: a link that leads nowhere": (
        opened(INFO, lambda path: path.symlink_to("gone")),
        "dataset_info.json does not exist .a symbolic link that leads nowhere",
    ),
    "info: huge": (text(INFO, b" " * (files.JSON_BYTES + 1)), "has more than 16 MiB, expected"),
    "info: nested without end": (text(INFO, b"[" * 100_000), "nested too deeply"),
    "info: empty": (text(INFO, b""), "dataset_info.json cannot be read, it is no JSON"),
    "info: no object": (text(INFO, b"[1, 2]"), "dataset_info.json .* it is no JSON object"),
    "info: of another format": (text(INFO, b'{"episodes": 3}'), "dataset_info.json cannot be read"),
    "info: UTF-16": (text(INFO, '{"name": "é"}'.encode("utf-16")[:-1]), "it is no JSON"),
    "info: a number of 5000 digits": (text(INFO, b'{"a": %s}' % (b"9" * 5000)), "it is no JSON"),
    "features: a FIFO": (opened(FEATURES, os.mkfifo), "features.json is a FIFO"),
    "features: a socket": (opened(FEATURES, make_socket), "features.json is a socket"),
    "features: nested in vain": (
        text(FEATURES, b'{"a": ' * 200 + b"1" + b"}" * 200),
        "features.json .* nested more than 100 levels deep",
    ),
    "features: of LeRobot": (
        text(FEATURES, b'{"action": {"dtype": "float32", "shape": [7]}}'),
        "features.json cannot be read .*no field named .action",
    ),
    "features: a class of foreign code": (
        action(pythonClassName="this.is.Mine"),
        "class 'this.is.Mine', expected those of tensorflow_datasets",
    ),
    "features: a class that is not there": (
        action(pythonClassName="tensorflow_datasets.core.features.Tensr"),
        "features.json cannot be read .Unrecognized FeatureConnector",
    ),
    "features: a dtype that is not there": (action(dtype="float33"), "of the dtype 'float33'"),
    "features: another dtype than stored": (
        action(dtype="int32"),
        "'steps/action' cannot be decoded .it is stored as float_list, expected int64_list",
    ),
    "features: a negative size": (shape(-2), "features.json cannot be read .Unexpected shape"),
    "features: 2e12 numbers a step": (shape(2 * 10**12), r"shape \[2000000000000\], expected"),
    "features: sizes whose product overflows": (shape(2**32, 2**32), "less than 2 GiB a step"),
    "features: another size than stored": (
        shape(3),
        "'steps/action' cannot be decoded .cannot reshape",
    ),
    "labels: a FIFO": (
        lambda b: (os.mkfifo(copied(b) / "x.labels.txt"), rlds.open_dataset(b.path / "good")),
        "x.labels.txt is a FIFO",
    ),
    "lengths: 2e12 episodes": (
        train(shardLengths=["3", "3", "3", str(2 * 10**12)]),
        "promises 2000000000000 episodes in .* whose 131072 bytes cannot hold them",
    ),
    "lengths: below zero": (train(shardLengths=["3", "-3", "3", "3"]), "a shard of -3 episodes"),
    "lengths: fractions": (train(shardLengths=[2.5] * 4), "Couldn't parse integer: 2.5"),
    "lengths: words": (train(shardLengths=["three"] * 4), "cannot be read .*'three'"),
    "lengths: 90 000 shards": (train(shardLengths=["1"] * 90_000), "has 90000 shards, the dir"),
    "lengths: 200 000 shards": (train(shardLengths=["1"] * 200_000), "lists 200000 shards of"),
    "lengths: too many of a shard": (
        train(shardLengths=["3", "3", "3", "4"]),
        "00003-of-00004: ends after 3 records, at least 4 expected from dataset_info.json",
    ),
    "lengths: more shards than files": (train(shardLengths=["3"] * 5), "and 4 more is missing"),
    "names: one for all shards": (
        train(filepathTemplate="{DATASET}-{SPLIT}-00000-of-2000000000000"),
        "has 4 shards under 1 names",
    ),
    "names: an unknown field": (train(filepathTemplate="{WHAT}"), "has no names of files"),
    "splits: one twice": (
        info(lambda content: content["splits"].append(content["splits"][0])),
        "has the split 'train' twice",
    ),
    "splits: an empty one": (
        info(lambda content: None, "none"),
        r"split 'none' of .* holds no episode.*; episodes are in train \(12\)",
    ),
    "splits: an empty one is trained": (mixture, "source 'demos': split 'none' of .*train .12"),
    "splits: part of an empty one": (
        info(lambda content: None, "none[:50%]"),
        "split 'none' of .* holds no episode",
    ),
    "shard: a FIFO": (opened(SHARD, os.mkfifo), "00001-of-00004 is a FIFO, expected a file"),
    "shard: a device without end": (
        opened(SHARD, lambda path: path.symlink_to("/dev/zero")),
        "00001-of-00004 is a device",
    ),
    "shard: a directory": (opened(SHARD, os.mkdir), "00001-of-00004 is a directory"),
    "shard: a link to itself": (
        opened(SHARD, lambda path: path.symlink_to(SHARD)),
        "00001-of-00004 is no file .Too many levels",
    ),
    "shard: a link that leads nowhere": (
        opened(SHARD, lambda path: path.symlink_to("gone")),
        "00001-of-00004 does not exist .a symbolic link",
    ),
    "array_record: empty": (
        shard(lambda content: b"", SHARD),
        "00001-of-00004: record 0 cannot be read, the file is truncated or corrupt",
    ),
    "array_record: cut": (shard(cut(70_000), SHARD), "00001-of-00004: record 0 cannot be read"),
    "array_record: zeros": (shard(lambda c: bytes(len(c)), SHARD), "truncated or corrupt"),
    "TFRecord: empty": (shard(lambda content: b""), "ends after 0 records, at least 1 expected"),
    "TFRecord: a pointer of Git LFS": (
        shard(lambda content: b"version https://git-lfs.github.com/spec/v1\n"),
        "corrupt length of record 0",
    ),
    "TFRecord: a record of 2^41 bytes": (
        shard(lambda content: framed(content, 2**41)),
        "truncated in record 0, .* of 2199023255552 data bytes are there",
    ),
    "TFRecord: a record of 2^64 - 1 bytes": (
        shard(lambda content: framed(content, 2**64 - 1)),
        "truncated in record 0, .* of 18446744073709551615 data",
    ),
    "proto: no message at all": (record(lambda content: b"\xff" * 9), "not a tf.train.Example"),
    "proto: a length without end": (
        record(lambda content: b"\x0a" + b"\xff" * 100_000),
        "record 0: not a tf.train.Example",
    ),
    "proto: longer than the record": (
        record(lambda content: b"\x0a\xff\xff\xff\xff\x07" + content),
        "record 0: not a tf.train.Example",
    ),
    "proto: cut": (record(cut(-7)), "record 0: not a tf.train.Example"),
    "proto: empty": (record(cut(0)), "record 0: has no 'steps/.*', which features.json promises"),
    "proto: numbers of another kind": (
        ints("steps/action", 1, 2, 3, 4),
        "'steps/action' cannot be decoded .it is stored as int64_list, expected float_list",
    ),
    "proto: fewer numbers than steps": (
        feature(lambda features: features["steps/action"].float_list.value.pop()),
        "'steps/action' cannot be decoded .cannot reshape",
    ),
    "proto: another number of steps": (
        ints("steps/is_first", 1, 0, 0),
        "fields of 'steps' differ in length",
    ),
    "zlib: more than its shape": (
        large_zlib(unknown=False),
        "compressed bytes become more than 8, which its shape has",
    ),
    "zlib: more than a field may": (
        large_zlib(unknown=True),
        "compressed bytes become more than .*, which is too much for one field",
    ),
    "machine: a disk that fails": (
        failing(errno.EIO),
        "tfrecord-00000-of-00001 cannot be read .Input/output error.: the file itself may be sound",
    ),
    "machine: a stale handle": (failing(errno.ESTALE), "cannot be read .Stale file handle"),
    "machine: a store that does not answer": (
        failing(errno.ETIMEDOUT),
        "cannot be read .Connection timed out",
    ),
    "machine: too many open files": (
        failing(errno.EMFILE),
        "Too many open files .this process may have [0-9]+, see 'ulimit -n'",
    ),
    "machine: too many open files for metadata": (
        unreadable_metadata,
        "dataset_info.json cannot be opened: Too many open files .*'ulimit -n'",
    ),
}

WARNED = {
    "array_record holds more than promised": (
        train(shardLengths=["3", "2", "3", "3"]),
        "00001-of-00004 holds 3 records, dataset_info.json says 2: the rest is not read",
    ),
    "TFRecord holds more than promised": (
        shard(lambda content: content * 2),
        "tfrecord-00000-of-00001 holds more records, dataset_info.json says 1",
    ),
}
