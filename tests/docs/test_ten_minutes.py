"""The commands of docs/start.md, in their order, as docs.ten_minutes times them."""

import os
import pathlib
import sys

import pytest

from docs import ten_minutes
from tests.docs import commands, test_snippets

STEPS = ten_minutes.commands(ten_minutes.PAGE.read_text())


def test_the_page_has_five_commands_of_one_line():
    assert list(STEPS) == ["Install", "Look at a folder", "Find the bounds", "Train", "Serve"]
    assert not any("\n" in command for command in STEPS.values())


def test_a_failing_command_is_named_with_its_output(tmp_path):
    with pytest.raises(RuntimeError, match="second ended with 3:\nno such word"):
        steps = {"first": "true WORD", "second": "echo no such word; exit 3"}
        ten_minutes.measure(tmp_path, steps, {"WORD": "x"})


def test_times_are_of_each_command(tmp_path):
    times = ten_minutes.measure(tmp_path, {"first": "sleep 0.2", "second": "true"}, {})
    assert times["first"][0] >= 0.2
    assert "| first | 0 | 0 |" in ten_minutes.table(times)


@pytest.mark.slow
@pytest.mark.skipif("ambient_jax.serve" in commands.PENDING, reason="there is no server yet")
def test_all_but_the_installation_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ten_minutes.ROOT))
    monkeypatch.setenv("PATH", f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}")
    words = ten_minutes.write_folders(tmp_path / "data", good=6, other=6)
    steps = {n: test_snippets.small(c) for n, c in STEPS.items() if n != "Install"}
    assert len(ten_minutes.measure(tmp_path, steps, words)) == 4
    assert (tmp_path / "runs/mine/checkpoints").is_dir()
