"""A side that ends is told in one line."""

import os
import subprocess
import sys

import pytest

from experiments.benchmarks import sides, videos


def test_a_side_that_ends_is_told_with_its_error():
    with pytest.raises(ChildProcessError, match="no_such_module ended: .*No module named"):
        sides.Side("no_such_module", [])


def test_the_command_ends_with_one_line():
    command = [sys.executable, "-m", "experiments.benchmarks.videos", "--codec=h264"]
    env = {**os.environ, videos.VARIABLE: "/bin/false"}
    ended = subprocess.run(command, env=env, capture_output=True, text=True)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert "error: LeRobot wrote no data set" in ended.stderr
