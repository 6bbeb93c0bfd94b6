"""Replay buffers of Diffusion Policy, written by zarr as its own code does, in Zarr v2."""

import json
import os
import pickle
import shutil
import threading

import numcodecs
import numpy as np
import pytest
import zarr

from ambient_jax.data import statistics, storage
from ambient_jax.data.features import flatten
from ambient_jax.data.rlds_source import RldsSource
from tests.data.storage.written import ENDS, write_zarr, zarr_arrays


@pytest.fixture
def store(tmp_path):
    return write_zarr(tmp_path / "pusht.zarr")


def test_every_value_is_what_zarr_reads(store):
    data, root = storage.open_dataset(store), zarr.open_group(store, mode="r")
    assert (data.name, data.hz, len(data), data.shard_lengths) == ("pusht", None, 8, [8])
    assert set(os.listdir(store / "data" / "img")) >= {".zarray", "0.0.0.0"}  # Zarr v2
    starts = np.concatenate([[0], ENDS])
    for i, episode in enumerate(data):
        span = slice(starts[i], starts[i + 1])
        flat = flatten(episode)
        assert set(flat) == {
            *("steps/action", "steps/observation/state", "steps/observation/keypoint"),
            *("steps/observation/img", "steps/observation/camera"),
            *("steps/is_first", "steps/is_last"),
        }
        for key, values in flat.items():
            if key.startswith("steps/is_"):
                continue
            stored = root[f"data/{key.split('/')[-1]}"][span]
            np.testing.assert_array_equal(values, stored)
            assert values.dtype == (np.uint8 if "img" in key else stored.dtype)
        count = span.stop - span.start
        assert flat["steps/is_first"].tolist() == [True] + [False] * (count - 1)
        assert flat["steps/is_last"].tolist() == [False] * (count - 1) + [True]


def test_features_name_pictures_and_numbers(store):
    steps = storage.open_dataset(store).features["steps"].feature
    assert steps["observation"]["img"].shape == (6, 7, 3)
    assert steps["observation"]["img"].np_dtype == np.uint8
    assert steps["observation"]["keypoint"].shape == (9, 2)
    assert steps["action"].np_dtype == np.float32


@pytest.mark.parametrize("kind", ["zip", "v3", "inside", "gzip"])
def test_other_stores_hold_the_same(kind, store, tmp_path):
    expected = list(storage.open_dataset(store))
    other = tmp_path / "other"
    other.mkdir()
    if kind == "zip":
        path = write_zarr(other / "x.zarr.zip")
    elif kind == "inside":
        path = write_zarr(other / "x.zarr").parent
    elif kind == "gzip":
        path = write_zarr(other / "x", compressors=numcodecs.GZip(3))
    else:
        path = write_zarr(other / "x.zarr", zarr_format=3)
    data = storage.open_dataset(path)
    assert len(data) == 8
    for one, two in zip(data, expected, strict=True):
        one, two = flatten(one), flatten(two)
        assert one.keys() == two.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], two[key])


def test_subsets_and_keys(store):
    data = storage.open_dataset(store, "train[3,5:7]", keys=["steps/action"])
    assert data.episode_ids.tolist() == [3, 5, 6] and len(data) == 3
    assert set(flatten(data[1])) == {"steps/action"}
    np.testing.assert_array_equal(data[1]["steps"]["action"], zarr_arrays()["action"][21:28])
    assert [i for i, _ in data.stream(0, 1)] == [5, 6]
    with pytest.raises(IndexError, match="episode 3 of .* does not exist"):
        data[3]
    with pytest.raises(ValueError, match="has no split 'valid', it has train"):
        storage.open_dataset(store, "valid")
    with pytest.raises(ValueError, match="no feature 'steps/observation/stat'; did you mean"):
        storage.open_dataset(store, required=["steps/observation/stat"])


