"""What `write_dataset` writes is a TFDS dataset to stock TFDS, and to our own reader."""

import errno
import itertools
import json
import os
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds

from ambient_jax.data import write
from ambient_jax.data.features import flatten
from ambient_jax.data.rlds import open_dataset

# Reads every dataset with stock TFDS and TensorFlow, and pickles what it saw.
STOCK_READER = """
import pickle, sys
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

def stacked(steps):
    return tf.nest.map_structure(lambda *leaf: np.stack(leaf), *steps)

seen = {}
for path in sys.argv[2:]:
    builder = tfds.builder_from_directory(path)
    if builder.info.file_format.value == "tfrecord":
        splits = {s: tfds.as_numpy(builder.as_dataset(s, read_config=tfds.ReadConfig(
            interleave_cycle_length=1))) for s in builder.info.splits}
    else:
        splits = {s: builder.as_data_source(s) for s in builder.info.splits}
    seen[path] = {}
    for split, episodes in splits.items():
        seen[path][split] = [
            {**e, "steps": stacked(list(e["steps"]))} for e in episodes]
assert tf.__version__
pickle.dump(seen, open(sys.argv[1], "wb"))
"""


def make_features(file_format="tfrecord"):
    observation = {
        "image": tfds.features.Image(shape=(8, 6, 3), encoding_format="png"),
        "wrist": tfds.features.Image(shape=(16, 16, 3), encoding_format="jpeg"),
        "gray": tfds.features.Image(shape=(8, 6, 1)),
        "depth": tfds.features.Image(shape=(8, 6, 1), dtype=np.float32, encoding_format="png"),
        "proprio": {"joints": np.zeros(3, np.float32), "grip": np.float32},
        "pose": jax.ShapeDtypeStruct((4, 4), np.float32),
        "exact": tfds.features.Tensor(shape=(2,), dtype=np.float64, encoding="zlib"),
        "raw": tfds.features.Tensor(shape=(2, 2), dtype=np.int16, encoding="bytes"),
        "rounded": np.float64,
        "count": np.int32,
        "byte": tfds.features.Tensor(shape=(2,), dtype=np.uint8),
        "hash": np.uint64,
        "touch": np.bool_,
        "state": tfds.features.ClassLabel(names=["open", "shut"]),
    }
    if file_format == "tfrecord":  # TFDS needs OpenCV for these outside tf.data
        observation["depth16"] = tfds.features.Image(
            shape=(8, 6, 1), dtype=np.uint16, encoding_format="png"
        )
    metadata = {
        "id": np.int64,
        "file": str,
        "quality": {"success": np.bool_, "score": np.float32},
        "weights": tfds.features.Sequence(np.float32),
        "points": tfds.features.Tensor(shape=(None, 2), dtype=np.float32),
    }
    return write.rlds_features(
        observation, np.zeros(2, np.float32), {"language_instruction": str}, metadata
    )


def make_episode(index, length, file_format="tfrecord"):
    rng = np.random.default_rng([index, length])
    ramp = np.linspace(0, 200, 16, dtype=np.uint8)
    observation = {
        "image": rng.integers(0, 256, (length, 8, 6, 3), np.uint8),
        # Smooth, so that two jpeg decoders may differ by little only.
        "wrist": np.broadcast_to(ramp[:, None, None], (length, 16, 16, 3)) + np.uint8(index),
        "gray": rng.integers(0, 256, (length, 8, 6, 1), np.uint8),
        "depth": rng.normal(size=(length, 8, 6, 1)).astype(np.float32),
        "proprio": {
            "joints": rng.normal(size=(length, 3)).astype(np.float32),
            "grip": rng.normal(size=length).astype(np.float32),
        },
        "pose": rng.normal(size=(length, 4, 4)).astype(np.float32),
        "exact": rng.normal(size=(length, 2)),
        "raw": rng.integers(-(2**15), 2**15, (length, 2, 2), np.int16),
        "rounded": rng.normal(size=length),
        "count": rng.integers(-(2**31), 2**31, length).astype(np.int32),
        "byte": rng.integers(0, 256, (length, 2), np.uint8),
        "hash": rng.integers(0, 2**64, length, np.uint64),
        "touch": rng.random(length) < 0.5,
        "state": rng.integers(0, 2, length),
    }
    if file_format == "tfrecord":
        observation["depth16"] = rng.integers(0, 2**16, (length, 8, 6, 1), np.uint16)
    step = np.arange(length)
    return {
        "steps": {
            "observation": observation,
            "action": rng.normal(size=(length, 2)).astype(np.float32),
            "is_first": step == 0,
            "is_last": step == length - 1,
            "is_terminal": np.zeros(length, bool),
            "reward": rng.normal(size=length).astype(np.float32),
            "discount": np.ones(length, np.float32),
            "language_instruction": [f"push the block, Grüße {i}" for i in range(length)],
        },
        "episode_metadata": {
            "id": index,
            "file": f"log_{index}.bag",
            "quality": {"success": bool(index % 2), "score": 0.5},
            "weights": np.arange(index, dtype=np.float32),
            "points": np.ones((index, 2), np.float32),
        },
    }


