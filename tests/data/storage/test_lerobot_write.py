"""LeRobot v3.0 as it is written: read back by pyarrow, PyAV and the library's own reader."""

import json

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow_datasets as tfds

from ambient_jax.data import storage
from ambient_jax.data.storage import lerobot_write
from ambient_jax.data.storage.lerobot_write import write_lerobot
from tests.data.storage import lerobot_folders as folders
from tests.data.storage.compared import LEROBOTS_OWN, assert_same, nested, write_nested, write_rlds
from tests.data.storage.lerobot_folders import FRONT, STORED, TASKS, WRIST

LISTED = "meta/episodes/chunk-000/file-000.parquet"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return storage.open_dataset(folders.write_v2(tmp_path_factory.mktemp("v2")))


@pytest.fixture(scope="module")
def written(source, tmp_path_factory):
    return write_lerobot(tmp_path_factory.mktemp("v3") / "new", source, videos="lossless")


def test_lossless_is_the_same_bit_for_bit(source, written):
    again = storage.open_dataset(written)
    assert (again.version, again.hz) == ("v3.0", folders.HZ)
    assert_same(source, again)


def test_tables_as_pyarrow_reads_them(written):
    info = json.loads((written / "meta/info.json").read_text())
    counts = {"total_episodes": 3, "total_frames": 13, "total_tasks": 3, "fps": folders.HZ}
    assert counts.items() <= info.items()
    assert info["splits"] == {"train": "0:3"} and info["robot_type"] == "toy"
    given = {n: (f["dtype"], f["shape"]) for n, f in info["features"].items()}
    expected = {n: (f["dtype"], f["shape"]) for n, f in folders.FEATURES.items()}
    cameras = dict.fromkeys((FRONT, WRIST), ("video", [32, 48, 3]))
    assert given == expected | cameras | {STORED: ("video", [16, 24, 3])}
    assert info["features"]["observation.state"]["names"] == {"motors": ["a", "b", "c"]}
    table = pq.read_table(written / "data/chunk-000/file-000.parquet")
    parts = [folders.rows(i, n, first) for i, n, first in ((0, 7, 0), (1, 1, 7), (2, 5, 8))]
    for name in set(folders.FEATURES) - {STORED}:
        got, truth = table[name].to_pylist(), [row for part in parts for row in part[name]]
        assert got == truth, name
    tasks = pq.read_table(written / "meta/tasks.parquet").to_pylist()
    assert tasks == [{"task_index": i, "task": t} for i, t in enumerate(TASKS)]


def test_the_list_says_where_everything_is(written):
    rows = pq.read_table(written / LISTED).to_pylist()
    assert [r["length"] for r in rows] == [7, 1, 5]
    assert [r["tasks"] for r in rows] == [TASKS[:2], TASKS[2:], [TASKS[2], TASKS[0]]]
    assert [(r["dataset_from_index"], r["dataset_to_index"]) for r in rows] == [
        *((0, 7), (7, 8), (8, 13))
    ]
    for camera in (FRONT, WRIST):
        times = [
            (r[f"videos/{camera}/from_timestamp"], r[f"videos/{camera}/to_timestamp"]) for r in rows
        ]
        np.testing.assert_allclose(times, [(0, 0.7), (0.7, 0.8), (0.8, 1.3)])
        with av.open(str(written / f"videos/{camera}/chunk-000/file-000.mp4")) as container:
            frames = list(container.decode(video=0))
        assert [round(f.time * folders.HZ, 6) for f in frames] == list(range(13))
        # An episode's first picture is found without any other.
        assert all(frames[i].key_frame for i in (0, 7, 8))


