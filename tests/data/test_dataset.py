"""The base of data sets in folders, by a format of its own: an episode is a file of numbers."""

import os
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

from ambient_jax.data import dataset
from ambient_jax.data.features import flatten
from ambient_jax.data.metadata import MissingShardError
from ambient_jax.data.storage.video import Clip

STEP = {
    "action": tfds.features.Tensor(shape=(1,), dtype=np.float64),
    "observation": {"state": tfds.features.Tensor(shape=(2,), dtype=np.float64)},
    "is_first": tfds.features.Scalar(np.bool_),
    "is_last": tfds.features.Scalar(np.bool_),
}
FEATURES = tfds.features.FeaturesDict({"steps": tfds.features.Dataset(STEP)})
FILES = {"a.npy": {7: 3, 8: 1}, "b.npy": {2: 4}, "c.npy": {5: 2, 6: 5}}  # {id: steps}


class Lines(dataset.FolderDataset):
    """Numbers [N, 4] of a file: the episode's id, its action, its state."""

    def __init__(self, folder, split="train", required=(), marks=(), version="1", add=0, **options):
        _, which = dataset.choose(split, {"train": 5}, str(folder))
        listed = [(os.path.join(folder, f), i) for f, ids in FILES.items() for i in ids]
        files, ids = zip(*[listed[i] for i in which], strict=True)
        opened = dataset.Opened(
            "lines", version, FEATURES, files, np.array([i + add for i in ids]), marks, hz=5.0
        )
        super().__init__(folder, opened, split, required, **options)

    def _episode(self, position):
        file = self.shard_files[dataset.file_of(self._ends, position)]
        rows = np.load(file)
        rows = rows[rows[:, 0] == self.episode_ids[position]]
        numbers = {"steps/action": rows[:, 1:2], "steps/observation/state": rows[:, 2:]}
        return numbers | dataset.boundaries(len(rows))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "lines").mkdir()
    for name, ids in FILES.items():
        first = np.repeat(list(ids), list(ids.values()))[:, None]
        np.save(tmp_path / "lines" / name, np.hstack([first, rng.normal(size=(len(first), 3))]))
    return tmp_path / "lines"


def rows_of(folder, number):
    file = next(name for name, ids in FILES.items() if number in ids)
    rows = np.load(folder / file)
    return rows[rows[:, 0] == number]


def test_by_position_and_by_file_the_same_episodes_come(folder):
    data = Lines(folder)
    assert len(data) == 5 and data.hz == 5 and data.last_step == "keep"
    assert data.episode_ids.tolist() == [7, 8, 2, 5, 6]
    assert [os.path.basename(f) for f in data.shard_files] == list(FILES)
    assert data.shard_lengths == [2, 1, 2]
    streamed = [pair for file in range(3) for pair in data.stream(file)]
    for position, (number, episode) in enumerate(streamed):
        rows = rows_of(folder, number)
        assert number == data.episode_ids[position]
        for found in (episode, data[position], data[position - 5]):
            flat = flatten(found)
            assert set(flat) == {f"steps/{n}" for n in STEP} - {"steps/observation"} | {
                "steps/observation/state"
            }
            np.testing.assert_array_equal(flat["steps/action"], rows[:, 1:2])
            np.testing.assert_array_equal(flat["steps/observation/state"], rows[:, 2:])
            at = np.arange(len(rows))
            np.testing.assert_array_equal(flat["steps/is_first"], at == 0)
            np.testing.assert_array_equal(flat["steps/is_last"], at == len(rows) - 1)
    assert [n for n, _ in data.stream(2, 1)] == [6] and not list(data.stream(2, 2))
    for wrong in (
        lambda: data[5],
        lambda: data[-6],
        lambda: data.stream(3),
        lambda: data.stream(-1),
    ):
        with pytest.raises(IndexError, match="does not exist"):
            wrong()
    with pytest.raises(IndexError, match="start is 3, expected 0 to 2"):
        data.stream(2, 3)


def test_a_split_across_files(folder):
    data = Lines(folder, "train[1,3:5]")
    assert data.episode_ids.tolist() == [8, 5, 6] and data.shard_lengths == [1, 2]
    assert [n for file in range(2) for n, _ in data.stream(file)] == [8, 5, 6]


def test_keys_are_subtrees_and_what_is_required_must_be_there(folder):
    assert set(flatten(Lines(folder, keys=["steps/observation"])[0])) == {"steps/observation/state"}
    Lines(folder, required=["steps/action"])
    for options in ({"required": ["steps/acton"]}, {"keys": ["steps/acton"]}):
        with pytest.raises(ValueError, match="steps/acton"):
            Lines(folder, **options)
    with pytest.raises(ValueError, match="last_step is 'dorp', expected one of drop, keep"):
        Lines(folder, last_step="dorp")


def test_numbers_of_episodes_fit_into_those_of_batches(folder):
    assert Lines(folder, add=(1 << 31) - 9).episode_ids.max() == (1 << 31) - 1
    for add in ((1 << 31) - 8, 1 << 70):
        with pytest.raises(ValueError, match=f"an episode of the number {add + 8}, expected at"):
            Lines(folder, add=add)


