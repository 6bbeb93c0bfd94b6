"""Files damaged at random are refused in one line or read as before, in bounded memory and time."""

import pathlib
import subprocess
import sys

import pytest

COUNT = 60


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_random_damage(tmp_path, file_format):
    script = pathlib.Path(__file__).with_name("damage.py")
    command = [sys.executable, str(script), str(tmp_path), file_format, str(COUNT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, f"{done.returncode}: {done.stdout} {done.stderr[-2000:]}"
    assert done.stdout.startswith("refused and read "), done.stdout
    assert done.stdout.count("\n") == 1, done.stdout
