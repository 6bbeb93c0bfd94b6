"""The command: what it prints and writes, its exit code, and its one line for bad input."""

import importlib.util
import subprocess
import sys
import types

import pytest

from ambient_jax.data import __main__ as main
from tests.data.look import folders


@pytest.fixture
def folder(tmp_path, monkeypatch):
    path = folders.write(tmp_path / "set", folders.episodes(), pictures="image")
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    return path


def test_prints_and_writes_the_page(folder, tmp_path, capsys):
    main.main([folder])
    out = capsys.readouterr().out
    assert "data set  set v2.1" in out and out.endswith("pictures and plots: set.html\n")
    text = (tmp_path / "out/set.html").read_text()
    assert text.startswith("<!DOCTYPE html>") and text.count("<img") == 3 * 6
    main.main(["look", folder, "--html", str(tmp_path / "mine.html"), "--episodes", "1"])
    assert (tmp_path / "mine.html").read_text().count("<img") == 6
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_html_none_writes_nothing(folder, tmp_path, capsys):
    main.main([folder, "--html=none", "--split=train[:2]"])
    assert "episodes  2\n" in capsys.readouterr().out
    assert list((tmp_path / "out").iterdir()) == []


def test_damaged_episodes_do_not_end_it(folder, tmp_path, capsys):
    (tmp_path / "set/data/chunk-000/episode_000001.parquet").write_bytes(b"PAR1 cut")
    main.main([folder])
    out = capsys.readouterr().out
    assert "episodes  3 (1 unreadable)" in out and "episode_000001.parquet cannot be read" in out


def test_problems_that_decoding_finds_are_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shown = lambda e, step: folders.picture(e, 2 if step == 3 else step)  # noqa: E731
    data = folders.episodes(lengths=(9, 9))
    main.main([folders.write(tmp_path / "set", data, pictures="video", shown=shown)])
    out = capsys.readouterr().out
    assert "repeated pictures         2        0  images.front: 1 of 9 pictures" in out


def test_rate_of_the_registry_or_of_the_user(write_source, capsys):
    path = write_source("bridge_dataset", [5, 6])
    main.main([path, "--html=none"])
    assert "rate      5 Hz" in capsys.readouterr().out
    main.main([path, "--html=none", "--hz=2.5"])
    assert "rate      2.5 Hz" in capsys.readouterr().out
    main.main([write_source("other", [5, 6]), "--html=none"])
    assert "rate      unknown" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, wrong",
    [
        (["{empty}"], "is no TFDS dataset"),
        (["{empty}/none"], "does not exist"),
        (["{set}", "--split=vall"], "has no split 'vall'"),
        (["{set}", "--episodes=-1"], "--episodes is -1"),
        (["{set}", "--hz=0"], "--hz is 0.0, expected a rate above 0"),
        (["{set}", "--html={empty}"], "is the folder"),
        (["{set}", "--html={empty}/a/b.html"], "b.html"),
    ],
)
def test_bad_input_is_one_line(folder, tmp_path, arguments, wrong):
    (tmp_path / "empty").mkdir()
    given = [a.format(empty=tmp_path / "empty", set=folder) for a in arguments]
    with pytest.raises(SystemExit) as stopped:
        main.main(given)
    line = stopped.value.code
    assert isinstance(line, str) and line.startswith("error: ") and "\n" not in line
    assert wrong in line


@pytest.mark.slow
def test_exit_codes_of_the_process(folder, tmp_path):
    run = [sys.executable, "-m", "ambient_jax.data"]
    root = str(importlib.util.find_spec("ambient_jax").submodule_search_locations[0])[:-12]
    options = dict(capture_output=True, text=True, cwd=root)
    bad = subprocess.run([*run, str(tmp_path / "out")], **options)
    assert bad.returncode == 1 and bad.stdout == "" and len(bad.stderr.splitlines()) == 1
    good = subprocess.run([*run, folder, "--html=none"], **options)
    assert good.returncode == 0 and good.stderr == "" and "What is wrong" in good.stdout


def test_convert_is_another_command(monkeypatch):
    calls = []
    module = types.ModuleType("ambient_jax.data.convert")
    module.main = calls.append
    monkeypatch.setitem(sys.modules, "ambient_jax.data.convert", module)
    main.main(["convert", "a", "--to=rlds"])
    assert calls == [["a", "--to=rlds"]]
