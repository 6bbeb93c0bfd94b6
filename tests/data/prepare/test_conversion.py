"""Conversion to RLDS by part: whole, resumed, mended, and the same for any number of processes."""

import fcntl
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds

from ambient_jax.data import convert, storage, write
from ambient_jax.data.features import flatten
from ambient_jax.data.prepare import conversion
from ambient_jax.data.prepare.conversion import UnfinishedError
from tests.data.storage import lerobot_folders as folders
from tests.data.storage.compared import assert_same

ROOT = pathlib.Path(__file__).parents[3]
LENGTHS = [3, 4, 5, 6, 7, 3]


@pytest.fixture
def source(write_source):
    """Folder of an RLDS data set of four files, of 1, 2, 1 and 2 episodes."""
    return write_source("old", LENGTHS, file_format="tfrecord", shards=4)


def opened(path, **options):
    return storage.open_dataset(path, decode_images=False, last_step="keep", **options)


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def parts(target):
    """Names of the parts that wait for the others."""
    return sorted(p.name for p in (target / ".1.0.0.parts").glob("*.shards"))


def assert_no_data_set(target):
    assert tfds.core.utils.version.list_all_versions(target) == []
    with pytest.raises(FileNotFoundError, match="no TFDS dataset"):
        storage.open_dataset(target)


def counted(monkeypatch):
    """The parts that are written from now on."""
    made, write_shards = [], write.write_shards
    monkeypatch.setattr(
        write, "write_shards", lambda p, *rest: made.append(p) or write_shards(p, *rest)
    )
    return made


def test_each_file_becomes_a_shard(source, tmp_path):
    old = opened(source)
    path = convert.write_rlds(tmp_path / "new", old)
    new = opened(path)
    assert new.shard_lengths == old.shard_lengths == [1, 2, 1, 2]
    assert new.episode_ids.tolist() == list(range(6))
    assert_same(old, new)
    assert [p.name for p in path.parent.iterdir()] == ["1.0.0"]  # no parts are left
    assert {p.name for p in path.iterdir()} == {
        *(f"new-train.array_record-0000{i}-of-00004" for i in range(4)),
        *("dataset_info.json", "features.json"),
    }
    info = json.loads((path / "dataset_info.json").read_text())
    (split,) = info["splits"]
    assert split["shardLengths"] == ["1", "2", "1", "2"] and int(split["numBytes"]) > 500


def test_tfds_reads_it(source, tmp_path):
    path = convert.write_rlds(tmp_path / "new", opened(source))
    data = tfds.builder_from_directory(path).as_data_source(split="train")
    ours = opened(path)
    assert len(data) == 6
    for theirs, episode in zip(data, ours, strict=True):
        steps = list(theirs["steps"])
        assert len(steps) == len(episode["steps"]["action"])
        for t, step in enumerate(steps):
            np.testing.assert_array_equal(step["action"], episode["steps"]["action"][t])


def test_a_large_part_becomes_several_shards(source, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "_SHARD_BYTES", 1)
    new = opened(convert.write_rlds(tmp_path / "new", opened(source)))
    assert new.shard_lengths == [1] * 6
    assert_same(opened(source), new)


def test_a_slice_of_a_split(source, tmp_path):
    part = storage.open_dataset(source, "train[2:5]", decode_images=False, last_step="keep")
    new = opened(convert.write_rlds(tmp_path / "new", part))
    assert new.shard_lengths == [1, 1, 1]
    assert_same(part, new)


def test_an_interrupted_conversion_goes_on(source, tmp_path, monkeypatch):
    whole = contents(convert.write_rlds(tmp_path / "whole" / "new", opened(source)))
    made, write_shards = [], write.write_shards

    def third_ends(prefix, *rest):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(prefix)
        return write_shards(prefix, *rest)

    monkeypatch.setattr(write, "write_shards", third_ends)
    with pytest.raises(KeyboardInterrupt):
        convert.write_rlds(tmp_path / "new", opened(source))
    assert [name[:5] for name in parts(tmp_path / "new")] == ["00000", "00001"]
    assert_no_data_set(tmp_path / "new")
    half = tmp_path / "new/.1.0.0.parts/.00002-x.shards.partial-12345678"
    half.mkdir()  # what a kill leaves
    (half / "shard-0").write_bytes(b"cut")
    monkeypatch.setattr(write, "write_shards", write_shards)
    made = counted(monkeypatch)
    path = convert.write_rlds(tmp_path / "new", opened(source))
    assert len(made) == 2
    assert contents(path) == whole  # byte for byte
    assert [p.name for p in path.parent.iterdir()] == ["1.0.0"]


