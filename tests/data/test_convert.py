"""Round trips between LeRobot and RLDS, exact for numbers, texts and lossless pictures."""

import json
import re

import numpy as np
import pytest

from ambient_jax.data import __main__, convert, storage
from ambient_jax.data.features import flatten, leaves
from tests.conftest import numbered_episode
from tests.data.storage import lerobot_folders as folders
from tests.data.storage import written
from tests.data.storage.compared import (
    assert_same,
    nested,
    storage_array,
    write_nested,
)
from tests.data.storage.lerobot_folders import FRONT, WRIST

CAMERAS = {"steps/observation/images.front", "steps/observation/images.wrist"}
CAMERAS |= {"steps/observation/images.stored"}


def make(root, version):
    return folders.write_v3(root) if version == "v3.0" else folders.write_v2(root, version=version)


@pytest.mark.parametrize("version", ["v2.0", "v2.1", "v3.0"])
def test_lerobot_to_rlds_to_lerobot(tmp_path, capsys, version):
    old = make(tmp_path / "old", version)
    convert.main([str(old), str(tmp_path / "rlds"), "--format=rlds"])
    assert capsys.readouterr().out == f"{tmp_path}/rlds/1.0.0\n"
    convert.main([f"{tmp_path}/rlds", f"{tmp_path}/new", "--format=lerobot", "--videos=lossless"])
    assert capsys.readouterr().out == f"{tmp_path}/new\n"
    one, other = storage.open_dataset(old), storage.open_dataset(tmp_path / "new")
    assert_same(one, other)
    assert (other.meta.tasks, other.hz) == (one.meta.tasks, one.hz)
    infos = [json.loads((root / "meta/info.json").read_text()) for root in (old, tmp_path / "new")]
    assert set(infos[1]["features"]) == set(infos[0]["features"])
    for name, field in infos[0]["features"].items():
        assert infos[1]["features"][name]["shape"] == field["shape"]
        if field["dtype"] != "image":
            assert infos[1]["features"][name]["dtype"] == field["dtype"]
            assert infos[1]["features"][name]["names"] == field["names"]
    assert infos[0]["robot_type"] == infos[1]["robot_type"]
    # In between: the same values, and pictures that need no video any more.
    rlds = storage.open_dataset(tmp_path / "rlds", decode_images=False, last_step="keep")
    assert_same(one, rlds)
    assert not leaves(rlds.features).keys() ^ leaves(one.features).keys()


def test_real_last_actions_stay_and_fillers_stay_fillers(tmp_path, write_source):
    """Opened as any user does, each way round, a data set has as many steps as before."""
    old = make(tmp_path / "old", "v2.1")
    lengths = [len(e["steps"]["action"]) for e in storage.open_dataset(old)]
    convert.main([str(old), str(tmp_path / "rlds"), "--format=rlds"])
    convert.main([f"{tmp_path}/rlds", f"{tmp_path}/new", "--format=lerobot", "--videos=none"])
    for folder in ("rlds", "new"):
        opened = storage.open_dataset(tmp_path / folder)
        assert [len(e["steps"]["action"]) for e in opened] == lengths, folder
        assert opened.last_step == "keep"
    episodes = [numbered_episode(i, length) for i, length in enumerate((4, 3))]
    for episode in episodes:
        episode["steps"]["is_last"][-1] = True
    filled = write_source("filled", episodes)
    convert.main([filled, f"{tmp_path}/lerobot", "--format=lerobot", "--hz=5"])
    convert.main([f"{tmp_path}/lerobot", f"{tmp_path}/back", "--format=rlds"])
    for folder in (filled, f"{tmp_path}/lerobot", f"{tmp_path}/back"):
        opened = storage.open_dataset(folder)
        assert [len(e["steps"]["action"]) for e in opened] == [3, 2], folder
        assert [
            len(e["steps"]["action"]) for e in storage.open_dataset(folder, last_step="keep")
        ] == [4, 3]
        only = storage.open_dataset(folder, keys=("steps/action",))
        assert list(only[0]["steps"]["action"][:, 1]) == [0.25, 1.25, 2.25]


