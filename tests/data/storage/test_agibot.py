"""AgiBot World as it is published, written by h5py and PyAV; and its form in LeRobot."""

import json
import pickle
import shutil

import av
import h5py
import numpy as np
import pytest

from ambient_jax.data import storage
from ambient_jax.data.features import flatten
from ambient_jax.data.metadata import MissingShardError
from tests.data.storage.written import (
    CAMERAS,
    EPISODES,
    SHAPES,
    agibot_arrays,
    agibot_path,
    h5_of,
    pictures,
    video_of,
    write_agibot,
    write_agibot_lerobot,
    write_h5,
    write_video,
)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return write_agibot(tmp_path_factory.mktemp("published") / "agibot")


@pytest.fixture
def root(published, tmp_path):
    """A copy to damage."""
    return shutil.copytree(published, tmp_path / "copy")


def test_every_value_is_what_h5py_and_pyav_read(published):
    data = storage.open_dataset(published, "task_327")
    assert (data.name, data.hz, data.episode_ids.tolist()) == ("agibot", 30.0, [648642, 648649])
    assert data.shard_lengths == [1, 1]
    for episode_id, episode in zip(EPISODES[327], data, strict=True):
        flat, length = flatten(episode), EPISODES[327][episode_id]
        with h5py.File(h5_of(published, 327, episode_id)) as file:
            for name in SHAPES:
                values = flat.pop(agibot_path(name))
                np.testing.assert_array_equal(values, file[name][()])
                assert values.dtype == np.float64
            stamps = file["timestamp"][()]
        np.testing.assert_array_equal(flat.pop("steps/timestamp"), (stamps - stamps[0]) / 1e9)
        for camera in CAMERAS:
            clip = flat.pop(f"steps/observation/images.{camera}")
            with av.open(str(video_of(published, 327, episode_id, camera))) as container:
                frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
            assert len(frames) == len(clip) == length
            np.testing.assert_array_equal(clip.decode(), frames)
            np.testing.assert_array_equal(clip[2:5].decode(), frames[2:5])
            wanted = pictures(episode_id, camera, length)
            assert np.abs(clip.decode().astype(int) - wanted).mean() < 5
        half = length // 2
        texts = [b"Pick up the cup"] * half + [b"Pour"] * (length - 2 - half) + [b"Task 327"] * 2
        assert flat.pop("steps/language_instruction").tolist() == texts
        assert flat.pop("steps/task_name").tolist() == [b"Task 327"] * length
        assert flat.pop("steps/is_first").sum() == flat.pop("steps/is_last").sum() == 1
        assert not flat


def test_splits_of_tasks_and_all(published):
    data = storage.open_dataset(published, keys=["steps/actions.joint.position"])
    assert data.episode_ids.tolist() == [648642, 648649, 700001]
    assert data[2]["steps"]["actions.joint.position"].shape == (7, 14)
    assert storage.open_dataset(published, "train[2]").episode_ids.tolist() == [700001]
    assert storage.open_dataset(published, "task_327[1:]").episode_ids.tolist() == [648649]
    with pytest.raises(ValueError, match="has no split 'task_3', it has train, task_327, task_475"):
        storage.open_dataset(published, "task_3")


def test_widths_that_differ_between_tasks(published):
    steps = storage.open_dataset(published).features["steps"].feature
    assert "actions.effector.position" not in steps and "actions.joint.position" in steps
    hands = storage.open_dataset(published, "task_475").features["steps"].feature
    assert hands["actions.effector.position"].shape == (12,)
    for option in ("required", "keys"):
        with pytest.raises(ValueError, match=r"\[2\] and \[12\] \(task 475\) .* take a source for"):
            storage.open_dataset(published, **{option: ["steps/actions.effector.position"]})


def test_commands_of_some_steps_hold_the_state_between(root):
    arrays = agibot_arrays(327, 648642, 12)
    sent = np.array([1, 2, 5, 11])
    arrays["action/joint/position"] = arrays["action/joint/position"][sent]
    arrays["action/joint/index"] = sent
    arrays["action/end/orientation"] = arrays["action/end/orientation"][sent]
    arrays["action/end/index"] = np.zeros(0, int)  # lost: that of the joints stands
    arrays["action/robot/velocity"] = arrays["action/robot/velocity"][:2]
    arrays["action/robot/index"] = np.array([3, 4])
    write_h5(h5_of(root, 327, 648642), arrays)
    steps = storage.open_dataset(root, "task_327")[0]["steps"]
    for name in ("joint.position", "end.orientation"):
        expected = steps["observation"][f"states.{name}"].copy()
        expected[sent] = arrays[f"action/{name.replace('.', '/')}"]
        np.testing.assert_array_equal(steps[f"actions.{name}"], expected)
    velocity = np.zeros((12, 2))
    velocity[3:5] = arrays["action/robot/velocity"]
    np.testing.assert_array_equal(steps["actions.robot.velocity"], velocity)