def test_a_damaged_shard_is_named_and_the_rest_kept(source, tmp_path, monkeypatch, capsys):
    whole = contents(convert.write_rlds(tmp_path / "whole" / "new", opened(source)))
    file = sorted(pathlib.Path(source).glob("*tfrecord*"))[1]
    sound = file.read_bytes()
    file.write_bytes(sound[:-9])
    line = [source, f"{tmp_path}/new", "--format=rlds"]
    made = counted(monkeypatch)
    for tries in (4, 1):  # nothing is mended: it alone is tried again
        made.clear()
        with pytest.raises(SystemExit) as ended:
            convert.main(line)
        assert ended.value.code == 1 and len(made) == tries
        shown = capsys.readouterr()
        assert not shown.out
        failed, kept = shown.err.splitlines()[-2:]
        assert failed.startswith(f"failed: source 'old', shard 1 of 4: {file}: truncated in record")
        assert kept.startswith(f"3 of 4 shards are kept in {tmp_path}/new/.1.0.0.parts: mend")
        assert_no_data_set(tmp_path / "new")
    with pytest.raises(UnfinishedError, match=f"shard 1 of 4: {file}: .*; 3 parts are kept"):
        convert.write_rlds(tmp_path / "new", opened(source))
    file.write_bytes(sound)
    made.clear()
    convert.main(line)
    assert capsys.readouterr().out == f"{tmp_path}/new/1.0.0\n"
    assert len(made) == 1 and contents(tmp_path / "new/1.0.0") == whole


def test_the_first_shard_may_be_the_damaged_one(source, tmp_path):
    file = min(pathlib.Path(source).glob("*tfrecord*"))
    sound = file.read_bytes()
    file.write_bytes(b"")
    with pytest.raises(UnfinishedError, match=f"shard 0 of 4: {file}: .*; 3 parts are kept"):
        convert.write_rlds(tmp_path / "new", opened(source))
    file.write_bytes(sound)
    assert_same(opened(source), opened(convert.write_rlds(tmp_path / "new", opened(source))))
    for path in pathlib.Path(source).glob("*tfrecord*"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=f"{file}: ends after 0 records"):
        convert.write_rlds(tmp_path / "other", opened(source))
    assert not (tmp_path / "other").exists()


def test_episodes_of_other_formats_are_grouped(tmp_path, monkeypatch):
    """A file is an episode here; a video that is mended concerns its own group alone."""
    monkeypatch.setattr(conversion, "EPISODES", 2)
    root = folders.write_v2(tmp_path / "old", version="v2.1")
    video = root / f"videos/chunk-000/{folders.FRONT}/episode_000002.mp4"
    video.rename(tmp_path / "elsewhere.mp4")
    with pytest.raises(
        UnfinishedError, match="shard 1 of 2: .*old, episode 2: .*mp4: the file is missing"
    ):
        convert.write_rlds(tmp_path / "new", opened(root))
    shutil.move(tmp_path / "elsewhere.mp4", video)
    made = counted(monkeypatch)
    new = opened(convert.write_rlds(tmp_path / "new", opened(root)))
    assert len(made) == 1 and new.shard_lengths == [2, 1]
    assert_same(opened(root), new)


