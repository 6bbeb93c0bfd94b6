import types

import pytest
from absl import logging

from ambient_jax.train import config as config_lib
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


def test_a_workdir_may_begin_with_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    given = dict(_CONFIG=config_lib.default(), _WORKDIR="~/run", _COORDINATOR="")
    for name, value in (given | dict(_NUM_PROCESSES=0, _PROCESS_ID=-1)).items():
        monkeypatch.setattr(launch, name, types.SimpleNamespace(value=value))
    monkeypatch.setattr(console, "setup", lambda: None)
    seen = []
    launch._main("open_x", lambda config, workdir: seen.append(workdir), ["command"])
    assert seen == [f"{tmp_path}/run"]
