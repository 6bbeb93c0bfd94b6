"""LeRobot data sets against pyarrow's and PyAV's direct reading; damaged ones in one line each."""

import json
import pickle

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from ambient_jax.data import storage
from ambient_jax.data.features import flatten, leaves
from ambient_jax.data.storage.lerobot_schema import path_of
from tests.data.storage import lerobot_folders as folders
from tests.data.storage.lerobot_folders import FRONT, TASKS, WRIST

VERSIONS = ("v2.0", "v2.1", "v3.0")


def write(root, version, **options):
    if version == "v3.0":
        return folders.write_v3(root, **options)
    return folders.write_v2(root, version=version, **options)


def read_video(path, first, count):
    """Pictures of a video in order, by PyAV alone."""
    with av.open(str(path)) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    return np.stack(frames[first : first + count])


def table_of(root, version, number, listing):
    """(rows of an episode, {camera: (video, first picture)}) as the files say, by pyarrow alone."""
    if version != "v3.0":
        table = pq.read_table(root / f"data/chunk-000/episode_{number:06d}.parquet")
        folder = root / "videos/chunk-000"
        return table, {c: (folder / c / f"episode_{number:06d}.mp4", 0) for c in (FRONT, WRIST)}
    row = listing[number]
    table = pq.read_table(root / f"data/chunk-000/file-{row['data/file_index']:03d}.parquet")
    videos = {}
    for camera in (FRONT, WRIST):
        file = row[f"videos/{camera}/file_index"]
        first = round(row[f"videos/{camera}/from_timestamp"] * folders.HZ)
        videos[camera] = root / f"videos/{camera}/chunk-000/file-{file:03d}.mp4", first
    return table.filter(np.equal(table["episode_index"].to_numpy(), number)), videos


@pytest.mark.parametrize("version", VERSIONS)
def test_every_field_is_what_pyarrow_and_pyav_read(tmp_path, version):
    root = write(tmp_path, version)
    data = storage.open_dataset(root)
    listing = []
    if version == "v3.0":
        path = root / "meta/episodes/chunk-000/file-000.parquet"
        listing = pq.read_table(path).to_pylist()
    assert (data.version, data.hz, data.last_step) == (version, folders.HZ, "keep")
    assert len(data) == len(data.episode_ids) == (4 if version == "v3.0" else 3)
    seen = []
    for shard in range(len(data.shard_lengths)):
        for number, episode in data.stream(shard):
            seen.append(number)
            table, videos = table_of(root, version, number, listing)
            flat = flatten(episode)
            for name in folders.FEATURES:
                field, got = folders.FEATURES[name], flat.pop(path_of(name))
                expected = table[name].to_pylist()
                if field["dtype"] in ("string", "image"):
                    expected = [e.encode() if isinstance(e, str) else e["bytes"] for e in expected]
                    assert got.tolist() == expected
                    continue
                assert got.dtype == field["dtype"]
                # A column of single numbers has no axis of its own.
                shape = () if field["shape"] == [1] else tuple(field["shape"])
                assert got.shape == (len(table), *shape)
                np.testing.assert_array_equal(got, np.array(expected, field["dtype"]))
            for camera, (path, first) in videos.items():
                clip = flat.pop(path_of(camera))
                expected = read_video(path, first, len(table))
                assert expected.shape == (len(table), 32, 48, 3)
                np.testing.assert_array_equal(clip.decode(), expected)
                truth = [folders.picture(number, i, camera) for i in range(len(table))]
                # The wrong episode, step or camera differs by tens.
                assert np.abs(expected - np.stack(truth).astype(float)).mean() < 4
            tasks = [TASKS[i].encode() for i in table["task_index"].to_pylist()]
            assert flat.pop("steps/language_instruction").tolist() == tasks
            np.testing.assert_array_equal(flat.pop("steps/reward"), table["next.reward"].to_numpy())
            at = np.arange(len(table))
            np.testing.assert_array_equal(flat.pop("steps/is_first"), at == 0)
            np.testing.assert_array_equal(flat.pop("steps/is_last"), at == len(at) - 1)
            assert not flat
    assert seen == data.episode_ids.tolist() == list(range(len(data)))