def test_other_options_or_data_make_all_anew(source, tmp_path, monkeypatch):
    files = sorted(pathlib.Path(source).glob("*tfrecord*"))
    sound = files[3].read_bytes()
    files[3].write_bytes(b"")
    with pytest.raises(UnfinishedError):
        convert.write_rlds(tmp_path / "new", opened(source))
    before = parts(tmp_path / "new")
    assert len(before) == 3
    some = opened(source, keys=["steps/action", "steps/is_last"])
    with pytest.raises(UnfinishedError):
        convert.write_rlds(tmp_path / "new", some)
    assert len(parts(tmp_path / "new")) == 3 and not set(parts(tmp_path / "new")) & set(before)
    files[3].write_bytes(sound)
    os.utime(files[0], ns=(1, 1))
    made = counted(monkeypatch)
    convert.write_rlds(tmp_path / "new", some)
    assert len(made) == 2


def test_a_kill_while_parts_are_joined_loses_none(source, tmp_path, monkeypatch):
    seen = []

    def dies(folder, *_):
        assert_no_data_set(tmp_path / "new")
        seen.extend(p.name for p in folder.iterdir())
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(write, "write_metadata", dies)
        with pytest.raises(KeyboardInterrupt):
            convert.write_rlds(tmp_path / "new", opened(source))
    assert len(seen) == 4 and "dataset_info.json" not in seen
    assert len(parts(tmp_path / "new")) == 4
    assert_no_data_set(tmp_path / "new")
    made = counted(monkeypatch)
    assert_same(opened(source), opened(convert.write_rlds(tmp_path / "new", opened(source))))
    assert made == []