@pytest.mark.parametrize("videos", ["lossless", ""])
def test_rlds_to_lerobot_to_rlds(tmp_path, videos):
    data = write_nested(tmp_path, [nested(2, 4), nested(3, 6)])
    new = convert.lerobot_write.write_lerobot(tmp_path / "new", data, hz=5, videos=videos)
    again = convert.write_rlds(tmp_path / "again", storage.open_dataset(new))
    again = storage.open_dataset(again, last_step="keep")
    for i in range(2):
        old, got = flatten(data[i]), flatten(again[i])
        for path, name in {
            "action": "action",
            "reward": "reward",
            "is_last": "is_last",
            "language_instruction": "language_instruction",
            "observation/joints/left": "observation/joints.left",
            "observation/matrix": "observation/matrix",
            "observation/counter": "observation/counter",
        }.items():
            a, b = old[f"steps/{path}"], got[f"steps/{name}"]
            assert a.dtype == b.dtype and a.shape == b.shape
            np.testing.assert_array_equal(a, b)


def test_pictures_stay_bytes_where_they_can(tmp_path):
    old = storage.open_dataset(make(tmp_path / "old", "v2.1"), decode_images=False)
    stored = [old[i]["steps"]["observation"]["images.stored"].tolist() for i in range(len(old))]
    rlds = convert.write_rlds(tmp_path / "rlds", old, images="jpeg")
    rlds = storage.open_dataset(rlds, decode_images=False, last_step="keep")
    got = [rlds[i]["steps"]["observation"] for i in range(len(rlds))]
    assert [o["images.stored"].tolist() for o in got] == stored
    assert all(o["images.front"][0].startswith(b"\xff\xd8") for o in got)  # JPEG
    new = convert.lerobot_write.write_lerobot(tmp_path / "new", rlds, videos="")
    again = storage.open_dataset(new)
    for number, expected in enumerate(got):
        for name in ("images.stored", "images.front", "images.wrist"):
            pictures = again[number]["steps"]["observation"][name]
            assert pictures.tolist() == expected[name].tolist()


def test_a_part_of_a_set_and_of_its_fields(tmp_path):
    old = make(tmp_path / "old", "v3.0")
    line = [str(old), str(tmp_path / "new"), "--format=lerobot", "--split=train[1:3]"]
    convert.main([*line, "--leave-out=steps/observation/images.front", "--leave-out=steps/note"])
    new = storage.open_dataset(tmp_path / "new")
    assert len(new) == 2 and set(new.meta.cameras) == {WRIST, folders.STORED}
    assert FRONT not in new.meta.fields and "note" not in new.meta.fields
    part = storage.open_dataset(old, "train[1:3]", keys=[p for p in new.keys if p not in CAMERAS])
    anew = {"steps/episode_index", "steps/index", *CAMERAS}
    assert_same(part, new, but=anew)


def test_a_camera_without_all_videos_is_named(tmp_path, capsys):
    old = make(tmp_path / "old", "v2.1")
    (old / f"videos/chunk-000/{FRONT}/episode_000001.mp4").unlink()
    line = [str(old), str(tmp_path / "new"), "--format=rlds"]
    with pytest.raises(SystemExit):
        convert.main(line)
    assert re.search(
        "^failed: .*old, episode 1: steps/observation/images.front: .*missing",
        capsys.readouterr().err,
        re.MULTILINE,
    )
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == []
    convert.main([*line, "--leave-out=steps/observation/images.front"])
    assert len(storage.open_dataset(tmp_path / "new")) == 3