@pytest.mark.parametrize("version", VERSIONS)
def test_features_and_stated_moments(tmp_path, version):
    data = storage.open_dataset(write(tmp_path, version))
    fields = leaves(data.features)
    assert set(fields) == set(flatten(data[0]))
    assert fields["steps/observation/grid"].shape == (2, 3)
    assert fields["steps/observation/images.front"].shape == (32, 48, 3)
    if version == "v2.0":
        assert data.stated() == {}
        return
    states = np.concatenate([data[i]["steps"]["observation"]["state"] for i in range(len(data))])
    for name, got in data.stated()["steps/observation/state"].items():
        np.testing.assert_allclose(got, getattr(states.astype(float), name)(0), rtol=1e-5)


@pytest.mark.parametrize("codec", folders.ENCODERS)
def test_codecs_of_every_kind_are_read(tmp_path, codec):
    pictures = [folders.picture(0, i, size=(64, 64)) for i in range(9)]
    folders.write_video(tmp_path / "a.mp4", pictures, codec)
    clip = storage.video.Clip(str(tmp_path / "a.mp4"), np.arange(9) / folders.HZ, 1 / folders.HZ)
    got = clip.decode()
    np.testing.assert_array_equal(got, read_video(tmp_path / "a.mp4", 0, 9))
    error = np.abs(got.astype(float) - np.stack(pictures)).mean((1, 2, 3))
    # Not the largest: in 3 of 100 runs PyAV's x265 spoils a few pictures as it writes them.
    assert np.median(error) == 0 if codec == "rgb" else np.median(error) < 3


def test_parts_of_a_clip(tmp_path):
    data = storage.open_dataset(write(tmp_path, "v3.0"))
    clip = data[3]["steps"]["observation"]["images.wrist"]  # not the first one of its file
    whole = clip.decode()
    assert len(clip) == len(whole) == 4
    np.testing.assert_array_equal(np.stack(list(clip)), whole)
    np.testing.assert_array_equal(clip[1:3].decode(), whole[1:3])
    np.testing.assert_array_equal(clip[::2].decode(), whole[::2])
    for at in (0, 2, -1):
        np.testing.assert_array_equal(clip[at], whole[at])
    assert clip[1:1].decode().shape[0] == 0
    small = clip.decode((8, 12))
    assert small.shape == (4, 8, 12, 3)
    blocks = whole.reshape(4, 8, 4, 12, 4, 3).mean((2, 4))
    assert np.abs(small - blocks).mean() < 3  # antialiased: near the mean of what it covers


def test_two_codecs_in_the_files_of_one_camera(tmp_path):
    write(tmp_path, "v3.0", codecs={FRONT: ("mpeg4", "h264")})
    data = storage.open_dataset(tmp_path)
    for number in range(len(data)):
        got = data[number]["steps"]["observation"]["images.front"].decode()
        truth = np.stack([folders.picture(number, i) for i in range(len(got))])
        assert np.abs(got - truth.astype(float)).mean() < 4


def test_splits_take_episodes(tmp_path):
    write(tmp_path, "v3.0")
    for split, ids in {
        "train": [0, 1, 2, 3],
        "train[1:3]": [1, 2],
        "train[:50%]": [0, 1],
        "train[3,0:2]": [0, 1, 3],
    }.items():
        data = storage.open_dataset(tmp_path, split)
        assert data.episode_ids.tolist() == ids
        got = [data[i]["steps"]["episode_index"][0] for i in range(len(data))]
        assert got == ids


