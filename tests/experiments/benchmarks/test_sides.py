"""Sides take turns, each with its own command; one that ends is told in one line."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from experiments.benchmarks import sides, videos

FOLDER = str(pathlib.Path(sides.__file__).parent)
ROWS = """
import itertools, sys, time
sys.path.append(sys.argv[1])
import numpy as np
import sides
sides.serve((time.sleep(0.001) or np.full(4, float(sys.argv[2])) for _ in itertools.count()), 2)
"""


def side(value):
    return [sys.executable, "-c", ROWS, FOLDER, str(value)]


def test_sides_take_turns_and_are_closed():
    with sides.started([side(1), side(3)]) as pair:
        assert [one.mean for one in pair] == [1, 3]
        turns = sides.take_turns(pair, repeats=2, seconds=0.01, batch=4)
    assert {name: values.shape for name, values in turns.items()} == {"rate": (2, 2), "cpu": (2, 2)}
    assert (turns["rate"] > 0).all() and (turns["rate"] < 4000).all()  # 4 rows in at least 1 ms
    assert all(one._process.returncode is not None for one in pair)


def test_a_side_that_ends_is_told_and_the_others_are_closed(monkeypatch):
    closed, close = set(), sides.Side.close
    monkeypatch.setattr(sides.Side, "close", lambda one: closed.add(one) or close(one))
    with pytest.raises(ChildProcessError, match="no_such_module ended: .*No module named"):
        with sides.started([side(1), sides.of_module("no_such_module")]):
            pytest.fail("started")
    assert len(closed) == 2
    assert all(one._process.returncode is not None for one in closed)


def test_cells_of_a_pair_and_their_ratio():
    """More rows and less processor time are ahead."""
    turns = {"rate": np.array([[30.0, 10], [40, 10]]), "cpu": np.array([[5.0, 20], [5, 30]])}
    cells = sides.pair_cells(turns)
    assert cells[:3] == ["35 (30 to 40)", "10 (10 to 10)", "3.50 (3.00 to 4.00)"]
    assert cells[3:] == ["5 (5 to 5)", "25 (20 to 30)", "5.00 (4.00 to 6.00)"]


def test_the_command_ends_with_one_line():
    command = [sys.executable, "-m", "experiments.benchmarks.videos", "--codec=h264"]
    env = {**os.environ, videos.VARIABLE: "/bin/false"}
    ended = subprocess.run(command, env=env, capture_output=True, text=True)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert "error: LeRobot wrote no data set" in ended.stderr


def test_the_lerobot_side_runs_beside_its_own_package(tmp_path):
    """Its Python has no experiments: only the folder of the script is importable."""
    (tmp_path / "lerobot/datasets").mkdir(parents=True)
    (tmp_path / "lerobot/datasets/lerobot_dataset.py").write_text(
        "class LeRobotDataset(list):\n"
        "    def __init__(self, *args, root):\n"
        "        self.video_backend = root\n"
    )
    (tmp_path / "torch.py").write_text(
        "import types\n"
        "import numpy as np\n"
        "frames = types.SimpleNamespace(numpy=lambda: np.full((64, 3, 2, 2), 0.5))\n"
        "loader = lambda data, **options: [{'front': frames}]\n"
        "utils = types.SimpleNamespace(data=types.SimpleNamespace(DataLoader=loader))\n"
    )
    script = f"{FOLDER}/videos_lerobot.py"
    command = ["env", f"PYTHONPATH={tmp_path}", sys.executable, script, "folder", "front", "1"]
    with sides.started([command]) as [one]:
        assert one.mean == 0.5 and one.turn(3)["rate"] > 0
