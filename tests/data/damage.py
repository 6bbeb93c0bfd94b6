"""Damages the files of a small data set at random and reads them, in a process of bounded memory.

``python damage.py <folder> <format> <count>`` damages each kind of file that often; it prints what
is neither refused in one line nor read as before, and how many were refused and how many read.
"""

import resource
import signal
import struct
import sys

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from ambient_jax.data import records, rlds
from ambient_jax.data.features import flatten
from ambient_jax.data.write import rlds_features, write_dataset

MEMORY = 1 << 30  # bytes beyond what the process has when it starts
SECONDS = 20  # for one reading: a hang takes longer


def features():
    tensor = lambda shape, encoding: tfds.features.Tensor(  # noqa: E731
        shape=shape, dtype=np.float32, encoding=encoding
    )
    observation = {
        "state": np.zeros(2, np.float32),
        "packed": tensor((3,), "bytes"),
        "small": tensor((4, 4), "zlib"),
        "flag": np.uint8,
    }
    return rlds_features(observation, np.zeros(2, np.float32), {"text": str}, {"id": np.int64})


def episode(number, length=3):
    rows = np.arange(length, dtype=np.float32)[:, None] + number
    last = np.arange(length) == length - 1
    return {
        "steps": {
            "observation": {
                "state": np.tile(rows, 2),
                "packed": np.tile(rows, 3),
                "small": np.tile(rows[:, None], (1, 4, 4)),
                "flag": np.full(length, number, np.uint8),
            },
            "action": np.tile(rows, 2),
            "is_first": ~last,
            "is_last": last,
            "is_terminal": last,
            "reward": np.zeros(length, np.float32),
            "discount": np.ones(length, np.float32),
            "text": ["push the block"] * length,
        },
        "episode_metadata": {"id": number},
    }


def damaged(content, rng):
    """Some bytes changed, cut away, or replaced by others of the same content."""
    content = bytearray(content)
    begin, end = sorted(rng.integers(0, len(content) + 1, 2))
    kind = rng.integers(6)
    if kind < 3:
        for at in rng.integers(0, len(content), rng.integers(1, 4)):
            content[at] ^= 1 << rng.integers(8)
    elif kind == 3:
        del content[begin:end]
    elif kind == 4:
        at = rng.integers(0, len(content) + 1)
        content[at:at] = content[begin:end]
    else:
        for at in rng.integers(0, len(content), 2):
            content[at] = rng.choice(np.frombuffer(b'\x00\x7f\x80\xff09-"[]{}', np.uint8))
    return bytes(content)


def reframed(content, rng):
    """One record damaged inside, under checksums that are right."""
    parts, at = [], 0
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        parts.append(content[at + 12 : at + 12 + length])
        at += length + 16
    which = rng.integers(len(parts))
    parts[which] = damaged(parts[which], rng)
    framed = b""
    for record in parts:
        length = struct.pack("<Q", len(record))
        crcs = (struct.pack("<I", records.masked_crc32c(data)) for data in (length, record))
        framed += length + next(crcs) + record + next(crcs)
    return framed


def read(path):
    """Fields of all episodes by path, as text: exact, and equal where NaN is."""
    dataset = rlds.open_dataset(path)
    shards = range(len(dataset.shard_files))
    episodes = [flatten(e) for shard in shards for _, e in dataset.stream(shard)]
    dataset[0], dataset[len(dataset) - 1]
    return [{name: repr(value) for name, value in e.items()} for e in episodes]


def same(found, expected):
    """As before, or of fewer fields: metadata of fewer are as good as any."""
    return len(found) == len(expected) and all(
        f.items() <= e.items() for f, e in zip(found, expected, strict=True)
    )


def trials(path, target, damage, count, seed):
    warned, rng, refused = [], np.random.default_rng(seed), 0
    logging.warning = lambda *told: warned.append(told)
    whole, expected = target.read_bytes(), read(path)
    for trial in range(count):
        target.write_bytes(damage(whole, rng))
        warned.clear()
        signal.alarm(SECONDS)
        try:
            found = read(path)
            # Values inside a record with a right checksum are what they are.
            if not same(found, expected) and not warned and damage is not reframed:
                print(f"{target.name}, trial {trial}: read as something else")
        except (ValueError, OSError) as error:
            refused += 1
            if "\n" in str(error) or len(str(error)) > 700:
                print(f"{target.name}, trial {trial}: {error!r}")
        except BaseException as error:
            print(f"{target.name}, trial {trial}: {error!r}")
        signal.alarm(0)
    target.write_bytes(whole)
    return refused, count - refused


def main(folder, file_format, count):
    path = write_dataset(
        folder,
        name="toy",
        version="1.0.0",
        features=features(),
        episodes={"train": map(episode, range(5)), "val": [episode(5)]},
        file_format=file_format,
    )
    shard = path / f"toy-train.{file_format}-00000-of-00001"
    cases = [(path / "dataset_info.json", damaged), (path / "features.json", damaged)]
    cases += [(shard, damaged)] + [(shard, reframed)] * (file_format == "tfrecord")
    read(path)  # the array_record library starts its threads, which take room of their own
    with open("/proc/self/statm") as statm:
        used = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    told = [trials(path, *case, int(count), seed) for seed, case in enumerate(cases)]
    print("refused and read", *told)


if __name__ == "__main__":
    main(*sys.argv[1:])