@pytest.mark.parametrize("name", ["x.zarr", "x.zarr.zip"])
def test_copies_threads_and_processes(name, tmp_path):
    data = storage.open_dataset(write_zarr(tmp_path / name))
    expected = [episode["steps"]["observation"]["img"] for episode in data]
    copy = pickle.loads(pickle.dumps(data))
    found = {}

    def read(k):
        found[k] = [copy[i]["steps"]["observation"]["img"] for i in range(8)]

    threads = [threading.Thread(target=read, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for images in found.values():
        for one, two in zip(images, expected, strict=True):
            np.testing.assert_array_equal(one, two)
    assert len(found) == 4
    assert copy.fingerprint == data.fingerprint


@pytest.mark.parametrize("name", ["x.zarr", "x.zarr.zip"])
def test_the_fingerprint_is_that_of_the_values(name, tmp_path):
    path = write_zarr(tmp_path / name)
    mark = storage.open_dataset(path).fingerprint
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / f"renamed{name[1:]}"
    (shutil.copytree if path.is_dir() else shutil.copy)(path, copy)
    assert storage.open_dataset(copy).fingerprint == mark
    assert storage.open_dataset(path, "train[:7]").fingerprint != mark
    marks = {mark}
    for array in zarr_arrays():
        arrays = zarr_arrays()
        arrays[array].flat[-1] += 1
        marks.add(storage.open_dataset(write_zarr(tmp_path / name, arrays)).fingerprint)
    marks.add(storage.open_dataset(write_zarr(tmp_path / name, ends=[2, *ENDS[1:]])).fingerprint)
    assert len(marks) == 2 + len(zarr_arrays())


def test_nan_is_left_to_the_statistics(tmp_path, monkeypatch):
    arrays = zarr_arrays()
    arrays["state"][4, 2] = np.nan
    data = storage.open_dataset(write_zarr(tmp_path / "x.zarr", arrays))
    state = data[1]["steps"]["observation"]["state"]
    assert np.argwhere(np.isnan(state)).tolist() == [[1, 2]]
    monkeypatch.setenv(statistics.CACHE_VARIABLE, str(tmp_path / "cache"))
    with pytest.raises(ValueError, match=r"episode 1, step 1: steps/observation/state\[2\] is nan"):
        statistics.compute(RldsSource(data, "x", ("state",)))


def test_missing_chunks_are_said(tmp_path, caplog):
    path = write_zarr(tmp_path / "x.zarr")
    (path / "data/state/2.0").unlink()
    with caplog.at_level("WARNING", "absl"):
        data = storage.open_dataset(path)
        storage.open_dataset(path, keys=["steps/action"])
    assert [r.getMessage() for r in caplog.records] == [
        f"{path}: data/state has 5 of 6 chunks; the others read as zeros: fetch it again, unless "
        "it was written so"
    ]
    assert not data[3]["steps"]["observation"]["state"][5:].any()


def one_line(path, match, error=ValueError, **options):
    with pytest.raises(error, match=match) as caught:
        data = storage.open_dataset(path, **options)
        data[1]
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


BAD = {
    "no ends": (dict(ends=None), "has no array meta/episode_ends"),
    "ends fall": (dict(ends=[3, 8, 7, 41]), "is 7 at episode 2 after 8, expected rising"),
    "an empty episode": (dict(ends=[3, 3, 41]), "is 3 at episode 1 after 3, expected rising"),
    "a negative end": (dict(ends=[-1, 41]), "is -1 at episode 0 after 0, expected rising"),
    "ends of floats": (dict(ends=[3.0, 41.0]), r"is float64 \[2\], expected the step after"),
    "no end at all": (dict(ends=np.zeros(0, int)), r"is int64 \[0\], expected the step after"),
    "steps are missing": (dict(ends=[3, 50]), "data/action has 41 steps, the last episode .* 50"),
    "steps too many": (dict(ends=[3, 40]), "data/action has 41 steps, the last episode .* 40"),
    "no arrays": (dict(arrays={}), "has no array under 'data'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_buffers(name, tmp_path):
    options, match = BAD[name]
    one_line(write_zarr(tmp_path / "x.zarr", **options), match)


@pytest.mark.parametrize("value", [0.5, 256, -1, np.nan])
def test_pictures_that_are_no_whole_numbers(value, tmp_path):
    arrays = zarr_arrays()
    arrays["img"][4, 1, 2, 0] = value
    path = write_zarr(tmp_path / "x.zarr", arrays)
    one_line(path, f"episode 1: data/img is {float(value)} at step 1, expected pictures, whole")
    assert len(storage.open_dataset(path, keys=["steps/action"])[1]["steps"]["action"]) == 5


def damage_header(path, name, **fields):
    file = path / "data" / name / ".zarray"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def test_an_unknown_codec_matters_where_it_is_read(store):
    damage_header(store, "img", compressor={"id": "imagecodecs_jpegxl"})
    one_line(store, "data/img cannot be read .*'imagecodecs_jpegxl'.*install the package")
    one_line(store, "data/img cannot be read", keys=["steps/observation"])
    data = storage.open_dataset(store, keys=["steps/action", "steps/observation/state"])
    assert "img" not in data.features["steps"].feature["observation"]
    assert len(data[1]["steps"]["action"]) == 5


def test_damaged_files(store, tmp_path):
    (store / "data/action/0.0").write_bytes(b"\x02\x01\x33")
    with pytest.raises(ValueError, match="episode 1: data/action cannot be read .*fetch it again"):
        storage.open_dataset(store)[1]
    damage_header(store, "state", shape="many")
    one_line(store, "data/state cannot be read")
    (store / "meta/episode_ends/.zarray").write_text("{")
    one_line(store, "meta/episode_ends cannot be read", keys=["steps/action"])


def test_wrong_kinds_of_files(tmp_path):
    (tmp_path / "x.zarr.zip").write_bytes(b"no zip at all")
    one_line(tmp_path / "x.zarr.zip", "cannot be read .*not a zip file")
    whole = write_zarr(tmp_path / "y.zarr.zip").read_bytes()
    (tmp_path / "y.zarr.zip").write_bytes(whole[: len(whole) // 2])
    one_line(tmp_path / "y.zarr.zip", "cannot be read .*not a zip file")
    one_line(tmp_path, r"has 2 Zarr stores \(x.zarr.zip, y.zarr.zip\), expected one")
    (tmp_path / "z.zarr").mkdir()
    one_line(tmp_path / "z.zarr", "cannot be read|has no array under 'data'")


def test_damage_anywhere_in_a_zip_file_is_one_line(tmp_path):
    path, rng = write_zarr(tmp_path / "x.zarr.zip"), np.random.default_rng(0)
    whole, refused = path.read_bytes(), 0
    for _ in range(60):
        content = bytearray(whole)
        for at in rng.integers(0, len(content), 3):
            content[at] = rng.integers(256)
        path.write_bytes(content)
        try:
            list(storage.open_dataset(path))
        except (ValueError, OSError) as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
    assert refused > 20
