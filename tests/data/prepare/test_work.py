"""One part of one source, as a file."""

import gzip
import pathlib

import numpy as np
import pytest

from ambient_jax.data import marks, parts, statistics
from ambient_jax.data.prepare import work as work_lib
from ambient_jax.data.prepare.work import Work


@pytest.fixture
def begun(make_config, tmp_path):
    """(work, opened source) of four files."""
    sources = {"demos": ([3, 4, 5, 6], "clean", {"last_step": "keep"})}
    config = make_config(sources, file_format="tfrecord", shards=4)
    work = Work.of(config, None)
    opened = work_lib.pieces(work, "demos")
    opened.folder.mkdir(parents=True)
    return work, opened


def test_a_part_is_measured_once(begun, monkeypatch):
    work, opened = begun
    work_lib.measure(work, ("demos", 2))
    (path,) = opened.folder.iterdir()
    assert path == opened.path(2)
    part, found = work_lib.read(path)
    assert part.lengths == [5] and part.fields["action"].count == 5
    file = opened.source.data.shard_files[2]
    assert found == opened.source.data.marks([file])
    monkeypatch.setattr(parts, "measure", lambda *_: 1 / 0)
    work_lib.measure(work, ("demos", 2))
    assert list(opened.folder.iterdir()) == [path]


def test_a_failure_is_one_line_and_a_mended_file_another_part(begun):
    work, opened = begun
    before = opened.path(1)
    file = pathlib.Path(opened.source.data.shard_files[1])
    whole = file.read_bytes()
    file.write_bytes(whole[:-7])
    work_lib.measure(work, ("demos", 1))
    reason = opened.failed(1).read_text()
    assert reason.startswith(f"{file}: truncated in record 0") and "\n" not in reason
    assert opened.path(1) != before and not opened.path(1).exists()
    file.write_bytes(whole)
    work_lib.measure(work, ("demos", 1))
    assert work_lib.read(opened.path(1))[0].lengths == [4]


def test_an_error_of_the_code_is_a_failure_too(begun, monkeypatch):
    work, opened = begun
    monkeypatch.setattr(parts, "measure", lambda *_: {}["a key"])
    work_lib.measure(work, ("demos", 0))
    assert opened.failed(0).read_text() == "KeyError: 'a key' is missing"


def test_what_the_statistics_depend_on_has_a_folder_of_its_own(make_config):
    config = make_config({"demos": ([3], "clean", {"last_step": "keep"})}, shards=1)

    def folder(**fields):
        config.update(fields)
        return work_lib.pieces(Work.of(config, None), "demos").folder

    assert folder() == folder(history=7) != folder(observation=("state",))


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[:-9],
        lambda b: b"",
        lambda b: gzip.compress(b"{}"),
        lambda b: b[:10] + b"\xff" + b[11:],  # no deflate stream
    ],
)
def test_a_damaged_file_of_a_part(begun, damage):
    work, opened = begun
    work_lib.measure(work, ("demos", 0))
    path = opened.path(0)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"{path} was damaged .*: the same command"):
        work_lib.read(path)
    assert not path.exists()


def test_marks_of_a_source_without_files(begun):
    class Own:
        shard_lengths = [1]

    assert work_lib.are_known(Own())
    assert not work_lib.are_known(begun[1].source)
    work_lib.keep_marks(begun[1].source, [])
    assert work_lib.are_known(begun[1].source)
    assert len(marks.read(begun[1].source.directory)) == 4


def test_a_part_survives_its_file_bit_for_bit(begun, tmp_path):
    source = begun[1].source
    part = parts.measure(source, range(4))
    work_lib.write(tmp_path / "x.json.gz", part, [])
    back, found = work_lib.read(tmp_path / "x.json.gz")
    assert found == [] and statistics.settings(source)
    for name, moments in part.fields.items():
        for field in ("mean", "m2", "min", "max"):
            ours, theirs = getattr(back.fields[name], field), getattr(moments, field)
            np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(back.fields[name].tails.keys, moments.tails.keys)
