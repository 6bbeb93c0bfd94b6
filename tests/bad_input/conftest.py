"""The table of bad inputs: each is refused in one line, within seconds; nothing trains.

The modules beside this one hold ``CASES`` by name, ``(act, told)``: ``act(bench)`` does what a user
would do wrong, ``told`` is a regular expression that the one line has to match. ``WARNED`` are
doubts, which one line of the log tells. ``test_table.py`` runs them all.
"""

import contextlib
import logging
import re
import signal

import pytest

from ambient_jax.data import statistics

LIMIT = 20  # s: no refusal takes so long, a hang does
# What a command prints as one line, see ``ambient_jax.cli.console``; SystemExit is a command's end.
REFUSALS = (ValueError, OSError, TypeError, FloatingPointError, SystemExit)


class Bench:
    """Where a case works: a folder of its own, and the data sets that all cases share.

    Attributes:
      path: an empty folder.
      toy: paths of two RLDS data sets by name, see ``tests/conftest.py``.
      monkeypatch: undone after the case.
    """

    def __init__(self, path, toy, monkeypatch):
        self.path, self.toy, self.monkeypatch = path, toy, monkeypatch


@pytest.fixture
def bench(tmp_path, toy_data, monkeypatch, tmp_path_factory):
    cache = tmp_path_factory.getbasetemp() / "statistics"
    monkeypatch.setenv(statistics.CACHE_VARIABLE, str(cache))
    return Bench(tmp_path, toy_data, monkeypatch)


@pytest.fixture
def refused(bench, capsys):
    """``refused(act, told)``: the act ends in one line that matches, and in nothing else."""

    def check(act, told):
        with in_time(), pytest.raises(REFUSALS) as caught:
            act(bench)
        line = str(caught.value)
        if isinstance(caught.value, SystemExit):
            line = f"{line if not line.isdigit() else ''}{capsys.readouterr().err}"
            line = line.removesuffix("\n(--verbosity=1 shows the traceback)")
        line = line.strip()
        assert re.search(told, line), line
        assert "\n" not in line and "Traceback" not in line, line
        assert len(line) < 700, line

    return check


@pytest.fixture
def warned(bench):
    """``warned(act, told)``: the act succeeds, and one line of the log at WARNING matches."""

    def check(act, told):
        lines = []
        handler = logging.Handler(logging.WARNING)
        handler.emit = lambda record: lines.append(record.getMessage())
        logger = logging.getLogger("absl")
        logger.addHandler(handler)
        try:
            with in_time():
                act(bench)
        finally:
            logger.removeHandler(handler)
        found = [line for line in lines if re.search(told, line)]
        assert found, lines
        assert not any("\n" in line for line in found), found

    return check


@contextlib.contextmanager
def in_time():
    """Ends a case that hangs."""

    def stop(*_):
        pytest.fail(f"hangs: no answer in {LIMIT} s")

    old = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
