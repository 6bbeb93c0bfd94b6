"""Data sets that are compared, and RLDS of nested names."""

import numpy as np
import tensorflow_datasets as tfds

from ambient_jax.data import storage
from ambient_jax.data.features import flatten
from ambient_jax.data.write import write_dataset
from tests.data.storage import lerobot_folders as folders


def is_clip(value):
    return isinstance(value, storage.video.Clip)


def assert_same(one, other, pictures_differ_by=0.0, but=()):
    """Two data sets hold the same episodes; pictures differ by no more than a mean error."""
    assert len(one) == len(other)
    for position in range(len(one)):
        flat, again = flatten(one[position]), flatten(other[position])
        assert set(flat) - set(but) == set(again) - set(but)
        for path in set(flat) - set(but):
            a, b = flat[path], again[path]
            if is_clip(a) or is_clip(b):
                a, b = storage_array(a), storage_array(b)
                error = np.mean((a.astype(float) - b) ** 2)
                assert error <= pictures_differ_by, (path, error)
            else:
                a, b = np.asarray(a), np.asarray(b)  # a text of an episode is bytes
                assert a.dtype == b.dtype and a.shape == b.shape, path
                np.testing.assert_array_equal(a, b)


def storage_array(value):
    """Clips and encoded pictures as arrays, others as they are."""
    if is_clip(value):
        return value.decode()
    if value.dtype == object and value[0].startswith(b"\x89PNG"):
        return np.stack([folders.unpng(v) for v in value])
    return value


LEROBOTS_OWN = {f"steps/{n}" for n in ("timestamp", "frame_index", "episode_index", "index")}
LEROBOTS_OWN |= {f"steps/{n}" for n in ("task_index", "is_first", "is_last")}
LEROBOTS_OWN |= {"steps/language_instruction"}


def write_rlds(root, episodes, observation, **steps):
    fields = {
        "observation": observation,
        "action": tfds.features.Tensor(shape=(2,), dtype=np.float32),
    }
    features = {"steps": tfds.features.Dataset(fields | steps)}
    if "episode_metadata" in episodes[0]:
        features["episode_metadata"] = {"file": tfds.features.Text()}
    features = tfds.features.FeaturesDict(features)
    return write_dataset(root, name="set", version="1.0.0", features=features, episodes=episodes)


def nested(number, length):
    rng = np.random.default_rng(number)
    observation = {
        "joints": {"left": rng.normal(size=(length, 4)).astype(np.float32)},
        "depth": rng.integers(0, 9, (length, 4, 6, 1)).astype(np.uint16),
        "matrix": rng.normal(size=(length, 2, 2)),
        "counter": rng.integers(0, 255, (length, 1)).astype(np.uint8),
    }
    return {
        "steps": {
            "observation": observation,
            "action": rng.normal(size=(length, 2)).astype(np.float32),
            "reward": rng.random(length).astype(np.float32),
            "is_last": np.arange(length) == length - 2,  # not what LeRobot's ends would be
            "language_instruction": [f"task {number}".encode()] * length,
            "index": np.full(length, 7),
        },
        "episode_metadata": {"file": b"a.h5"},
    }


def write_nested(root, episodes=None):
    tensor = tfds.features.Tensor
    bytes_ = tfds.features.Encoding.BYTES
    observation = {
        "joints": {"left": tensor(shape=(4,), dtype=np.float32)},
        "depth": tfds.features.Image(shape=(4, 6, 1), dtype=np.uint16),
        "matrix": tensor(shape=(2, 2), dtype=np.float64, encoding=bytes_),
        "counter": tensor(shape=(1,), dtype=np.uint8),
    }
    scalars = {"reward": np.float32, "is_last": np.bool_, "index": np.int64}
    steps = {n: tfds.features.Scalar(dtype) for n, dtype in scalars.items()}
    steps["language_instruction"] = tfds.features.Text()
    episodes = episodes or [nested(0, 5), nested(1, 3)]
    write_rlds(root, episodes, observation, **steps)
    return storage.open_dataset(root / "set", decode_images=False, last_step="keep")