def test_statistics(source, written):
    rows = pq.read_table(written / LISTED).to_pylist()
    stats = json.loads((written / "meta/stats.json").read_text())
    actions = [source[i]["steps"]["action"] for i in range(3)]
    for name in ("min", "max", "mean", "std"):
        for row, action in zip(rows, actions, strict=True):
            expected = getattr(action, name)(0)
            np.testing.assert_allclose(row[f"stats/action/{name}"], expected, atol=1e-12)
        expected = getattr(np.concatenate(actions), name)(0)
        np.testing.assert_allclose(stats["action"][name], expected, atol=1e-12)
    assert stats["action"]["count"] == [13]
    pictures = [source[i]["steps"]["observation"]["images.front"].decode() for i in range(3)]
    # All pictures of episodes of up to 8 steps are looked at.
    expected = np.concatenate(pictures).reshape(-1, 3).mean(0) / 255
    mean = np.array(stats[FRONT]["mean"])
    assert mean.shape == (3, 1, 1)
    np.testing.assert_allclose(mean.ravel(), expected, atol=1e-9)
    again = storage.open_dataset(written).stated()
    np.testing.assert_allclose(again["steps/action"]["std"], stats["action"]["std"])


@pytest.mark.parametrize("videos", ["h264", "av1"])
def test_lossy_videos_keep_30_decibels(tmp_path, source, videos):
    new = storage.open_dataset(write_lerobot(tmp_path / "new", source, videos=videos))
    assert_same(source, new, pictures_differ_by=255**2 / 10**3)
    info = json.loads((tmp_path / "new/meta/info.json").read_text())
    with av.open(str(tmp_path / f"new/videos/{FRONT}/chunk-000/file-000.mp4")) as container:
        stream = container.streams.video[0]
        stated = info["features"][FRONT]["info"]
        assert stream.average_rate == folders.HZ == stated["video.fps"]
        assert (stream.codec.canonical_name, stream.pix_fmt) == (videos, stated["video.pix_fmt"])


def test_pictures_in_the_tables_stay_the_bytes_that_they_were(tmp_path, source):
    path = write_lerobot(tmp_path / "new", source, videos="")
    new = storage.open_dataset(path)
    assert_same(source, new)
    assert not (path / "videos").exists()
    one, other = (d[0]["steps"]["observation"]["images.stored"] for d in (source, new))
    assert one.tolist() == other.tolist() and isinstance(one[0], bytes)
    assert len(new[0]["steps"]["observation"]["images.front"]) == 7


def test_small_files_hold_an_episode_each(tmp_path, source):
    path = write_lerobot(
        tmp_path / "new", source, videos="lossless", data_megabytes=1e-4, video_megabytes=1e-4
    )
    assert_same(source, storage.open_dataset(path))
    names = sorted(p.name for p in (path / "data/chunk-000").iterdir())
    assert names == [f"file-{i:03d}.parquet" for i in range(3)]
    # The encoder holds back a few pictures before their bytes are known.
    assert len(list((path / f"videos/{FRONT}/chunk-000").iterdir())) >= 2


@pytest.mark.parametrize("size", [(33, 47), (32, 47)])
def test_odd_sizes(tmp_path, size):
    episode = {
        "steps": {
            "observation": {
                "image": np.stack([folders.picture(0, i, size=size) for i in range(3)])
            },
            "action": np.zeros((3, 2), np.float32),
        }
    }
    write_rlds(tmp_path, [episode], {"image": tfds.features.Image(shape=(*size, 3))})
    data = storage.open_dataset(tmp_path / "set", last_step="keep")
    new = storage.open_dataset(write_lerobot(tmp_path / "new", data, hz=5))
    assert_same(data, new, pictures_differ_by=20, but=LEROBOTS_OWN)
    with pytest.raises(ValueError, match=r"episode 0: pictures are .*av1 needs even sizes"):
        write_lerobot(tmp_path / "other", data, hz=5, videos="av1")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "set"]


