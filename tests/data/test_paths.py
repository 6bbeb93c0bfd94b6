import pathlib

import numpy as np
import pytest

from ambient_jax.data import bounds, paths, rlds, statistics, write
from ambient_jax.data.rlds_source import RldsSource
from ambient_jax.transforms import instructions


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("~", "/home/me"),
        ("~/run", "/home/me/run"),
        (pathlib.Path("~/run"), "/home/me/run"),
        ("run/~", "run/~"),
        ("run", "run"),
        ("/run", "/run"),
        ("~nobodyhere/run", "~nobodyhere/run"),
        ("gs://bucket/run", "gs://bucket/run"),
        ("", ""),
    ],
)
def test_the_home_stands_for_a_leading_tilde(given, meant, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert paths.expanded(given) == meant


@pytest.mark.parametrize(
    ("root", "path", "meant"),
    [
        ("data", "good", "data/good"),
        ("~/data", "good", "/home/me/data/good"),
        ("", "good", "good"),
        ("", "~/good", "/home/me/good"),
        ("data", "~/good", "/home/me/good"),
        ("~/data", "/good", "/good"),
        ("data", "gs://bucket/good", "gs://bucket/good"),
        ("gs://bucket", "good", "gs://bucket/good"),
    ],
)
def test_a_path_below_a_root(root, path, meant, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert paths.below(root, path) == meant


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "table.json"
    paths.write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), paths.replacing(path) as file:
        file.write(b"half")
        assert path.read_text() == "old"
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    paths.write_text(path, "\u03c3 new")
    assert path.read_text(encoding="utf-8") == "\u03c3 new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    final = tmp_path / "above" / "data"
    for content in ("old", "new"):
        with paths.replacing_folder(final, overwrite=True) as partial:
            (partial / "a.txt").write_text(content)
            assert partial.parent == final.parent and partial.name.startswith(".data.")
            assert not final.exists() or (final / "a.txt").read_text() == "old"
    with pytest.raises(KeyboardInterrupt), paths.replacing_folder(final, True) as partial:
        (partial / "a.txt").write_text("half")
        raise KeyboardInterrupt
    with pytest.raises(FileExistsError, match="data exists: choose another version, or pass"):
        with paths.replacing_folder(final, other="version"):
            raise AssertionError("it does not begin")
    late = final.with_name("late")
    with pytest.raises(FileExistsError, match="late exists"), paths.replacing_folder(late):
        late.mkdir()  # by another process in the meantime
    late.rmdir()
    assert [p.name for p in final.parent.iterdir()] == ["data"]
    assert (final / "a.txt").read_text() == "new"


def test_a_folder_that_cannot_be_replaced_stays(tmp_path):
    final = tmp_path / "d[1]"
    final.mkdir()
    (final / "a.txt").write_text("old")
    with pytest.raises(FileNotFoundError), paths.replacing_folder(final, True) as partial:
        partial.rmdir()
    assert [p.name for p in tmp_path.iterdir()] == ["d[1]"]
    final.rename(tmp_path / ".d[1].replaced-12345678")  # as a killed process leaves it
    with pytest.raises(FileExistsError, match="exists: choose another folder"):
        with paths.replacing_folder(final):
            raise AssertionError("it does not begin")
    assert [p.name for p in tmp_path.iterdir()] == ["d[1]"]
    assert (final / "a.txt").read_text() == "old"


def test_what_must_be_local_is_no_url(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = "'gs://b/x', expected a local path: copy it to a bucket afterwards"
    with pytest.raises(ValueError, match=f"the new folder is {told}"):
        with paths.replacing_folder("gs://b/x"):
            raise AssertionError("it does not begin")
    table = bounds.for_source("copy", "0", [0], [0], [0.5], [0.2], method="known")
    with pytest.raises(ValueError, match=f"the bounds file is {told}"):
        bounds.write("gs://b/x", table)
    assert not list(tmp_path.iterdir())


def test_data_are_written_to_and_read_from_the_home(toy_data, tmp_path, monkeypatch):
    """All that the data layer opens by a path; nothing named ~ is made where it runs."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    good = rlds.open_dataset(toy_data["good"])
    options = dict(name="copy", version="1.0.0", features=good.features)
    made = write.write_dataset("~/data", episodes=list(good), **options)
    assert pathlib.Path(made) == tmp_path / "home" / "data" / "copy" / "1.0.0"
    copy = rlds.open_dataset("~/data/copy")
    assert len(copy) == len(good)
    statistics.compute(RldsSource(copy, observation=("state",)), cache="~/cache")
    assert list((tmp_path / "home" / "cache").iterdir())
    table = instructions.InstructionTable(("go",), np.ones((1, 2), np.float32))
    instructions.save_instructions("~/told.npz", table)
    assert instructions.load_instructions("~/told.npz").text == ("go",)
    each = bounds.for_source("copy", copy.fingerprint, [0], [0], [0.5], [0.2], method="known")
    assert bounds.write("~/bounds.parquet", each) == tmp_path / "home" / "bounds.parquet"
    assert len(bounds.read("~/bounds.parquet").sigma_min) == 1
    assert not list((tmp_path / "here").iterdir())