def test_keys_copies_and_fingerprints(tmp_path):
    write(tmp_path / "a", "v3.0")
    write(tmp_path / "b", "v3.0")
    data = storage.open_dataset(tmp_path / "a", keys=["steps/action", "steps/observation/grid"])
    assert set(flatten(data[2])) == {"steps/action", "steps/observation/grid"}
    copy = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(copy[2]["steps"]["action"], data[2]["steps"]["action"])
    data = storage.open_dataset(tmp_path / "a")
    assert storage.open_dataset(tmp_path / "b").fingerprint == data.fingerprint
    assert storage.open_dataset(tmp_path / "b", "train[:2]").fingerprint != data.fingerprint
    video = tmp_path / f"b/videos/{FRONT}/chunk-000/file-000.mp4"
    folders.write_video(video, [folders.picture(9, i) for i in range(7)])
    assert storage.open_dataset(tmp_path / "b").fingerprint != data.fingerprint


def test_a_missing_video_is_an_absent_camera_and_a_missing_table_no_data_set(tmp_path):
    write(tmp_path, "v2.1")
    (tmp_path / f"videos/chunk-000/{FRONT}/episode_000001.mp4").unlink()
    (tmp_path / "data/chunk-000/episode_000002.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="episode_000002.parquet is missing"):
        storage.open_dataset(tmp_path)
    assert len(storage.open_dataset(tmp_path, "train[:2]")) == 2
    data = storage.open_dataset(tmp_path, allow_missing=True)
    cameras = data[1]["steps"]["observation"]
    assert cameras["images.front"].absent and not cameras["images.wrist"].absent
    assert len(cameras["images.wrist"].decode()) == 1
    with pytest.raises(FileNotFoundError, match="episode_000002.parquet"):
        data[2]


def test_video_begins_with_its_episode_whatever_its_first_timestamp(tmp_path):
    write(tmp_path, "v2.1")
    path = tmp_path / "data/chunk-000/episode_000000.parquet"
    table = pq.read_table(path)
    late = (np.arange(len(table)) + 1) / np.float32(folders.HZ)
    at = table.column_names.index("timestamp")
    pq.write_table(table.set_column(at, "timestamp", [late.astype(np.float32)]), path)
    clip = storage.open_dataset(tmp_path)[0]["steps"]["observation"]["images.front"]
    path = tmp_path / f"videos/chunk-000/{FRONT}/episode_000000.mp4"
    np.testing.assert_array_equal(clip.decode(), read_video(path, 0, len(table)))


def recorded(folder):
    """(data set, tables in order) of a recorded set of v2."""
    tables = sorted(folder.glob("data/*/*.parquet"))
    assert tables
    return storage.open_dataset(folder), tables


@pytest.mark.parametrize("name", ["lerobot_v21_g1", "lerobot_v21_gr00t/robot_sim.PickNPlace"])
def test_recorded_tables_field_by_field(recorded_data, name):
    data, tables = recorded(recorded_data / name)
    info = json.loads((recorded_data / name / "meta/info.json").read_text())
    assert len(data) == len(tables) == info["total_episodes"]
    steps = 0
    for position, path in enumerate(tables):
        table, flat = pq.read_table(path), flatten(data[position])
        steps += len(table)
        columns = [n for n in table.column_names if n in info["features"]]
        assert {"action", "observation.state"} <= set(columns)
        for column in columns:
            expected = table[column].to_numpy()
            expected = np.stack(expected) if expected.dtype == object else expected
            got = flat[path_of(column)]
            assert got.dtype == info["features"][column]["dtype"]
            np.testing.assert_array_equal(got, expected.reshape(got.shape))
    assert steps == info["total_frames"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count"), [("lerobot_v21_g1", 5), ("lerobot_v21_gr00t/robot_sim.PickNPlace", 5)]
)
def test_recorded_videos_picture_by_picture(recorded_data, name, count):
    data, _ = recorded(recorded_data / name)
    compared = 0
    for position in range(len(data)):
        for clip in data[position]["steps"]["observation"].values():
            if not isinstance(clip, storage.video.Clip) or clip.absent:
                continue
            compared += 1
            with av.open(clip.path) as container:
                frames = container.decode(video=0)
                for got, frame in zip(clip, frames, strict=False):
                    np.testing.assert_array_equal(got, frame.to_ndarray(format="rgb24"))
    assert compared == count
