"""robomimic's HDF5 files, written by h5py as its own scripts lay them out."""

import json
import pickle
import shutil
import threading

import h5py
import numpy as np
import pytest

from ambient_jax.data import storage
from ambient_jax.data.features import flatten
from tests.data.storage.written import DEMOS, demo_arrays, write_robomimic


@pytest.fixture
def file(tmp_path):
    return write_robomimic(tmp_path / "lift.hdf5")


def test_every_value_is_what_h5py_reads(file):
    data = storage.open_dataset(file)
    assert (data.name, data.hz, data.episode_ids.tolist()) == ("lift", 20.0, list(DEMOS))
    assert data.shard_lengths == [5] and len(data) == 5
    names = {"actions": "action", "rewards": "reward"}
    with h5py.File(file) as stored:
        for number, episode in zip(DEMOS, data, strict=True):
            flat = flatten(episode["steps"])
            assert flat.pop("is_first").tolist() == [True] + [False] * (DEMOS[number] - 1)
            assert flat.pop("is_last").tolist() == [False] * (DEMOS[number] - 1) + [True]
            demo = stored[f"data/demo_{number}"]
            for name in demo_arrays(0, 1):
                values = flat.pop(
                    names.get(
                        name,
                        name.replace("obs/", "observation/", 1)
                        if name.startswith("obs/")
                        else name,
                    )
                )
                np.testing.assert_array_equal(values, demo[name][()])
                assert values.dtype == demo[name].dtype
            assert not flat


def test_features(file):
    steps = storage.open_dataset(file).features["steps"].feature
    assert steps["observation"]["agentview_image"].shape == (5, 6, 3)
    assert steps["observation"]["object"].np_dtype == np.float32
    assert steps["action"].shape == (7,) and steps["reward"].shape == ()
    assert set(steps["next_obs"]) == {"robot0_eef_pos", "object", "agentview_image"}
    assert "language_instruction" not in steps


def test_a_folder_with_one_file(file):
    data = storage.open_dataset(file.parent)
    assert len(data) == 5 and data.name == "lift"
    shutil.copy(file, file.parent / "lift2.hdf5")
    with pytest.raises(ValueError, match=r"has 2 HDF5 files \(lift.hdf5, lift2.hdf5\), expected"):
        storage.open_dataset(file.parent)


def test_subsets_and_keys(file):
    data = storage.open_dataset(file, "train[1,3:5]", keys=["steps/observation/object"])
    assert data.episode_ids.tolist() == [1, 10, 11]
    assert set(flatten(data[0])) == {"steps/observation/object"}
    np.testing.assert_array_equal(
        data[1]["steps"]["observation"]["object"], demo_arrays(10, 5)["obs/object"]
    )
    assert [i for i, _ in data.stream(0, 2)] == [11]
    with pytest.raises(ValueError, match="no feature 'steps/observation/objects'; did you mean"):
        storage.open_dataset(file, required=["steps/observation/objects"])


def test_filter_keys_are_splits(tmp_path):
    mask = {"train": ["demo_11", "demo_0", "demo_2"], "valid": ["demo_10", "demo_1"]}
    path = write_robomimic(tmp_path / "x.hdf5", mask=mask)
    ids = {n: storage.open_dataset(path, n).episode_ids.tolist() for n in ("train", "valid")}
    assert ids == {"train": [0, 2, 11], "valid": [1, 10]}
    assert storage.open_dataset(path, "train[1:]").episode_ids.tolist() == [2, 11]
    path = write_robomimic(tmp_path / "y.hdf5", mask={"20_percent": ["demo_2"]})
    assert storage.open_dataset(path).episode_ids.tolist() == list(DEMOS)
    assert storage.open_dataset(path, "20_percent").episode_ids.tolist() == [2]
    with pytest.raises(ValueError, match="has no split 'valid', it has train, 20_percent"):
        storage.open_dataset(path, "valid")