def test_commands_without_a_row(root):
    arrays = agibot_arrays(327, 648649, 9)
    for name in ("action/robot/velocity", "action/head/position"):
        arrays[name] = np.zeros(0)
    write_h5(h5_of(root, 327, 648649), arrays)
    data = storage.open_dataset(root, "task_327")
    assert "actions.head.position" in data[0]["steps"]
    assert "actions.head.position" not in data[1]["steps"]
    np.testing.assert_array_equal(data[1]["steps"]["actions.robot.velocity"], np.zeros((9, 2)))


def test_pickling_and_missing_files(root):
    data = storage.open_dataset(root)
    copy = pickle.loads(pickle.dumps(data))
    key = "steps/observation/states.joint.position"
    np.testing.assert_array_equal(flatten(copy[1])[key], flatten(data[1])[key])
    video_of(root, 327, 648649, "head").unlink()
    clip = storage.open_dataset(root)[1]["steps"]["observation"]["images.head"]
    assert clip.absent == "the file is missing" and len(clip) == 9
    h5_of(root, 475, 700001).unlink()
    with pytest.raises(MissingShardError, match=r"700001/proprio_stats.h5 is missing; fetch it"):
        storage.open_dataset(root)
    assert len(storage.open_dataset(root, "task_327")) == 2
    data = storage.open_dataset(root, allow_missing=True)
    assert len(data) == 3
    with pytest.raises(FileNotFoundError, match="700001/proprio_stats.h5 does not exist"):
        data[2]


def test_the_fingerprint_is_that_of_the_values(root, published):
    mark = storage.open_dataset(published).fingerprint
    assert storage.open_dataset(root).fingerprint == mark
    marks = {mark, storage.open_dataset(root, "task_327").fingerprint}
    with h5py.File(h5_of(root, 475, 700001), "r+") as file:
        file["action/joint/position"][3, 2] += 1
    marks.add(storage.open_dataset(root).fingerprint)
    write_video(video_of(root, 327, 648649, "head"), pictures(5, "head", 9))
    marks.add(storage.open_dataset(root).fingerprint)
    file = root / "task_info/task_327.json"
    file.write_text(file.read_text().replace("Pour", "Fill"))
    marks.add(storage.open_dataset(root).fingerprint)
    assert len(marks) == 5


def changed(**arrays):
    """Writes the first episode with other arrays; names with __ for /."""

    def change(root):
        new = {name.replace("__", "/"): values for name, values in arrays.items()}
        everything = agibot_arrays(327, 648642, 12) | new
        kept = {n: v for n, v in everything.items() if v is not None}
        write_h5(h5_of(root, 327, 648642), kept)

    return change


def cut(*parts, share=0.5):
    def change(root):
        path = root.joinpath(*parts)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])

    return change


def texts(change_entry):
    def change(root):
        path = root / "task_info/task_327.json"
        entries = json.loads(path.read_text())
        path.write_text(json.dumps(change_entry(entries)))

    return change


def first(**fields):
    return texts(lambda entries: [entries[0], entries[1] | fields])


def short_video(root):
    write_video(video_of(root, 327, 648642, "head"), pictures(1, "head", 10))