def test_without_links_files_are_copied(source, tmp_path, monkeypatch):
    def no_links(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    assert_same(opened(source), opened(convert.write_rlds(tmp_path / "new", opened(source))))


@pytest.mark.parametrize("damage", ["cut", "lost", "sizes"])
def test_a_damaged_part_is_made_anew(source, tmp_path, monkeypatch, damage):
    with monkeypatch.context() as patch:
        patch.setattr(write, "write_metadata", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            convert.write_rlds(tmp_path / "new", opened(source))
    part = tmp_path / "new/.1.0.0.parts" / parts(tmp_path / "new")[2]
    if damage == "cut":
        os.truncate(part / "shard-0", 100)
    elif damage == "lost":
        (part / "shard-0").unlink()
    else:
        (part / "sizes.json").write_text("{")
    with pytest.raises(ValueError, match=f"{part} was damaged .*: the same command"):
        convert.write_rlds(tmp_path / "new", opened(source))
    assert_same(opened(source), opened(convert.write_rlds(tmp_path / "new", opened(source))))


def test_two_conversions_to_one_place(source, tmp_path):
    folder = tmp_path / "new/.1.0.0.parts"
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match=f"another process converts into {folder}"):
            convert.write_rlds(tmp_path / "new", opened(source))
    convert.write_rlds(tmp_path / "new", opened(source))
    with pytest.raises(FileExistsError, match="new/1.0.0 exists: .*overwrite=True"):
        convert.write_rlds(tmp_path / "new", opened(source))
    part = storage.open_dataset(source, "train[:1]", last_step="keep")
    assert len(opened(convert.write_rlds(tmp_path / "new", part, overwrite=True))) == 1
    with pytest.raises(ValueError, match="cannot write to 'gs://b/new': give a local directory"):
        convert.write_rlds("gs://b/new", part)


def test_without_beam_it_says_what_to_do(source, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ImportError, match=r"'apache_beam' .*ambient_jax\[beam\].*--processes=0"):
        convert.write_rlds(tmp_path / "new", opened(source), processes=2)
    assert list((tmp_path / "new").iterdir()) == []


def command(*arguments):
    """Starts the command; its output goes to a file, which a kill cannot fill."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    line = [sys.executable, "-m", "ambient_jax.data", "convert", *map(str, arguments)]
    return subprocess.Popen(
        [*line, "--format=rlds"], env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True
    )


def need_beam():
    pytest.importorskip("apache_beam", reason="no apache-beam: pip install '.[beam]'")


@pytest.fixture
def heavy(tmp_path):
    """Folder of a data set of 12 files, each of which takes a while: its numbers are packed."""
    tensor = tfds.features.Tensor(shape=(256, 256), dtype=np.float32, encoding="zlib")
    rng = np.random.default_rng(0)
    episodes = [
        {"steps": {"observation": {"x": x}, "action": x[:, 0, :2]}}
        for x in rng.normal(size=(24, 8, 256, 256)).astype(np.float32)
    ]
    features = {
        "observation": {"x": tensor},
        "action": tfds.features.Tensor(shape=(2,), dtype=np.float32),
    }
    features = tfds.features.FeaturesDict({"steps": tfds.features.Dataset(features)})
    options = dict(name="heavy", version="1.0.0", features=features, shards=12)
    return write.write_dataset(tmp_path, episodes=episodes, **options)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [0, 2])
def test_a_killed_command_carries_on(heavy, tmp_path, processes):
    if processes:
        need_beam()
    whole = contents(convert.write_rlds(tmp_path / "whole" / "new", opened(heavy)))
    line = heavy, tmp_path / "new", f"--processes={processes}"
    process = command(*line)
    while process.poll() is None and len(parts(tmp_path / "new")) < 3:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {p: os.stat(tmp_path / "new/.1.0.0.parts" / p).st_ino for p in parts(tmp_path / "new")}
    assert 3 <= len(done) < 12
    assert_no_data_set(tmp_path / "new")
    process = command(*line)
    time.sleep(0.5)
    inodes = {}
    while process.poll() is None:  # the parts that were made are not made again
        for name in parts(tmp_path / "new"):
            try:
                inodes[name] = os.stat(tmp_path / "new/.1.0.0.parts" / name).st_ino
            except FileNotFoundError:
                break
        time.sleep(0.01)
    assert process.returncode == 0, process.stderr.read()
    assert {name: inodes[name] for name in done} == done
    assert contents(tmp_path / "new/1.0.0") == whole


@pytest.mark.slow
def test_any_number_of_processes_writes_the_same(source, tmp_path):
    need_beam()
    found = []
    for processes in (0, 1, 2):
        target = tmp_path / str(processes) / "new"
        process = command(source, target, f"--processes={processes}")
        assert process.wait() == 0, process.stderr.read()
        found.append(contents(target / "1.0.0"))
    assert found[0] == found[1] == found[2]
    assert_same(opened(source), opened(tmp_path / "2/new"))


@pytest.mark.slow
def test_a_damaged_shard_on_beam(source, tmp_path):
    need_beam()
    file = sorted(pathlib.Path(source).glob("*tfrecord*"))[2]
    sound = file.read_bytes()
    file.write_bytes(sound[:-9])
    process = command(source, tmp_path / "new", "--processes=2")
    err = process.communicate()[1]
    assert process.returncode == 1 and "Traceback" not in err
    (failed,) = [line for line in err.splitlines() if line.startswith("failed: ")]
    assert re.match(f"failed: source 'old', shard 2 of 4: {file}: truncated in record 0", failed)
    assert len(parts(tmp_path / "new")) == 3
    file.write_bytes(sound)
    options = "--beam_options=--runner=DirectRunner,--direct_running_mode=in_memory"
    process = command(source, tmp_path / "new", "--processes=1", options)
    assert process.wait() == 0, process.stderr.read()
    assert_same(opened(source), opened(tmp_path / "new"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "split", "shards"),
    [
        ("rlds_bridge/1.0.0", "train", 1),
        ("lerobot_v21_gr00t/robot_sim.PickNPlace", "train", 1),
        ("lerobot_v21_g1", "train", 4),
    ],
)
def test_recorded_sets(recorded_data, tmp_path, name, split, shards):
    old = storage.open_dataset(recorded_data / name, split, decode_images=False, last_step="keep")
    first = flatten(old[0])
    absent = {p for p, v in first.items() if getattr(v, "absent", "")}
    keys = [p for p in first if p not in absent]
    old = storage.open_dataset(
        recorded_data / name, split, keys=keys, decode_images=False, last_step="keep"
    )
    path = convert.write_rlds(tmp_path / "new", old)
    new = opened(path)
    assert new.shard_lengths[0] == min(32, len(old)) and len(new.shard_lengths) == shards
    assert_same(old, new)