@pytest.mark.parametrize("keys", [None, ["steps/action"], ["steps/observation", "steps/is_first"]])
def test_the_last_step_is_dropped_whatever_is_read(folder, keys):
    whole, cut = Lines(folder, keys=keys), Lines(folder, keys=keys, last_step="drop")
    for position in range(len(whole)):
        kept, found = flatten(whole[position]), flatten(cut[position])
        for path, values in kept.items():
            np.testing.assert_array_equal(found[path], values[:-1])


def test_a_filler_is_a_last_step_that_is_flagged():
    steps = {"action": np.arange(3), "is_last": np.array([0, 0, 1], bool)}
    steps["observation"] = {"front": Clip("a.mp4", np.arange(3.0), 1.0)}
    cut = dataset.without_filler({"steps": steps, "about": "x"})
    assert cut["about"] == "x" and cut["steps"]["action"].tolist() == [0, 1]
    assert cut["steps"]["observation"]["front"].times.tolist() == [0, 1]
    for flags in ([1, 0, 0], [0, 0, 0], []):
        episode = {"steps": steps | {"is_last": np.array(flags, bool)}}
        assert dataset.without_filler(episode) is episode


def test_fingerprints_tell_data_apart_and_copies_not(folder, tmp_path):
    marks = [str(folder / "about.txt")]
    (folder / "about.txt").write_text("1")
    first = Lines(folder, marks=marks).fingerprint
    copied = shutil.copytree(folder, tmp_path / "elsewhere")
    there = [str(copied / "about.txt")]
    assert Lines(copied, marks=there).fingerprint == first
    changes = {"version": "2"}, {"split": "train[:4]"}, {"marks": ()}
    assert first not in {Lines(copied, **{"marks": there} | c).fingerprint for c in changes}
    for damage in (lambda: (copied / "about.txt").write_text("2"), (copied / "about.txt").unlink):
        damage()
        assert Lines(copied, marks=there).fingerprint != first
    (copied / "about.txt").write_text("1")
    assert Lines(copied, marks=there).fingerprint == first
    blob = bytearray((copied / "c.npy").read_bytes())
    blob[-1] ^= 1
    (copied / "c.npy").write_bytes(blob)
    assert Lines(copied, marks=there).fingerprint != first


def test_the_ends_of_a_large_file_and_its_size_count(folder):
    large = folder / "large.mp4"
    found = set()
    for size, at in (((300 << 20), None), ((300 << 20) + 1, None), (300 << 20, 0), (300 << 20, -1)):
        with large.open("wb") as file:
            file.truncate(size)  # holes: no room is taken
            if at is not None:
                file.seek(at, os.SEEK_END if at < 0 else os.SEEK_SET)
                file.write(b"x")
        found.add(Lines(folder, marks=[str(large)]).fingerprint)
    assert len(found) == 4


SPLITS = {
    "train": range(10),
    "train[3]": [3],
    "train[:20%]": [0, 1],
    "train[90%:]": [9],
    "train[-3:]": [7, 8, 9],
    "train[:-8]": [0, 1],
    "train[8:,3, 0:2]": [0, 1, 3, 8, 9],
    "train[3,3:5,4]": [3, 4],
    " test ": [0, 1],
    "test [1]": [1],
}


@pytest.mark.parametrize("split", SPLITS)
def test_positions_of_a_split(split):
    name, found = dataset.choose(split, {"train": 10, "test": 2, "empty": 0}, "/data/x")
    assert name == split.strip().split("[")[0].strip() and found.tolist() == list(SPLITS[split])


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("tran", "/data/x has no split 'tran', it has train, test, empty; did you mean 'train'"),
        ("train[1]+test", r"has no split 'train\[1\]\+test'"),
        ("empty", "split 'empty' of /data/x holds no episode: it has 0"),
        ("train[:1%]", "holds no episode: it has 10"),
        ("train[4:2]", "holds no episode"),
        ("train[10]", "of /data/x is .*expected a slice such as .* incompatible with 10 examples"),
        ("train[5:11]", "expected a slice such as"),
        ("train[-11:]", "expected a slice such as"),
        ("train[]", "expected a slice such as"),
        ("train[1,]", "expected a slice such as"),
        ("train[x]", "expected a slice such as"),
        ("train[²]", "expected a slice such as"),
    ],
)
def test_no_such_split(split, message):
    with pytest.raises(ValueError, match=message) as caught:
        dataset.choose(split, {"train": 10, "test": 2, "empty": 0}, "/data/x")
    assert "\n" not in str(caught.value)


def test_missing_files_are_counted():
    dataset.raise_missing([], "fetch it")
    with pytest.raises(MissingShardError, match="^a is missing; fetch it$"):
        dataset.raise_missing(["a"], "fetch it")
    with pytest.raises(MissingShardError, match=r"^a is missing \(and 2 more files\); fetch it$"):
        dataset.raise_missing(["a", "b", "c"], "fetch it")