def test_language_of_robocasa_and_libero(tmp_path):
    def robocasa(file):
        for number in DEMOS:
            meta = {"lang": f"pick up object {number}"}
            file[f"data/demo_{number}"].attrs["ep_meta"] = json.dumps(meta)

    data = storage.open_dataset(write_robomimic(tmp_path / "x.hdf5", change=robocasa))
    assert data[3]["steps"]["language_instruction"].tolist() == [b"pick up object 10"] * 5

    def libero(file):
        problem = {"problem_name": "x", "language_instruction": "open the drawer"}
        file["data"].attrs["problem_info"] = json.dumps(problem)

    data = storage.open_dataset(write_robomimic(tmp_path / "y.hdf5", env_args=None, change=libero))
    assert data.hz is None
    assert data[2]["steps"]["language_instruction"].tolist() == [b"open the drawer"] * 3
    assert (
        "language_instruction"
        not in storage.open_dataset(tmp_path / "y.hdf5", keys=["steps/action"])[2]["steps"]
    )


def test_what_has_no_row_a_step_is_left_out(tmp_path):
    def mimicgen(file):
        for number, length in DEMOS.items():
            demo = file[f"data/demo_{number}"]
            demo["src_demo_inds"] = np.arange(2)
            demo["datagen_info/eef_pose"] = np.zeros((length, 4, 4))
            demo["datagen_info/source"] = "x"

    data = storage.open_dataset(write_robomimic(tmp_path / "x.hdf5", change=mimicgen))
    steps = data[1]["steps"]
    assert steps["datagen_info"]["eef_pose"].shape == (6, 4, 4)
    assert "src_demo_inds" not in steps and set(steps["datagen_info"]) == {"eef_pose"}


def test_texts_of_steps(tmp_path):
    def change(file):
        for number, length in DEMOS.items():
            demo = file[f"data/demo_{number}"]
            demo["skill"] = [f"skill {t}" for t in range(length)]
            demo["phase"] = np.array([f"p{t}" for t in range(length)], "S4")

    steps = storage.open_dataset(write_robomimic(tmp_path / "x.hdf5", change=change))[2]["steps"]
    assert steps["skill"].tolist() == [b"skill 0", b"skill 1", b"skill 2"]
    assert steps["phase"].tolist() == [b"p0", b"p1", b"p2"]