def small_features():
    return write.rlds_features({"state": np.zeros(2, np.float32)}, np.zeros(1, np.float32))


def small_episode(length=4, **steps):
    step = np.arange(length)
    steps = {
        "observation": {"state": np.stack([step, step], 1).astype(np.float32)},
        "action": np.ones((length, 1), np.float32),
        "is_first": step == 0,
        "is_last": step == length - 1,
        "is_terminal": step == length - 1,
        "reward": np.zeros(length, np.float32),
        "discount": np.ones(length, np.float32),
    } | steps
    return {"steps": steps}


def write_small(directory, episodes, features=None, **options):
    options = {"name": "small", "version": "1.0.0"} | options
    features = features or small_features()
    return write.write_dataset(directory, features=features, episodes=episodes, **options)


def assert_same(got, sent, jpeg_tolerance):
    got, sent = flatten(got), flatten(sent)
    assert got.keys() == sent.keys()
    for path, value in sent.items():
        if path.endswith("wrist"):
            np.testing.assert_allclose(got[path].astype(int), value, atol=jpeg_tolerance)
        elif path.endswith(("language_instruction", "file")):
            texts = np.char.encode(np.array(value), "utf-8").tolist()
            assert np.asarray(got[path]).tolist() == texts, path
        elif path.endswith("rounded"):  # a tf.Example holds float32
            np.testing.assert_array_equal(got[path], value.astype(np.float32), err_msg=path)
        else:
            np.testing.assert_array_equal(got[path], value, err_msg=path)
            # TFDS itself hands out a Sequence of an episode as a list.
            if isinstance(value, np.ndarray) and not isinstance(got[path], list):
                assert got[path].dtype == value.dtype, path


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(paths, episodes by file format) of two datasets with two splits each."""
    directory = tmp_path_factory.mktemp("written")
    paths, sent = {}, {}
    for file_format in ("array_record", "tfrecord"):
        splits = {
            "train": [make_episode(i, 3 + i, file_format) for i in range(5)],
            "val": [make_episode(9, 1, file_format)],
        }
        paths[file_format] = write.write_dataset(
            directory,
            name=f"rich_{file_format}",
            version="1.2.0",
            features=make_features(file_format),
            episodes=splits,
            file_format=file_format,
            shards=2,
            description="everything",
            citation="@misc{x}",
        )
        sent[file_format] = splits
    return paths, sent


def test_stock_tfds_with_tensorflow_reads_every_value(written, tmp_path):
    paths, sent = written
    out = tmp_path / "seen.pickle"
    command = [sys.executable, "-c", STOCK_READER, str(out), *map(str, paths.values())]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = pickle.loads(out.read_bytes())
    for file_format, path in paths.items():
        for split, episodes in sent[file_format].items():
            assert len(seen[str(path)][split]) == len(episodes)
            for got, episode in zip(seen[str(path)][split], episodes, strict=True):
                assert_same(got, episode, jpeg_tolerance=12)


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_our_reader_reads_every_value(written, file_format):
    paths, sent = written
    for split, episodes in sent[file_format].items():
        dataset = open_dataset(paths[file_format], split)
        for i, episode in enumerate(episodes):
            assert_same(dataset[i], episode, jpeg_tolerance=12)


def test_layout_and_metadata_are_those_of_tfds(written):
    path = written[0]["tfrecord"]
    assert path.parts[-2:] == ("rich_tfrecord", "1.2.0")
    assert {p.name for p in path.iterdir()} == {
        "dataset_info.json",
        "features.json",
        "steps-observation-state.labels.txt",
        "rich_tfrecord-train.tfrecord-00000-of-00002",
        "rich_tfrecord-train.tfrecord-00001-of-00002",
        "rich_tfrecord-val.tfrecord-00000-of-00001",
    }
    info = json.loads((path / "dataset_info.json").read_text())
    assert info["fileFormat"] == "tfrecord"
    assert (info["description"], info["citation"]) == ("everything", "@misc{x}")
    train, val = info["splits"]
    assert train["shardLengths"] == ["2", "3"] and val["shardLengths"] == ["1"]
    # A record is framed by 16 bytes: length, its crc, the crc of the data.
    framed = sum(p.stat().st_size for p in path.glob("*train*"))
    assert int(train["numBytes"]) == framed - 5 * 16


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize(
    ("shards", "lengths"), [(None, [7]), (1, [7]), (3, [2, 2, 3]), (9, [1] * 7)]
)
@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_shards_keep_the_order(tmp_path, file_format, shards, lengths, sized):
    episodes = [small_episode(reward=np.full(4, i, np.float32)) for i in range(7)]
    episodes = episodes if sized else iter(episodes)
    path = write_small(tmp_path, episodes, file_format=file_format, shards=shards)
    dataset = open_dataset(path)
    assert dataset.shard_lengths == lengths
    assert [dataset[i]["steps"]["reward"][0] for i in range(7)] == list(range(7))
    assert len(list(path.iterdir())) == len(lengths) + 2


def test_shards_roll_over_by_size(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "_SHARD_BYTES", 1000)
    path = write_small(tmp_path, (small_episode() for _ in range(20)))
    lengths = open_dataset(path).shard_lengths
    assert sum(lengths) == 20 and len(lengths) > 2 and min(lengths[:-1]) > 1


def test_a_generator_larger_than_one_shard_is_cut_evenly(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "_SHARD_BYTES", 1000)
    path = write_small(tmp_path, (small_episode() for _ in range(20)), shards=2)
    assert open_dataset(path).shard_lengths == [10, 10]


def test_episodes_are_streamed(tmp_path):
    alive = []

    class Tracked(dict):
        def __del__(self):
            alive.pop()

    def generate():
        for _ in range(10):
            alive.append(1)
            yield Tracked(small_episode())
            assert len(alive) <= 2

    write_small(tmp_path, generate(), shards=2)


def test_encoded_images_pass_through(tmp_path, written):
    source = open_dataset(written[0]["array_record"], decode_images=False)[0]
    blobs = source["steps"]["observation"]["image"]
    features = write.rlds_features(
        {"image": tfds.features.Image(shape=(8, 6, 3), encoding_format="png")},
        np.zeros(1, np.float32),
    )
    episode = small_episode(len(blobs), observation={"image": blobs})
    path = write_small(tmp_path, [episode], features)
    copied = open_dataset(path, decode_images=False)[0]["steps"]["observation"]["image"]
    assert copied.tolist() == blobs.tolist()


def test_images_of_differing_sizes(tmp_path):
    features = write.rlds_features({"image": tfds.features.Image()}, np.zeros(1, np.float32))
    images = [np.full((i + 1, 2, 3), i, np.uint8) for i in range(4)]
    path = write_small(tmp_path, [small_episode(observation={"image": images})], features)
    got = open_dataset(path)[0]["steps"]["observation"]["image"]
    assert got.dtype == object
    for a, b in zip(got, images, strict=True):
        np.testing.assert_array_equal(a, b)


def test_python_numbers_take_the_features_dtype(tmp_path):
    path = write_small(tmp_path, [small_episode(reward=[0.5, 1, 2, 3])])
    reward = open_dataset(path)[0]["steps"]["reward"]
    assert reward.dtype == np.float32 and reward.tolist() == [0.5, 1, 2, 3]


def test_an_episode_without_steps_keeps_its_shapes(tmp_path):
    path = write_small(tmp_path, [small_episode(0)])
    steps = open_dataset(path)[0]["steps"]
    assert steps["observation"]["state"].shape == (0, 2)
    assert steps["is_first"].shape == (0,) and steps["is_first"].dtype == bool


@pytest.mark.parametrize(
    ("steps", "match"),
    [
        (
            {"action": np.ones((3, 1), np.float32)},
            r"split 'train', episode 1: fields of 'steps' differ in length: .*steps/action 3",
        ),
        (
            {"action": np.ones((4, 2), np.float32)},
            r"episode 1: 'steps/action' has shape \[4, 2\], expected \[T, 1\]",
        ),
        (
            {"action": np.ones((4, 1))},
            r"episode 1: 'steps/action' has dtype float64, expected float32: cast it",
        ),
        ({"is_last": np.ones(4, np.int32)}, "'steps/is_last' has dtype int32, expected bool"),
        ({"reward": ["a"] * 4}, "'steps/reward' has dtype <U1, expected float32"),
        (
            {"observation": {"stat": np.ones((4, 2), np.float32)}},
            "has no 'steps/observation/state'.*did you mean 'steps/observation/stat'",
        ),
        ({"rewards": np.ones(4)}, "has 'steps/rewards', which .* did you mean 'steps/reward'"),
    ],
)
def test_bad_episode_is_named(tmp_path, steps, match):
    with pytest.raises(ValueError, match=match):
        write_small(tmp_path, [small_episode(), small_episode(**steps)])
    assert list((tmp_path / "small").iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "value", "match"),
    [
        (np.uint8, [1, 2, 3, 4], "'steps/x' has dtype int64, expected uint8"),
        (np.int32, [1, 2, 3, 2**40], "'steps/x' holds values beyond int32"),
        (np.int32, [0.5, 1, 2, 3], "'steps/x' has dtype float64, expected int32"),
        (str, [1, 2, 3, 4], "'steps/x' holds int, expected str or bytes"),
        (str, "push", r"'steps/x' has shape \[\], expected \[T\]"),
        (
            tfds.features.Image(shape=(2, 2, 3)),
            np.zeros((4, 2, 3, 3), np.uint8),
            r"'steps/x' has shape \[2, 3, 3\], expected \[2, 2, 3\]",
        ),
        (
            tfds.features.Image(shape=(2, 2, 3)),
            np.zeros((4, 2, 2, 3)),
            "'steps/x' has dtype float64, expected uint8",
        ),
        (tfds.features.Image(), 3, "'steps/x' is int, expected T images"),
        (
            tfds.features.Image(shape=(2, 2, 3), dtype=np.uint16),
            np.zeros((4, 2, 2, 3), np.uint16),
            "'steps/x': uint16 images of several channels cannot be written",
        ),
    ],
)
def test_bad_value_is_named(tmp_path, kind, value, match):
    features = write.rlds_features(
        {"state": np.zeros(2, np.float32)}, np.zeros(1, np.float32), {"x": kind}
    )
    with pytest.raises(ValueError, match=f"episode 0: {match}"):
        write_small(tmp_path, [small_episode(x=value)], features)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"file_format": "tfrecords"}, "file_format is 'tfrecords'.*did you mean 'tfrecord'"),
        ({"name": "my-data"}, "name is 'my-data', expected letters"),
        ({"version": "1.0"}, "version is '1.0', expected three numbers"),
        ({"split": "all"}, "split is 'all', expected letters"),
        ({"shards": 0}, "shards is 0, expected at least 1"),
    ],
)
def test_bad_option(tmp_path, options, match):
    with pytest.raises(ValueError, match=match):
        write_small(tmp_path, [small_episode()], **options)


def test_bad_directory():
    with pytest.raises(ValueError, match="cannot write to 'gs://b': give a local directory"):
        write_small("gs://b", [small_episode()])


@pytest.mark.parametrize("shards", [None, 2])
def test_no_episode(tmp_path, shards):
    with pytest.raises(ValueError, match="split 'val' has no episode"):
        write_small(tmp_path, {"train": [small_episode()], "val": iter([])}, shards=shards)
    assert list((tmp_path / "small").iterdir()) == []


def test_feature_that_cannot_be_written(tmp_path):
    features = write.rlds_features(
        {"words": tfds.features.Sequence(np.int32)}, np.zeros(1, np.float32)
    )
    with pytest.raises(ValueError, match="feature 'steps/observation/words' cannot be written"):
        write_small(tmp_path, [], features)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupt_leaves_nothing(tmp_path, error):
    def episodes():
        yield small_episode()
        raise error

    with pytest.raises(error):
        write_small(tmp_path, episodes())
    assert list((tmp_path / "small").iterdir()) == []


FULL = """
import resource, signal, sys
import numpy as np
from ambient_jax.data import write
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
writer = write._WRITERS[sys.argv[1]](sys.argv[2])
try:
    for _ in range(400):
        writer.write(np.random.default_rng(0).bytes(1 << 13))
    writer.close()