def test_slips_of_the_command(tmp_path, capsys):
    old = str(make(tmp_path / "old", "v2.1"))
    line = [old, f"{tmp_path}/new"]
    for wrong in ([], ["--format=zarr"], ["--format=rlds", "--images=gif"]):
        with pytest.raises(SystemExit):
            convert.main([*line, *wrong])
        assert "usage:" in capsys.readouterr().err
    for wrong in (["--processes=2"], ["--beam_options=--runner=FlinkRunner"]):
        with pytest.raises(SystemExit):
            convert.main([*line, "--format=lerobot", *wrong])
        assert "are for --format rlds" in capsys.readouterr().err
    with pytest.raises(ValueError, match="--processes is -1, expected at least 0"):
        convert.main([*line, "--format=rlds", "--processes=-1"])
    with pytest.raises(ValueError, match="old has no feature 'steps/notes'; did you mean"):
        convert.main([*line, "--format=rlds", "--leave-out=steps/notes"])
    with pytest.raises(ValueError, match="no split 'test', it has train"):
        convert.main([*line, "--format=rlds", "--split=test"])
    with pytest.raises(FileExistsError, match="old exists"):
        convert.main([old, old, "--format=lerobot"])
    with pytest.raises(ValueError, match="name is 'a-b', expected letters"):
        convert.main([old, f"{tmp_path}/a-b", "--format=rlds"])
    with pytest.raises(SystemExit, match="^error: .*nothing"):
        __main__.main(["convert", f"{tmp_path}/nothing", f"{tmp_path}/new", "--format=rlds"])
    assert [p.name for p in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("videos", [pytest.param(True, marks=pytest.mark.slow), False])
@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("lerobot_v21_g1", "train[10,28]"),
        ("lerobot_v21_gr00t/robot_sim.PickNPlace", "train[:2]"),
    ],
)
def test_recorded_sets_there_and_back(recorded_data, tmp_path, name, split, videos):
    old = recorded_data / name
    whole = storage.open_dataset(old, split)
    cameras = {p: v for p, v in flatten(whole[0]).items() if isinstance(v, storage.video.Clip)}
    assert cameras
    out = [f"--leave-out={p}" for p, clip in cameras.items() if clip.absent or not videos]
    convert.main([str(old), f"{tmp_path}/rlds", "--format=rlds", f"--split={split}", *out])
    line = [f"{tmp_path}/rlds", f"{tmp_path}/new", "--format=lerobot", "--videos=lossless"]
    convert.main(line)
    new = storage.open_dataset(tmp_path / "new")
    # Those that every part of a set numbers by itself, and a frame_index that one set lacks.
    anew = {f"steps/{n}" for n in ("index", "episode_index", "frame_index")}
    if "gr00t" in name:
        anew.add("steps/timestamp")  # they begin at 0.05 s
    kept = storage.open_dataset(old, split, keys=[p for p in whole.keys if p in new.keys])
    assert_same(kept, new, but=anew)
    assert new.meta.tasks == kept.meta.tasks
    assert {"steps/action", "steps/observation/state"} <= set(kept.keys)


OTHERS = {
    "robomimic": (lambda root: written.write_robomimic(root / "demo.hdf5"), "train"),
    "zarr": (lambda root: written.write_zarr(root / "demo.zarr"), "train[:4]"),
    "agibot": (lambda root: written.write_agibot(root / "agibot"), "task_327"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_every_format_becomes_both(tmp_path, name):
    make_one, split = OTHERS[name]
    old = make_one(tmp_path)
    data = storage.open_dataset(old, split)
    line, hz = [str(old), f"--split={split}"], data.hz or 10
    convert.main([*line, f"{tmp_path}/rlds", "--format=rlds"])
    convert.main([*line, f"{tmp_path}/new", "--format=lerobot", "--videos=lossless", f"--hz={hz}"])
    rlds = storage.open_dataset(tmp_path / "rlds", data.split.partition("[")[0], last_step="keep")
    new = storage.open_dataset(tmp_path / "new")
    assert len(data) == len(rlds) == len(new) and new.hz == hz
    kept = 0
    for position in range(len(data)):
        flat, one, other = (flatten(d[position]) for d in (data, rlds, new))
        assert set(one) == set(flat)
        for path, value in flat.items():
            value, got = storage_array(value), storage_array(one[path])
            assert got.dtype == value.dtype
            np.testing.assert_array_equal(got, value, err_msg=path)
            if (again := other.get(path)) is not None:
                kept += 1
                again = storage_array(again)
                # LeRobot's pictures are uint8; a number and a vector of one are one there.
                np.testing.assert_array_equal(again.reshape(value.shape), value, err_msg=path)
    assert kept > 4 * len(data)
