import pytest
from absl import logging

from experiments import console, launch, tasks


def test_unknown_task_is_named_with_the_nearest():
    with pytest.raises(
        ValueError, match="task.name is 'maez', expected one of .*maze, .*; did you mean 'maze'"
    ):
        tasks.get("maez")
    assert tasks.get("") is None


@pytest.mark.parametrize("error", [ValueError("a b"), FileNotFoundError("a b")])
def test_bad_input_ends_with_one_line(error):
    with pytest.raises(SystemExit) as ended, console.one_line_errors():
        raise error
    assert str(ended.value).startswith("error: a b\n")


def test_bugs_keep_their_traceback():
    with pytest.raises(TypeError), console.one_line_errors():
        raise TypeError("a bug")


def test_verbosity_shows_the_traceback():
    before = logging.get_verbosity()
    logging.set_verbosity(1)
    try:
        with pytest.raises(ValueError), console.one_line_errors():
            raise ValueError("a b")
    finally:
        logging.set_verbosity(before)


def test_a_bucket_is_no_workdir():
    with pytest.raises(ValueError, match="--workdir is 'gs://b/run', expected a folder that all"):
        launch.check_workdir("gs://b/run")
    launch.check_workdir("runs/open_x/mine")