except OSError as error:
    print(error.errno, error)
"""


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_a_disk_without_room_is_an_error_of_the_system(tmp_path, file_format):
    path = str(tmp_path / "x")
    command = [sys.executable, "-c", FULL, file_format, path]
    done = subprocess.run(command, capture_output=True, text=True)
    told = f"{errno.EFBIG} {path} cannot be written (File too large): mend that, then write again\n"
    assert done.stdout == told, done.stderr


def test_a_killed_write_is_not_taken_for_a_dataset(tmp_path):
    def episodes():
        yield small_episode()
        # What the reader would see now is what a kill would leave behind.
        assert len(list((tmp_path / "small").iterdir())) == 1
        with pytest.raises(FileNotFoundError, match="is no TFDS dataset"):
            open_dataset(tmp_path / "small")
        assert tfds.core.utils.version.list_all_versions(tmp_path / "small") == []

    write_small(tmp_path, episodes())
    assert len(open_dataset(tmp_path / "small")) == 1


def test_existing_dataset_needs_overwrite(tmp_path):
    write_small(tmp_path, [small_episode()])
    drawn = itertools.count()
    with pytest.raises(FileExistsError, match="1.0.0 exists: .*overwrite=True"):
        write_small(tmp_path, (small_episode() for _ in drawn))
    assert next(drawn) == 0, "refused only after work was done"
    path = write_small(tmp_path, [small_episode()] * 3, overwrite=True)
    assert len(open_dataset(path)) == 3
    assert [p.name for p in path.parent.iterdir()] == ["1.0.0"]


def test_failed_overwrite_keeps_the_old(tmp_path):
    path = write_small(tmp_path, [small_episode()])
    with pytest.raises(ValueError, match="episode 0"):
        write_small(tmp_path, [small_episode(reward=1)], overwrite=True)
    assert len(open_dataset(path)) == 1


def test_rlds_features_have_the_standard_fields_and_those_asked_for():
    vector = np.zeros(2, np.float32)
    features = write.rlds_features(
        {"state": vector, "text": str},
        np.zeros(3, np.float32),
        step_extra={"cost": np.float32},
        episode_metadata={"seed": np.int64},
    )
    step = features["steps"].feature
    standard = {"is_first", "is_last", "is_terminal", "reward", "discount"}
    assert set(step) == {"observation", "action", "cost"} | standard
    assert step["observation"]["state"].shape == (2,) and step["action"].shape == (3,)
    assert isinstance(step["observation"]["text"], tfds.features.Text)
    assert features["episode_metadata"]["seed"].np_dtype == np.int64


def test_a_field_that_describes_nothing_is_refused():
    with pytest.raises((TypeError, ValueError)):
        write.rlds_features({"state": object()}, np.zeros(3, np.float32))