def test_copies_and_threads(file):
    data = storage.open_dataset(file)
    copy = pickle.loads(pickle.dumps(data))
    expected = [episode["steps"]["observation"]["agentview_image"] for episode in data]
    found = {}

    def read(k):
        found[k] = [e["steps"]["observation"]["agentview_image"] for e in copy]

    threads = [threading.Thread(target=read, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for images in found.values():
        for one, two in zip(images, expected, strict=True):
            np.testing.assert_array_equal(one, two)


def test_the_fingerprint_is_that_of_the_values(file, tmp_path):
    mark = storage.open_dataset(file).fingerprint
    (tmp_path / "other").mkdir()
    copy = shutil.copy(file, tmp_path / "other/renamed.hdf5")
    assert storage.open_dataset(copy).fingerprint == mark
    marks = {mark, storage.open_dataset(file, "train[:4]").fingerprint}
    for name in demo_arrays(0, 1):
        path = shutil.copy(file, tmp_path / "other/changed.hdf5")
        with h5py.File(path, "r+") as changed:
            array = changed["data/demo_10"][name]
            values = array[()]
            values.flat[-1] = not values.flat[-1] if values.dtype == bool else values.flat[-1] + 1
            array[...] = values
        marks.add(storage.open_dataset(path).fingerprint)
    assert len(marks) == 2 + len(demo_arrays(0, 1))


def test_nan_is_left_to_the_statistics(tmp_path):
    def change(file):
        file["data/demo_1/actions"][2, 3] = np.nan

    data = storage.open_dataset(write_robomimic(tmp_path / "x.hdf5", change=change))
    assert np.argwhere(np.isnan(data[1]["steps"]["action"])).tolist() == [[2, 3]]


def without(name):
    def change(file):
        del file[name]

    return change


def replaced(name, values):
    def change(file):
        del file[name]
        file[name] = values

    return change


def attribute(node, name, value):
    def change(file):
        file[node].attrs[name] = value

    return change


# How the file is written, and what is said; demo_1 is read, the second one.
BAD = {
    "no data": (dict(change=without("data")), "has no group 'data', it has nothing"),
    "data is an array": (dict(change=replaced("data", [1.0])), "has no group 'data', it has data"),
    "no demo": (dict(lengths={}), "has no demonstration"),
    "another name": (
        dict(change=lambda f: f.move("data/demo_2", "data/episode_2")),
        "has data/episode_2, expected demo_<number>",
    ),
    "a number twice": (
        dict(change=lambda f: f.copy("data/demo_1", "data/demo_01")),
        "has data/demo_1, expected demo_<number>, each number once",
    ),
    "no actions": (dict(change=without("data/demo_1/actions")), "demo_1 has no actions"),
    "flat actions": (dict(change=replaced("data/demo_1/actions", np.zeros(6))), "no actions .T, D"),
    "no actions at all": (
        dict(lengths={0: 3}, change=without("data/demo_0/actions")),
        "has no demo with actions",
    ),
    "an empty demo": (
        dict(lengths=DEMOS | {1: 0}),
        "demo_1 has 0 actions and num_samples .*0.*, expected the same, at least 1",
    ),
    "actions too short": (
        dict(change=replaced("data/demo_1/actions", np.zeros((5, 7)))),
        "demo_1 has 5 actions and num_samples .*6",
    ),
    "obs too short": (
        dict(change=replaced("data/demo_1/obs/object", np.zeros((5, 10), "f4"))),
        "demo_1: obs/object has 5 steps, actions has 6",
    ),
    "obs is missing": (dict(change=without("data/demo_1/obs/object")), "demo_1 has no obs/object"),
    "obs is a number": (
        dict(change=replaced("data/demo_1/obs/object", 3.0)),
        "demo_1: obs/object has no steps, actions has 6",
    ),
    "obs of another width": (
        dict(change=replaced("data/demo_1/obs/object", np.zeros((6, 9), "f4"))),
        r"obs/object has shape \[9\] a step, expected \[10\]",
    ),
    "obs of another kind": (
        dict(change=replaced("data/demo_1/obs/object", np.zeros((6, 10), int))),
        "obs/object is int64, expected float32",
    ),
    "a text in place of numbers": (
        dict(change=replaced("data/demo_1/rewards", ["good"] * 6)),
        "rewards is object, expected float64",
    ),
    "the mask names another demo": (
        dict(mask={"train": ["demo_0", "demo_5"]}),
        "mask/train names 'demo_5', which is none of the 5 demos",
    ),
    "an empty mask": (dict(mask={"train": []}), "split 'train' of .* holds no episode"),
    "env_args is no JSON": (dict(env_args="{'env_name': 1}"), "env_args is no JSON"),
    "an impossible rate": (
        dict(env_args={"env_kwargs": {"control_freq": -20}}),
        "env_args has control_freq -20, expected a positive rate",
    ),
    "ep_meta is no JSON": (
        dict(change=attribute("data/demo_0", "ep_meta", "{lang")),
        "ep_meta is no JSON",
    ),
    "num_samples is a text": (
        dict(change=attribute("data/demo_1", "num_samples", "six")),
        "has 6 actions and num_samples 'six'",
    ),
    "actions in another file": (
        dict(change=replaced("data/demo_1/actions", h5py.ExternalLink("other.hdf5", "a"))),
        "data/demo_1|demo_1: actions lies in another file",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name, tmp_path):
    options, match = BAD[name]
    path = write_robomimic(tmp_path / "x.hdf5", **options)
    with h5py.File(tmp_path / "other.hdf5", "w") as other:
        other["a"] = np.zeros((6, 7))
    with pytest.raises(ValueError, match=match) as caught:
        storage.open_dataset(path)[1]
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_the_other_episodes_of_a_bad_file_are_read(tmp_path):
    path = write_robomimic(tmp_path / "x.hdf5", change=without("data/demo_0/actions"))
    data = storage.open_dataset(path, required=["steps/action"])
    assert data[1]["steps"]["action"].shape == (6, 7)
    with pytest.raises(ValueError, match="demo_0 has no actions"):
        data[0]