EPISODE = ("proprio_stats", "327", "648642", "proprio_stats.h5")
VIDEO = ("observations", "327", "648642", "videos", "head_color.mp4")
BAD = {
    "no task_info": (lambda root: shutil.rmtree(root / "task_info"), "has no task_<number>.json"),
    "task_info is cut": (cut("task_info", "task_327.json"), "task_327.json is no JSON"),
    "task_info is no list": (texts(lambda entries: entries[0]), "is no list of episodes"),
    "no number": (first(episode_id="one"), "entry 1: episode_id is 'one'"),
    "an episode twice": (first(episode_id=648649), "lists episode 648649, which was listed"),
    "a task's name is a number": (first(task_name=3), "task_name 3, expected a number and a text"),
    "a segment without its end": (
        first(label_info={"action_config": [{"start_frame": 3}]}),
        "entry 1 .episode 648642. has the segment .*start_frame.: 3.*, expected whole",
    ),
    "segments are texts": (
        first(label_info={"action_config": ["Pour"]}),
        "has the segment 'Pour', expected",
    ),
    "HDF5 is cut": (cut(*EPISODE), "is no HDF5 file, cut or damaged"),
    "no action": (
        changed(**{n.replace("/", "__"): None for n in agibot_arrays(1, 1, 1) if n[0] == "a"}),
        "has no group 'action', expected",
    ),
    "more commands than steps": (
        changed(action__joint__position=np.zeros((14, 14))),
        "action/joint/position has 14 rows, the episode has 12 steps",
    ),
    "states too short": (
        changed(state__joint__position=np.zeros((11, 14))),
        "state/joint/position has 11 rows, the episode has 12 steps",
    ),
    "fewer commands, whole index": (
        changed(action__joint__position=np.zeros((11, 14))),
        "its index does not say which .12 entries, expected 11 rising steps below 12",
    ),
    "index out of the episode": (
        changed(action__joint__position=np.zeros((2, 14)), action__joint__index=[3, 12]),
        "its index does not say which .2 entries, expected 2 rising steps below 12",
    ),
    "no state to hold": (
        changed(
            action__head__position=np.zeros((2, 2)),
            action__head__index=[3, 4],
            state__head__position=np.zeros(0),
        ),
        "action/head/position has 2 rows for 12 steps, and no state of that shape to hold",
    ),
    "another width": (
        changed(state__effector__position=np.zeros((12, 12))),
        r"648649.*: state/effector/position has shape \[2\] a step, expected \[12\]",
    ),
    "time stands": (changed(timestamp=np.zeros(12, int)), "timestamp does not rise after step 0"),
    "another rate": (
        changed(timestamp=np.arange(12) * 100_000_000),
        "timestamps are 0.1 s apart, expected 0.0333",
    ),
    "time in seconds": (changed(timestamp=np.arange(12) / 30), "expected 0.03333 s, .* unit is ns"),
    "no step": (changed(timestamp=np.zeros(0, int)), "expected ns of each step"),
    "neither time nor joints": (
        changed(timestamp=None, state__joint__position=np.zeros(0)),
        "has neither timestamp nor state/joint/position",
    ),
    "a video shorter than its episode": (short_video, "has no picture at 0.333 s"),
    "a video that is cut": (
        cut(*VIDEO),
        "head_color.mp4 (is no|has no video|cannot be decoded|has no picture)",
    ),
    "a video that is a text": (
        lambda root: root.joinpath(*VIDEO).write_text("text"),
        "head_color.mp4 is no video",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name, root):
    change, match = BAD[name]
    change(root)
    with pytest.raises((ValueError, FileNotFoundError), match=match) as caught:
        for episode in storage.open_dataset(root, "task_327"):
            for value in flatten(episode).values():
                if hasattr(value, "decode"):
                    value.decode()
    assert "\n" not in str(caught.value) and str(root) in str(caught.value)


def test_nan_is_left_to_the_statistics(root):
    values = np.full((12, 14), np.nan)
    changed(action__joint__position=values)(root)
    steps = storage.open_dataset(root, "task_327")[0]["steps"]
    assert np.isnan(steps["actions.joint.position"]).all()


def test_its_form_in_lerobot_has_the_same_names_and_values(published, tmp_path):
    write_agibot_lerobot(tmp_path / "lerobot", published)
    converted = storage.open_dataset(tmp_path / "lerobot")
    data = storage.open_dataset(published, "task_327")
    assert converted.hz == data.hz and len(converted) == 2
    for one, two in zip(converted, data, strict=True):
        one, two = flatten(one), flatten(two)
        shared = {agibot_path(n) for n in SHAPES} | {
            f"steps/observation/images.{c}" for c in CAMERAS
        }
        assert shared <= one.keys() and shared <= two.keys()
        for key in shared:
            if "images" in key:
                np.testing.assert_array_equal(one[key].decode(), two[key].decode())
            else:
                np.testing.assert_array_equal(one[key], two[key].astype("f4"))
        np.testing.assert_allclose(one["steps/timestamp"], two["steps/timestamp"], atol=1e-6)
        assert set(one["steps/language_instruction"]) == {b"Task 327 | A table."}
