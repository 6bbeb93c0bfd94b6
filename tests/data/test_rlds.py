"""`open_dataset` on what stock TFDS wrote, on what we wrote, and on every kind of damage."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from ambient_jax.data import records
from ambient_jax.data.rlds import open_dataset
from ambient_jax.data.write import rlds_features, write_dataset

LENGTHS = [3, 1, 4, 1, 5, 9, 2]

# Stock TFDS with TensorFlow writes a dataset with the features we cannot write ourselves.
STOCK_WRITER = """
import sys
import numpy as np
import tensorflow_datasets as tfds

# The builder would look for mixture data in the cloud.
tfds.core.utils.gcs_utils._is_gcs_disabled = True

class StockToy(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("2.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, disable_shuffling=True,
            features=tfds.features.FeaturesDict({
            "steps": tfds.features.Dataset({
                "observation": {
                    "image": tfds.features.Image(shape=(4, 4, 3)),
                    "words": tfds.features.Sequence(np.int32),
                    "joints": tfds.features.Sequence(np.float32, length=2),
                    "boxes": tfds.features.Sequence({
                        "at": tfds.features.Tensor(shape=(2,), dtype=np.int32),
                        "name": tfds.features.Text(),
                    }),
                    "frames": tfds.features.Sequence(tfds.features.Image(shape=(4, 4, 3))),
                    "cloud": tfds.features.Tensor(
                        shape=(None, None), dtype=np.float32, encoding="zlib"),
                    "line": tfds.features.Tensor(
                        shape=(None, 2), dtype=np.int16, encoding="bytes"),
                },
                "action": tfds.features.Tensor(shape=(2,), dtype=np.float32),
                "is_first": np.bool_,
                "text": tfds.features.Text(),
            }),
            "events": tfds.features.Sequence({"at": np.int64, "what": tfds.features.Text()}),
            "episode_metadata": {
                "id": np.int64, "box": tfds.features.BBoxFeature(), "tags": tfds.features.Sequence(
                    tfds.features.Text())},
        }))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(3):
            yield i, {
                "steps": [{
                    "observation": {
                        "image": np.full((4, 4, 3), 10 * i + t, np.uint8),
                        "words": list(range(t)),
                        "joints": [i, t],
                        "boxes": {"at": [[t, i]] * t, "name": ["box"] * t},
                        "frames": [np.zeros((4, 4, 3), np.uint8)] * (t + 1),
                        "cloud": np.full((t, 2), i, np.float32),
                        "line": np.full((t, 2), i, np.int16),
                    },
                    "action": np.array([i, t], np.float32),
                    "is_first": t == 0,
                    "text": f"{i}/{t}",
                } for t in range(i + 2)],
                "events": {"at": list(range(i)), "what": [str(n) for n in range(i)]},
                "episode_metadata": {"id": i, "box": tfds.features.BBox(0.0, 0.0, 0.5, 1.0),
                                     "tags": ["a"] * i},
            }

for file_format in ("array_record", "tfrecord"):
    StockToy(data_dir=f"{sys.argv[1]}/{file_format}", file_format=file_format
             ).download_and_prepare()
"""

NO_TENSORFLOW = """
import sys
from ambient_jax.data import rlds, write
for path in sys.argv[1:]:
    dataset = rlds.open_dataset(path)
    assert len(dataset[0]["steps"]["action"]) == 3
    assert sum(1 for _ in dataset.stream(0)) == dataset.shard_lengths[0]
    dataset.fingerprint
assert "tensorflow" not in sys.modules, "tensorflow was imported"
"""


def run(code, *arguments):
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *map(str, code), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def features():
    observation = {
        "image": tfds.features.Image(shape=(4, 4, 3)),
        "state": np.zeros(2, np.float32),
        "gripper": np.float32,
    }
    metadata = {"id": np.int64, "padding": str}
    return rlds_features(observation, np.zeros(2, np.float32), {"text": str}, metadata)


def episode(index):
    length = LENGTHS[index]
    step = np.arange(length)
    return {
        "steps": {
            "observation": {
                "image": np.full((length, 4, 4, 3), index, np.uint8),
                "state": np.full((length, 2), index, np.float32),
                "gripper": step.astype(np.float32),
            },
            "action": np.stack([step, step], 1).astype(np.float32),
            "is_first": step == 0,
            "is_last": step == length - 1,
            "is_terminal": step == length - 1,
            "reward": np.zeros(length, np.float32),
            "discount": np.ones(length, np.float32),
            "text": ["push"] * length,
        },
        # Incompressible, so that a cut or a flipped byte falls into a record.
        "episode_metadata": {
            "id": index,
            "padding": np.random.default_rng(index).bytes(20000),
        },
    }


@pytest.fixture(scope="session")
def originals(tmp_path_factory):
    directory = tmp_path_factory.mktemp("rlds")
    return {
        file_format: write_dataset(
            directory / file_format,
            name="toy",
            version="1.0.0",
            features=features(),
            episodes={"train": [episode(i) for i in range(7)], "val": [episode(0)]},
            file_format=file_format,
            shards=3,  # of 2, 2 and 3 episodes
        )
        for file_format in ("array_record", "tfrecord")
    }


@pytest.fixture(params=["array_record", "tfrecord"])
def path(request, originals):
    """An intact dataset; tests that damage it take `copy`."""
    return originals[request.param]


@pytest.fixture
def copy(path, tmp_path):
    return shutil.copytree(path, tmp_path / "toy" / "1.0.0")


def edit_info(path, edit):
    file = path / "dataset_info.json"
    info = json.loads(file.read_text())
    edit(info)
    file.write_text(json.dumps(info))


def test_tensorflow_is_never_imported(originals):
    run(["-c", NO_TENSORFLOW], *originals.values())


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    directory = tmp_path_factory.mktemp("stock")
    script = directory / "stock_toy.py"  # a builder asks for the file it comes from
    script.write_text(STOCK_WRITER)
    run([script], directory)
    return directory


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_reads_what_stock_tfds_wrote(stock, file_format):
    dataset = open_dataset(stock / file_format / "stock_toy")
    assert (dataset.name, dataset.version, dataset.file_format, len(dataset)) == (
        "stock_toy",
        "2.0.0",
        file_format,
        3,
    )
    for i in range(3):
        got = dataset[i]
        steps, length = got["steps"], i + 2
        observation = steps["observation"]
        assert observation["image"].shape == (length, 4, 4, 3)
        assert observation["image"][:, 0, 0, 0].tolist() == [10 * i + t for t in range(length)]
        assert steps["action"].tolist() == [[i, t] for t in range(length)]
        assert steps["action"].dtype == np.float32
        assert steps["is_first"].tolist() == [True] + [False] * (length - 1)
        assert steps["text"].tolist() == [f"{i}/{t}".encode() for t in range(length)]
        assert [list(w) for w in observation["words"]] == [list(range(t)) for t in range(length)]
        assert observation["joints"].tolist() == [[i, t] for t in range(length)]
        assert [b.tolist() for b in observation["boxes"]["at"]] == [
            [[t, i]] * t for t in range(length)
        ]
        names = [n.tolist() for n in observation["boxes"]["name"]]
        assert names == [[b"box"] * t for t in range(length)]
        assert [np.asarray(f).shape for f in observation["frames"]] == [
            (t, 4, 4, 3) for t in range(1, length + 1)
        ]
        for name, dtype in (("cloud", np.float32), ("line", np.int16)):
            assert [c.shape for c in observation[name]] == [(t, 2) for t in range(length)]
            assert all((c == i).all() and c.dtype == dtype for c in observation[name])
        assert got["events"]["at"].tolist() == list(range(i))
        assert got["events"]["what"].tolist() == [str(n).encode() for n in range(i)]
        assert got["episode_metadata"]["id"] == i
        assert got["episode_metadata"]["tags"].tolist() == [b"a"] * i
        np.testing.assert_array_equal(got["episode_metadata"]["box"], [0, 0, 0.5, 1])


def test_attributes(path):
    dataset = open_dataset(path)
    assert (dataset.name, dataset.version, dataset.split) == ("toy", "1.0.0", "train")
    assert len(dataset) == dataset.num_episodes == 7
    assert dataset.shard_lengths == [2, 2, 3]
    assert [os.path.dirname(f) for f in dataset.shard_files] == [str(path)] * 3
    assert all(os.path.exists(f) for f in dataset.shard_files)
    assert dataset.episode_ids.tolist() == list(range(7))
    assert "steps" in dataset.features
    assert repr(dataset).startswith("RldsDataset(toy 1.0.0, 'train', 7 episodes in 3 ")


def test_a_parent_with_one_version_will_do(path):
    assert open_dataset(path.parent).directory == str(path)
    assert open_dataset(str(path)).directory == str(path)


def test_random_access(path):
    dataset = open_dataset(path)
    for i in (6, 0, 3, -1, np.int64(2)):
        got = dataset[i]
        assert got["episode_metadata"]["id"] == i % 7
        assert len(got["steps"]["action"]) == LENGTHS[i % 7]
    assert [e["episode_metadata"]["id"] for e in dataset] == list(range(7))
    with pytest.raises(IndexError, match="episode 7 of .* does not exist"):
        dataset[7]


def test_stream_resumes_anywhere(path):
    dataset = open_dataset(path)
    whole = [(i, e["episode_metadata"]["id"]) for s in range(3) for i, e in dataset.stream(s)]
    assert whole == [(i, i) for i in range(7)]
    for start in range(4):
        assert [i for i, _ in dataset.stream(2, start)] == [4, 5, 6][start:]
    with pytest.raises(IndexError, match="shard 3 of .* does not exist"):
        dataset.stream(3)
    with pytest.raises(IndexError, match="start is 3, expected 0 to 2"):
        dataset.stream(0, 3)


def test_slices_keep_the_ids(path):
    dataset = open_dataset(path, "train[3:6]")
    assert len(dataset) == 3 and dataset.shard_lengths == [1, 2]
    assert dataset.episode_ids.tolist() == [3, 4, 5]
    assert [dataset[i]["episode_metadata"]["id"] for i in range(3)] == [3, 4, 5]
    streamed = [(i, e["episode_metadata"]["id"]) for s in range(2) for i, e in dataset.stream(s)]
    assert streamed == [(3, 3), (4, 4), (5, 5)]
    assert [i for i, _ in dataset.stream(1, 1)] == [5]
    parts = open_dataset(path, "train[:50%]"), open_dataset(path, "train[50%:]")
    assert sum((p.episode_ids.tolist() for p in parts), []) == list(range(7))


def test_pickled_copy_reads(path):
    dataset = open_dataset(path, keys=("steps/action",))
    before = dataset[4]["steps"]["action"]
    again = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(again[4]["steps"]["action"], before)
    assert [i for i, _ in again.stream(1)] == [2, 3]
    assert again.fingerprint == dataset.fingerprint


def test_keys_decode_only_what_is_asked(path):
    keys = ("steps/observation/state", "steps/is_first", "episode_metadata")
    got = open_dataset(path, keys=keys)[2]
    assert set(got) == {"steps", "episode_metadata"}
    assert set(got["steps"]) == {"observation", "is_first"}
    assert set(got["steps"]["observation"]) == {"state"}
    assert set(got["episode_metadata"]) == {"id", "padding"}
    assert set(open_dataset(path, keys=["steps/observation"])[0]["steps"]["observation"]) == {
        "image",
        "state",
        "gripper",
    }


def test_images_stay_encoded(path):
    got = open_dataset(path, decode_images=False)[2]["steps"]["observation"]["image"]
    assert got.shape == (4,) and got.dtype == object
    assert all(blob.startswith(b"\x89PNG") for blob in got)


def test_arrays_can_be_written_to(path):
    steps = open_dataset(path)[2]["steps"]
    steps["action"] += 1
    steps["observation"]["image"][0] = 0


def test_fingerprint_follows_data_metadata_and_split(copy):
    first = open_dataset(copy).fingerprint
    assert open_dataset(copy).fingerprint == first
    assert open_dataset(copy, keys=("steps/action",)).fingerprint == first
    assert open_dataset(copy, "train[:50%]").fingerprint != first
    assert open_dataset(copy, "val").fingerprint != first
    edit_info(copy, lambda info: info.update(description="else"))
    assert open_dataset(copy).fingerprint != first


def test_fingerprint_sees_other_values_of_the_same_size(tmp_path):
    seen = set()
    for seed in range(2):
        data = episode(2)
        data["steps"]["action"] += np.float32(seed)
        path = write_dataset(
            tmp_path,
            name="toy",
            version="1.0.0",
            features=features(),
            episodes=[data],
            file_format="tfrecord",
            overwrite=True,
        )
        sizes = tuple(p.stat().st_size for p in sorted(path.iterdir()))
        seen.add((open_dataset(path).fingerprint, sizes))
    assert len({f for f, _ in seen}) == 2 and len({s for _, s in seen}) == 1


def test_metadata_of_old_tfds_versions(originals, tmp_path):
    path = shutil.copytree(originals["tfrecord"], tmp_path / "old")

    def strip(info):
        del info["fileFormat"]
        for split in info["splits"]:
            del split["filepathTemplate"]

    edit_info(path, strip)
    assert len(open_dataset(path)[0]["steps"]["action"]) == 3


def test_missing_directory(path):
    with pytest.raises(FileNotFoundError, match="1.0.1 does not exist; did you mean '1.0.0'"):
        open_dataset(path.parent / "1.0.1")
    with pytest.raises(FileNotFoundError, match="does not exist; .* holds 1.0.0"):
        open_dataset(path.parent / "data")
    with pytest.raises(FileNotFoundError, match="does not exist, nor does .*nowhere"):
        open_dataset("/nowhere/at/all")
    with pytest.raises(FileNotFoundError, match="features.json is a file"):
        open_dataset(path / "features.json")


def test_no_dataset_in_it(path, tmp_path):
    with pytest.raises(FileNotFoundError, match="is no TFDS dataset: no dataset_info.json in it"):
        open_dataset(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"there are datasets below it: .*toy/1\.0\.0"):
        open_dataset(path.parent.parent)


def test_several_versions(copy):
    shutil.copytree(copy, copy.parent / "2.0.0")
    with pytest.raises(ValueError, match=r"holds 2 versions \(1.0.0, 2.0.0\): give the path of"):
        open_dataset(copy.parent)


def test_unreadable_metadata(copy):
    (copy / "dataset_info.json").write_text("{")
    with pytest.raises(ValueError, match=r"(dataset_info|features)\.json cannot be read"):
        open_dataset(copy)


def test_missing_features(copy):
    (copy / "features.json").unlink()
    with pytest.raises(FileNotFoundError, match="has dataset_info.json but no features.json"):
        open_dataset(copy)


@pytest.mark.parametrize(
    ("split", "match"),
    [
        ("trian", "has no split 'trian', it has train, val; did you mean 'train'"),
        ("test[:10%]", "has no split 'test', it has train, val"),
        ("train[10%", "split is 'train.10%', expected a slice such as"),
        ("train+val", "split is 'train.val': episode ids are those of one split"),
        ("train[2:2]", "split 'train.2:2.' of .* holds no episode"),
    ],
)
def test_bad_split(path, split, match):
    with pytest.raises(ValueError, match=match):
        open_dataset(path, split)


def test_empty_dataset(copy):
    edit_info(copy, lambda info: info["splits"][0].update(shardLengths=["0"]))
    with pytest.raises(ValueError, match="split 'train' of .* holds no episode"):
        open_dataset(copy)
    edit_info(copy, lambda info: info.update(splits=[]))
    with pytest.raises(ValueError, match="has no split 'train', it has none"):
        open_dataset(copy)


@pytest.mark.parametrize("argument", ["required", "keys"])
def test_unknown_feature(path, argument):
    with pytest.raises(ValueError, match="no feature 'steps/obs.*/stat'; did you mean 'steps/obs"):
        open_dataset(path, **{argument: ("steps/action", "steps/observation/stat")})
    with pytest.raises(ValueError, match="no feature 'x'; it has .*steps/action"):
        open_dataset(path, **{argument: ("x",)})
    assert open_dataset(path, **{argument: ("steps/observation", "steps/action")})


@pytest.mark.parametrize(
    ("tree", "match"),
    [
        ({"image": np.uint8}, r"is no RLDS dataset: it has no 'steps' \(it has image\)"),
        ({"steps": np.uint8}, "is no RLDS dataset: 'steps' is no nested dataset"),
    ],
)
def test_no_rlds(copy, tree, match):
    tfds.features.FeaturesDict(tree).save_config(copy)
    with pytest.raises(ValueError, match=match):
        open_dataset(copy)


def test_missing_shard(copy):
    shards = open_dataset(copy).shard_files
    os.remove(shards[1])
    with pytest.raises(FileNotFoundError, match="shard .*-00001-of-00003 is missing, which"):
        open_dataset(copy)
    os.remove(shards[0])
    with pytest.raises(FileNotFoundError, match="-00000-of-00003 and 1 more is missing"):
        open_dataset(copy)
    assert len(open_dataset(copy, "val")) == 1


def test_truncated_shard(copy):
    dataset = open_dataset(copy)
    with open(dataset.shard_files[1], "r+b") as file:
        file.truncate(30000)
    with pytest.raises(ValueError, match="-00001-of-00003.*truncated"):
        list(dataset.stream(1))
    with pytest.raises(ValueError, match="-00001-of-00003.*truncated"):
        dataset[3]
    assert len(list(dataset.stream(2))) == 3


def test_corrupt_record(copy):
    dataset = open_dataset(copy)
    file = dataset.shard_files[2]
    with open(file, "rb") as stream:
        data = bytearray(stream.read())
    padding = np.random.default_rng(5).bytes(20000)  # of record 1 of this shard
    data[data.index(padding[5000:5100]) + 50] ^= 0xFF
    with open(file, "wb") as stream:
        stream.write(data)
    with pytest.raises(ValueError, match="-00002-of-00003.*record 1.*corrupt|corrupt.*record 1"):
        dataset[5]
    stream = dataset.stream(2)
    assert next(stream)[0] == 4
    with pytest.raises(ValueError, match="-00002-of-00003.*record 1|corrupt data of record 1"):
        next(stream)
    assert [i for i, _ in dataset.stream(2, start=2)] == [6]


def test_fewer_records_than_promised(copy):
    edit_info(copy, lambda info: info["splits"][0].update(shardLengths=["2", "2", "4"]))
    dataset = open_dataset(copy)
    with pytest.raises(ValueError, match="-00002-of-00003.*"):
        list(dataset.stream(2))
    with pytest.raises(ValueError, match="-00002-of-00003.*"):
        dataset[7]


def test_record_that_is_no_episode(copy):
    shutil.copy(open_dataset(copy).shard_files[0], copy / "spare")
    extra = tfds.features.FeaturesDict({"steps": tfds.features.Dataset({"speed": np.float32})})
    extra.save_config(copy)
    with pytest.raises(ValueError, match="record 0: has no 'steps/speed', which features.json"):
        open_dataset(copy)[0]


@pytest.mark.parametrize("lengths", [[], ["0", "0", "0"]])
def test_an_empty_split_beside_others(copy, lengths):
    edit_info(copy, lambda info: info["splits"][0].update(shardLengths=lengths))
    with pytest.raises(ValueError, match=r"'train' of .* holds no episode.* are in val \(1\)"):
        open_dataset(copy)
    assert len(open_dataset(copy, "val")) == 1


def test_a_recorded_empty_split(recorded_data):
    with pytest.raises(ValueError, match="'train' of .* holds no episode"):
        open_dataset(recorded_data / "rlds_empty_split")


@pytest.mark.parametrize("length", [3, 2000])
@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_fingerprint_sees_one_changed_value_anywhere(tmp_path, monkeypatch, file_format, length):
    """In the middle of a file too, and from checksums alone: no file is read as a whole."""
    monkeypatch.setattr(records, "_PIECE", "none: a file read as a whole is a TypeError")
    rng, seen = np.random.default_rng(0), []
    values = rng.normal(size=(12, length, 7)).astype(np.float32)
    for changed in (None, *np.ndindex(12, 2)):
        actions = values.copy()
        if changed is not None:
            actions[changed[0], length // 2 + changed[1], 3] = 1000.0
        path = write_dataset(
            tmp_path,
            name="same",
            version="1.0.0",
            features=rlds_features({"state": values[0, 0]}, values[0, 0]),
            episodes=({"steps": _steps(a)} for a in actions),
            file_format=file_format,
            overwrite=True,
        )
        seen.append(open_dataset(path).fingerprint)
    assert len(set(seen)) == len(seen)
    moved = shutil.copytree(path, tmp_path / "elsewhere" / "1.0.0")
    assert open_dataset(moved).fingerprint == seen[-1]


def _steps(actions):
    flags = {name: np.zeros(len(actions), bool) for name in ("is_first", "is_last", "is_terminal")}
    ones = {name: np.ones(len(actions), np.float32) for name in ("reward", "discount")}
    return {"observation": {"state": actions}, "action": actions, **flags, **ones}


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_fingerprint_of_a_damaged_file_is_that_of_all_its_bytes(tmp_path, file_format):
    """What cannot be walked through is read, so that each damage is another."""
    file = tmp_path / "damaged"
    marks = set()
    for k in range(5):
        data = bytearray(b"x" * 200_000)
        data[1000 * k * k] = 0
        file.write_bytes(data)
        marks.add(records.digest(str(file), file_format))
    assert len(marks) == 5
    assert records.digest(str(tmp_path / "none"), file_format) == "missing"
