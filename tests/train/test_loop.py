import itertools
import os
import signal

import pytest

from ambient_jax.train import loop


class Recorder:
    """A run whose state is the list of batches it saw."""

    def __init__(self, kill_at=None, number=signal.SIGTERM):
        self.reports, self.saves, self.kill_at, self.number = [], [], kill_at, number

    def step(self, state, batch):
        if batch == self.kill_at:
            os.kill(os.getpid(), self.number)
        return [*state, batch]

    def run(self, start=0, steps=10, log_every=3, checkpoint_every=4):
        return loop.run(
            [],
            self.step,
            itertools.count(start + 1),
            start=start,
            steps=steps,
            log_every=log_every,
            checkpoint_every=checkpoint_every,
            take_sums=lambda s: (s, len(s)),
            report=lambda step, sums, timing: self.reports.append((step, sums)),
            save=lambda step, state: self.saves.append(step),
        )


def test_reports_and_saves_come_when_they_should():
    recorder = Recorder()
    state, stopped = recorder.run()
    assert state == list(range(1, 11)) and stopped == ""
    assert recorder.reports == [(3, 3), (6, 6), (9, 9), (10, 10)]
    assert recorder.saves == [4, 8, 10]


def test_a_later_start_only_runs_the_rest():
    recorder = Recorder()
    state, _ = recorder.run(start=8)
    assert state == [9, 10] and recorder.saves == [10]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_save_at_once_and_the_old_handler_returns(number):
    before = signal.getsignal(number)
    recorder = Recorder(kill_at=5, number=number)
    state, stopped = recorder.run()
    assert stopped == signal.Signals(number).name
    assert recorder.saves == [4, 5] and state == [1, 2, 3, 4, 5]
    assert recorder.reports == [(3, 3)]
    assert signal.getsignal(number) is before


def test_a_report_is_written_before_the_checkpoint_that_covers_it():
    order = []
    recorder = Recorder()
    recorder.reports = type("L", (), {"append": lambda _, r: order.append(("report", r[0]))})()
    recorder.saves = type("L", (), {"append": lambda _, s: order.append(("save", s))})()
    recorder.run(steps=6, log_every=2, checkpoint_every=2)
    assert order == [(kind, s) for s in (2, 4, 6) for kind in ("report", "save")]
