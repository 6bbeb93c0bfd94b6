"""Damaged LeRobot data sets: each is refused in one line that names the file."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ambient_jax.data import storage
from ambient_jax.data.features import flatten
from tests.data.storage import lerobot_folders as folders
from tests.data.storage.lerobot_folders import FRONT, STORED

INFO, TABLE = "meta/info.json", "data/chunk-000/episode_000000.parquet"
VIDEO = f"videos/chunk-000/{FRONT}/episode_000000.mp4"
TABLE_3, VIDEO_3 = "data/chunk-000/file-000.parquet", f"videos/{FRONT}/chunk-000/file-001.mp4"
LIST_3 = "meta/episodes/chunk-000/file-000.parquet"


def remove(name):
    def act(root):
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return act


def text(name, content):
    return lambda root: (root / name).write_text(content)


def cut(name, share=0.5):
    def act(root):
        content = (root / name).read_bytes()
        (root / name).write_bytes(content[: int(share * len(content))])

    return act


def info(**fields):
    """info.json with fields changed; None removes one."""

    def act(root):
        content = json.loads((root / INFO).read_text()) | fields
        content = {n: v for n, v in content.items() if v is not None}
        (root / INFO).write_text(json.dumps(content))

    return act


def feature(name, **fields):
    """A feature changed, or without arguments removed from no table but added to info.json."""

    def act(root):
        content = json.loads((root / INFO).read_text())
        known = content["features"].get(name, {"dtype": "float32", "shape": [1]})
        content["features"][name] = {n: v for n, v in {**known, **fields}.items() if v is not None}
        (root / INFO).write_text(json.dumps(content))

    return act


def lines(name, change):
    def act(root):
        rows = [json.loads(line) for line in (root / name).read_text().splitlines()]
        folders.write_lines(root / name, change(rows))

    return act


def column(name, values, file=TABLE):
    """A table with another column; ``values`` of None removes it, a function gets the old ones."""

    def act(root):
        table = pq.read_table(root / file)
        old = table[name].to_pylist() if name in table.column_names else None
        if name in table.column_names:
            table = table.drop_columns([name])
        if values is not None:
            new = values(old) if callable(values) else values
            table = table.append_column(name, new if isinstance(new, pa.Array) else pa.array(new))
        pq.write_table(table, root / file)

    return act


def rows(keep, file=TABLE):
    def act(root):
        table = pq.read_table(root / file)
        pq.write_table(table.take(keep(len(table))), root / file)

    return act


def video(count=7, hz=folders.HZ, name=VIDEO):
    def act(root):
        folders.write_video(root / name, [folders.picture(0, i) for i in range(count)], hz=hz)

    return act


def gap(values):
    return [None, *values[1:]]


BAD = {
    "no info.json": ("v2.1", remove(INFO), "expected|no dataset|no data set"),
    "info.json is no JSON": ("v2.1", text(INFO, "{"), "info.json.*JSON"),
    "info.json is a list": ("v2.1", text(INFO, "[]"), "info.json.*object"),
    "info.json is empty": ("v2.1", text(INFO, ""), "info.json"),
    "unknown version": ("v2.1", info(codebase_version="v9"), "'v9', expected one of v2.0"),
    "version 1": ("v2.1", info(codebase_version="v1.6"), "'v1.6'.*convert"),
    "no version": ("v2.1", info(codebase_version=None), "codebase_version is None"),
    "no fps": ("v2.1", info(fps=None), "fps is None"),
    "fps of zero": ("v2.1", info(fps=0), "fps is 0"),
    "fps is text": ("v2.1", info(fps="30"), "fps is '30'"),
    "no features": ("v2.1", info(features={}), "no features"),
    "features are a list": ("v2.1", info(features=["action"]), "no features"),
    "no data_path": ("v2.1", info(data_path=None), "data_path is None"),
    "no video_path": ("v2.1", info(video_path=None), "video_path is None"),
    "path leaves the folder": (
        "v2.1",
        info(data_path="../{episode_index:06d}.parquet"),
        "leads out of the data set",
    ),
    "path is absolute": ("v2.1", info(data_path="/etc/{episode_index:06d}"), "leads out"),
    "path reads an attribute": ("v2.1", info(data_path="{episode_index.real}"), "expected places"),
    "path has an unknown place": ("v2.1", info(data_path="data/{shard}.parquet"), "'shard'"),
    "path names one file for all": ("v2.1", info(data_path="data/a.parquet"), "a.parquet"),
    "chunks_size of zero": ("v2.1", info(chunks_size=0), "chunks_size is 0"),
    "split is no range": ("v2.1", info(splits={"train": "all"}), "'train' is 'all'"),
    "split is a list": ("v2.1", info(splits=["train"]), "splits"),
    "fewer episodes than stated": ("v2.1", info(total_episodes=5), "total_episodes is 5.*lists 3"),
    "fewer steps than stated": ("v2.1", info(total_frames=99), "total_frames is 99.*lists 13"),
    "unknown dtype": ("v2.1", feature("action", dtype="quaternion"), "dtype 'quaternion'"),
    "dtype is no text": ("v2.1", feature("action", dtype=["float32"]), "dtype"),
    "negative shape": ("v2.1", feature("action", shape=[-2]), r"shape \[-2\]"),
    "shape is a number": ("v2.1", feature("action", shape=2), "shape 2"),
    "shape of nothing": ("v2.1", feature("action", shape=[]), r"action"),
    "no shape": ("v2.1", feature("action", shape=None), "lacks its dtype or shape"),
    "camera of two numbers": ("v2.1", feature(FRONT, shape=[32, 48]), "expected 3 numbers"),
    "slash in a name": ("v2.1", feature("observation/x"), "slash in its name"),
    "two features at one place": ("v2.1", feature("observation"), "has the place of"),
    "no episodes.jsonl": ("v2.1", remove("meta/episodes.jsonl"), "episodes.jsonl does not exist"),
    "episodes.jsonl is cut": ("v2.1", cut("meta/episodes.jsonl"), "episodes.jsonl.*JSON"),
    "episodes.jsonl is empty": ("v2.1", text("meta/episodes.jsonl", ""), "lists no episode"),
    "a line is a number": ("v2.1", text("meta/episodes.jsonl", "3\n"), "line 1 is no JSON object"),
    "an episode twice": (
        "v2.1",
        lines("meta/episodes.jsonl", lambda r: [r[0], r[0], r[2]]),
        "episode_index 0.*twice",
    ),
    "an empty episode": (
        "v2.1",
        lines("meta/episodes.jsonl", lambda r: [{**r[0], "length": 0}, *r[1:]]),
        "length 0, expected at least 1",
    ),
    "episode_index is text": (
        "v2.1",
        lines("meta/episodes.jsonl", lambda r: [{**r[0], "episode_index": "0"}, *r[1:]]),
        "episode_index '0'",
    ),
    "no tasks.jsonl": ("v2.1", remove("meta/tasks.jsonl"), "tasks.jsonl does not exist"),
    "a task without number": (
        "v2.1",
        lines("meta/tasks.jsonl", lambda r: [{"task": "a"}]),
        "lacks its task_index",
    ),
    "a task that is not listed": (
        "v2.1",
        lines("meta/tasks.jsonl", lambda r: r[:1]),
        "task_index 1, which is none",
    ),
    "no table": ("v2.1", remove(TABLE), "episode_000000.parquet is missing"),
    "table is cut": ("v2.1", cut(TABLE), "episode_000000.parquet cannot be read"),
    "table is text": ("v2.1", text(TABLE, "a,b\n1,2\n"), "episode_000000.parquet cannot be read"),
    "table is empty": ("v2.1", text(TABLE, ""), "episode_000000.parquet cannot be read"),
    "fewer rows than listed": (
        "v2.1",
        rows(lambda n: np.arange(n - 1)),
        "6 rows of episode 0.*says 7",
    ),
    "rows of another episode": (
        "v2.1",
        column("episode_index", lambda old: [5] * len(old)),
        "no row of episode 0",
    ),
    "absent column": ("v2.1", column("action", None), "no column 'action'"),
    "column that no table has": ("v2.1", feature("force"), "no column 'force'"),
    "no episode_index": ("v2.1", column("episode_index", None), "no column 'episode_index'"),
    "wrong width": ("v2.1", feature("action", shape=[3]), "2 numbers a step.*says 3"),
    "width that varies": (
        "v2.1",
        column("action", lambda old: [[1.0], [1.0, 2.0, 3.0], *old[2:]]),
        "action",
    ),
    "a gap": ("v2.1", column("action", gap), "action.*step 0"),
    "a gap in a vector": ("v2.1", column("action", lambda o: [[None, 1.0], *o[1:]]), "1 gaps"),
    "numbers are text": (
        "v2.1",
        column("next.reward", lambda old: ["x"] * len(old)),
        "next.reward is string",
    ),
    "no picture": ("v2.1", column(STORED, gap), "stored.*step 0"),
    "picture without bytes": (
        "v2.1",
        column(STORED, lambda o: [{"bytes": None, "path": "images/0.png"}, *o[1:]]),
        "no picture at step 0",
    ),
    "picture is no image": (
        "v2.1",
        column(STORED, lambda old: [{"bytes": b"abc", "path": None}] * len(old)),
        None,  # bytes are decoded where they are used
    ),
    "wrong fps": ("v2.1", info(fps=30), "timestamp goes from.*fps is 30"),
    "time runs back": (
        "v2.1",
        column("timestamp", lambda old: old[::-1]),
        "timestamp goes from",
    ),
    "time stands still": (
        "v2.1",
        column("timestamp", lambda old: [0.0] * len(old)),
        "timestamp goes from",
    ),
    "time is no number": (
        "v2.1",
        column("timestamp", lambda old: [float("nan")] * len(old)),
        "timestamp",
    ),
    "video is short": ("v2.1", video(5), "no picture at 0.500 s, the nearest is at 0.400 s"),
    "video of another rate": ("v2.1", video(14, hz=20), None),
    "video of a slower rate": ("v2.1", video(7, hz=7), "no picture at 0.100 s"),
    "video is cut": ("v2.1", cut(VIDEO), "episode_000000.mp4"),
    "video is text": ("v2.1", text(VIDEO, "<html>404</html>"), "episode_000000.mp4 is no video"),
    "video is empty": ("v2.1", text(VIDEO, ""), "episode_000000.mp4 is no video"),
    "no list of v3": ("v3.0", remove("meta/episodes"), "no meta/episodes"),
    "list of v3 is cut": ("v3.0", cut(LIST_3), "file-000.parquet cannot be read"),
    "no tasks of v3": ("v3.0", remove("meta/tasks.parquet"), "tasks.parquet does not exist"),
    "tasks of v3 without text": (
        "v3.0",
        column("__index_level_0__", None, "meta/tasks.parquet"),
        "no column",
    ),
    "no start in the video": (
        "v3.0",
        column(f"videos/{FRONT}/from_timestamp", None, LIST_3),
        "no column .*from_timestamp",
    ),
    "no file of the table": (
        "v3.0",
        column("data/file_index", None, LIST_3),
        "no column 'data/file_index'",
    ),
    "a file that is empty in the list": (
        "v3.0",
        column("data/file_index", lambda old: gap(old), LIST_3),
        "file_index",
    ),
    "start that is empty": (
        "v3.0",
        column(f"videos/{FRONT}/from_timestamp", gap, LIST_3),
        "from_timestamp",
    ),
    "start beyond the video": (
        "v3.0",
        column(f"videos/{FRONT}/from_timestamp", lambda old: [t + 60 for t in old], LIST_3),
        "no picture at 60.000 s",
    ),
    "table of v3 lacks an episode": (
        "v3.0",
        rows(lambda n: np.arange(7), TABLE_3),
        "no row of episode 1",
    ),
    "episodes of v3 are mixed up": (
        "v3.0",
        rows(lambda n: np.r_[0:4, 7:8, 4:7, 8:n], TABLE_3),
        "do not follow each other",
    ),
    "table of v3 is missing": ("v3.0", remove(TABLE_3), "file-000.parquet is missing"),
    "video of v3 is cut": ("v3.0", cut(VIDEO_3), "file-001.mp4"),
    "version of another layout": ("v2.1", info(codebase_version="v3.0"), "meta/"),
    "v3 that says v2": ("v3.0", info(codebase_version="v2.1"), "does not exist"),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    root = tmp_path_factory.mktemp("good")
    folders.write_v2(root / "v2.1")
    folders.write_v3(root / "v3.0")
    return root


def read_all(root):
    data = storage.open_dataset(root)
    for position in range(len(data)):
        for value in flatten(data[position]).values():
            if isinstance(value, storage.video.Clip):
                value.decode()


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_one_line(good, tmp_path, name):
    version, damage, message = BAD[name]
    root = tmp_path / "data"
    shutil.copytree(good / version, root)
    damage(root)
    if message is None:
        read_all(root)
        return
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        read_all(root)
    text = str(caught.value)
    assert "\n" not in text and str(root) in text, text


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_what_is_not_damaged_is_read(good, version):
    read_all(good / version)
