"""Command lines of flags alone; bad input ends the program with one line."""

import logging as python_logging

import pytest
from absl import flags, logging

from ambient_jax._packages import MissingError
from ambient_jax.cli import console


@pytest.fixture
def values():
    values = flags.FlagValues()
    flags.DEFINE_integer("count", 3, "How many.", lower_bound=0, flag_values=values)
    return values


@pytest.fixture
def verbosity():
    before = logging.get_verbosity()
    yield logging.set_verbosity
    logging.set_verbosity(before)


def test_flags_are_parsed(values):
    assert console.parse(["program", "--count=5"], values) == ["program"]
    assert values.count == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--count=many"], "--count=many"),
        (["--count=-1"], "flag --count=-1: .*(--help lists the flags)"),
        (["--cuont=5"], "Unknown command line flag 'cuont'"),
        (["5"], r"unexpected arguments \['5'\], expected flags such as --help"),
    ],
)
def test_a_wrong_command_line_ends_in_one_line(values, verbosity, arguments, message):
    verbosity(logging.INFO)
    with pytest.raises(SystemExit, match=message) as caught:
        console.parse(["program", *arguments], values)
    line, hint = str(caught.value).splitlines()
    assert line.startswith("error: ") and hint == "(--verbosity=1 shows the traceback)"


def fail(error, argv=()):
    with console.one_line_errors(argv):
        raise error


@pytest.mark.parametrize(
    "kind", [ValueError, FileNotFoundError, PermissionError, FloatingPointError, MissingError]
)
def test_bad_input_is_one_line_and_a_traceback_if_asked_for(verbosity, kind):
    verbosity(logging.INFO)
    with pytest.raises(SystemExit, match=r"^error: a b c\n\(--verbosity=1"):
        fail(kind("a\n  b\tc"))
    for asked in ("--verbosity=1", "-v=2"):
        with pytest.raises(kind):
            fail(kind("a"), ["program", asked])
    with pytest.raises(SystemExit):
        fail(kind("a"), ["program", "--verbosity=0"])
    verbosity(logging.DEBUG)
    with pytest.raises(kind):
        fail(kind("a"))


def test_faults_of_the_program_keep_their_traceback(verbosity):
    verbosity(logging.INFO)
    faults = (TypeError, KeyError, RuntimeError, ZeroDivisionError, ImportError)
    for error in (kind("a") for kind in faults):
        with pytest.raises(type(error)):
            fail(error)


@pytest.mark.parametrize(
    ("path", "level", "shown"),
    [
        ("/site-packages/orbax/checkpoint.py", python_logging.INFO, False),
        ("/site-packages/tensorflow_datasets/core.py", python_logging.INFO, False),
        ("/site-packages/orbax/checkpoint.py", python_logging.WARNING, True),
        ("/home/me/ambient_jax/train/loop.py", python_logging.INFO, True),
    ],
)
def test_libraries_say_no_more_than_warnings(verbosity, path, level, shown):
    handler = logging.get_absl_handler()
    filters, formatter = list(handler.filters), handler.python_handler.formatter
    verbosity(logging.WARNING)
    try:
        console.setup()
        assert logging.get_verbosity() == logging.INFO
        record = python_logging.LogRecord("absl", level, path, 1, "text %d", (5,), None)
        assert bool(handler.filter(record)) == shown
        assert handler.format(record) == "text 5"
    finally:
        handler.filters[:] = filters
        handler.setFormatter(formatter)
