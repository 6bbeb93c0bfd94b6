"""A task is a module, or what one holds, with a ``build``."""

import types

import pytest

from ambient_jax.cli import tasks

TASK = types.SimpleNamespace(build=lambda config: None)
NO_TASK = types.SimpleNamespace(build="a text")


def build(config):
    """This module is a task, too."""


def test_a_task_by_each_kind_of_name():
    assert tasks.get("") is None
    for name in (__name__, "here"):
        assert tasks.get(name, {"here": __name__}).build is build
    assert tasks.get(f"{__name__}:TASK") is TASK
    assert tasks.get("held", {"held": f"{__name__}:TASK"}) is TASK


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("maez", "is 'maez', expected one of maze, package.module; did you mean 'maze'"),
        ("no_such.module", "is 'no_such.module', which cannot be imported: No module named"),
        (f"{__name__}:OTHER", "expected package.module:attribute of something importable"),
        (f"{__name__}:NO_TASK", r"NO_TASK', which has no function build\(config\)"),
        ("os.path", "is 'os.path', which has no function build"),
    ],
)
def test_what_is_no_task_is_said(name, message):
    with pytest.raises(ValueError, match=message) as caught:
        tasks.get(name, {"maze": __name__})
    assert str(caught.value).startswith("config.task.name is ")