def test_a_whole_set_is_needed(tmp_path, source):
    data = write_nested(tmp_path)
    with pytest.raises(ValueError, match="set/1.0.0 does not say its rate: give hz="):
        write_lerobot(tmp_path / "new", data)
    with pytest.raises(ValueError, match="hz is -1"):
        write_lerobot(tmp_path / "new", data, hz=-1)
    with pytest.raises(ValueError, match="videos is 'h265', expected one of"):
        write_lerobot(tmp_path / "new", source, videos="h265")
    with pytest.raises(ValueError, match="'s3://b/new', expected a local path"):
        write_lerobot("s3://b/new", source)
    (tmp_path / "new").mkdir()
    with pytest.raises(FileExistsError, match="new exists: choose another folder"):
        write_lerobot(tmp_path / "new", source)
    write_lerobot(tmp_path / "new", source, overwrite=True, videos="")
    assert len(storage.open_dataset(tmp_path / "new")) == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "set"]


def test_damaged_episodes_are_named_and_nothing_stays(tmp_path):
    folders.write_v2(tmp_path / "old")
    (tmp_path / f"old/videos/chunk-000/{FRONT}/episode_000002.mp4").unlink()
    data = storage.open_dataset(tmp_path / "old")
    with pytest.raises(
        ValueError, match="old, episode 2: .*episode_000002.mp4: the file is missing"
    ):
        write_lerobot(tmp_path / "new", data)
    wide = [folders.picture(2, i, size=(32, 64)) for i in range(5)]
    folders.write_video(tmp_path / f"old/videos/chunk-000/{FRONT}/episode_000002.mp4", wide)
    data = storage.open_dataset(tmp_path / "old")
    for videos, message in (
        ("h264", r"\[32, 64, 3\], expected uint8 \[32, 48, 3\]"),
        ("", "32x64"),
    ):
        with pytest.raises(ValueError, match=f"old, episode 2: .*{message}"):
            write_lerobot(tmp_path / "new", data, videos=videos)
    assert [p.name for p in tmp_path.iterdir()] == ["old"]
    rlds = write_nested(tmp_path, [nested(0, 3), nested(1, 0)])
    with pytest.raises(ValueError, match="episode 1: it has no step"):
        write_lerobot(tmp_path / "new", rlds, hz=5)
    bad = nested(0, 2)
    bad["steps"]["language_instruction"] = [b"\xff", b"ok"]
    (tmp_path / "bad").mkdir()
    rlds = write_nested(tmp_path / "bad", [bad])
    with pytest.raises(ValueError, match="episode 0: steps/language_instruction is no UTF-8"):
        write_lerobot(tmp_path / "new", rlds, hz=5)


def test_timestamps_that_begin_late_are_set_anew(tmp_path, caplog):
    folders.write_v2(tmp_path / "old", lengths=(4, 3))
    path = tmp_path / "old/data/chunk-000/episode_000001.parquet"
    table = pq.read_table(path)
    late = (np.arange(3) / 10 + 0.1).astype(np.float32)
    at = table.column_names.index("timestamp")
    pq.write_table(table.set_column(at, "timestamp", [late]), path)
    data = storage.open_dataset(tmp_path / "old")
    with caplog.at_level("WARNING", logger="absl"):
        new = storage.open_dataset(write_lerobot(tmp_path / "new", data, videos="lossless"))
    assert "timestamp of 1 of 2 episodes" in caplog.text
    np.testing.assert_allclose(new[1]["steps"]["timestamp"], [0, 0.1, 0.2], atol=1e-6)
    assert_same(data, new, but={"steps/timestamp"})
    assert STORED in new.meta.fields


def test_the_list_is_written_in_parts(tmp_path, source, monkeypatch):
    monkeypatch.setattr(lerobot_write, "_ROWS", 2)
    path = write_lerobot(tmp_path / "new", source, videos="")
    listed = pq.ParquetFile(path / LISTED)
    assert [listed.metadata.row_group(i).num_rows for i in range(2)] == [2, 1]
    assert_same(source, storage.open_dataset(path))
