"""Hashes of files that the cache keeps."""

import os
import pathlib

import pytest

from ambient_jax.data import marks, paths, rlds


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def hashed(counts):
    def digest(path):
        counts.append(path)
        return pathlib.Path(path).read_text().upper()

    return digest


@pytest.fixture
def files(tmp_path):
    names = [tmp_path / "data" / name for name in ("a", "b")]
    names[0].parent.mkdir()
    for path in names:
        path.write_text(path.name)
    return [str(path) for path in names]


def test_a_file_is_hashed_once_and_again_if_it_changed(files):
    directory, read = os.path.dirname(files[0]), []
    assert not marks.are_known(directory, files)
    found = marks.of(directory, files, hashed(read))
    assert [mark.digest for mark in found] == ["A", "B"] and read == files
    marks.write(directory, found)
    assert marks.are_known(directory, files)
    assert marks.of(directory, files, hashed(read)) == found and read == files
    # The same size and time of modification, as of a file that was damaged and touched.
    times = os.stat(files[1])
    pathlib.Path(files[1]).write_text("c")
    os.utime(files[1], ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not marks.are_known(directory, files)
    assert [mark.digest for mark in marks.of(directory, files, hashed(read))] == ["A", "C"]
    assert read == [*files, files[1]]


def test_one_folder_adds_to_its_marks(files):
    directory = os.path.dirname(files[0])
    for path in files:
        marks.write(directory, marks.of(directory, [path], hashed([])))
    assert list(marks.read(directory)) == files
    assert not marks.are_known(f"{directory}/other", files)
    missing = marks.of(directory, [f"{directory}/none"], lambda path: "missing")
    marks.write(directory, missing)
    assert list(marks.read(directory)) == files
    assert not marks.are_known(directory, [f"{directory}/none"])


@pytest.mark.parametrize("text", ["", "[]", '{"files": [[1]]}', '{"files": 3}'])
def test_a_damaged_file_of_marks_is_none(files, cache, text, caplog):
    directory = os.path.dirname(files[0])
    marks.write(directory, marks.of(directory, files, hashed([])))
    (stored,) = (cache / "marks").iterdir()
    stored.write_text(text)
    assert marks.read(directory) == {}
    assert f"{stored} cannot be used" in caplog.text


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_a_fingerprint_from_marks_is_that_of_the_files(write_source, file_format, monkeypatch):
    path = write_source("demos", [3, 4, 5], shards=2, file_format=file_format)
    data = rlds.open_dataset(path)
    fingerprint = data.fingerprint
    marks.write(data.directory, data.marks(data.covered))
    monkeypatch.setattr(rlds.records, "digest", lambda *_, **__: 1 / 0)
    assert rlds.open_dataset(path).fingerprint == fingerprint
    versions = [data.shard_version(i) for i in range(2)]
    os.utime(data.shard_files[1], ns=(1, 1))
    again = rlds.open_dataset(path)
    assert again.shard_version(0) == versions[0] and again.shard_version(1) != versions[1]
    with pytest.raises(ZeroDivisionError):
        print(again.fingerprint)


def test_marks_of_objects(place):
    folder, _ = place
    path = folder / "data" / "x"
    assert marks.version(str(path)) == "missing"
    path.write_bytes(b"1")
    first = marks.version(str(path))
    assert first == marks.version(str(path))
    path.write_bytes(b"2")
    assert marks.version(str(path)) not in (first, "missing")
    for name in ("y", "below/z"):
        (folder / "data" / name).write_bytes(name.encode())
    files = [str(folder / "data" / name) for name in ("x", "y", "below/z", "none")]
    assert marks.versions(files) == [marks.version(file) for file in files]
    assert marks.versions(files)[3] == "missing"
