"""Sides of a comparison, each in processes of its own, which run only during their turns."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

MEASURES = ("rate", "cpu")  # rows/s, and the processor's microseconds a row


def group_seconds() -> float:
    """Returns the processor time, user and system, of all processes of this process group."""
    ticks, group = 0, os.getpgrp()
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[2]) == group:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def serve(side: Iterator[np.ndarray], warm_up: int) -> None:
    """Answers lines (numbers of batches) with turns; first sends the mean of some batches."""
    print(json.dumps(float(np.mean([next(side).mean() for _ in range(warm_up)]))), flush=True)
    for line in sys.stdin:
        cpu, begin, rows = group_seconds(), time.perf_counter(), 0
        for _ in range(int(line)):
            rows += len(next(side))
        seconds = time.perf_counter() - begin
        answer = {"rate": rows / seconds, "cpu": (group_seconds() - cpu) / rows * 1e6}
        print(json.dumps(answer), flush=True)


class Side:
    """A command whose program calls ``serve``, with the processes that it starts.

    Attributes:
      mean: what ``serve`` sends first.
    """

    def __init__(self, command: Sequence[str]):
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            start_new_session=True,
        )
        self.mean = self._answer()

    def _answer(self) -> Any:
        line = self._process.stdout.readline()
        if not line:
            self.close()
            self._errors.seek(0)
            command = " ".join(self._process.args)
            raise ChildProcessError(f"{command} ended: {self._errors.read()[-1000:]}")
        os.killpg(self._process.pid, signal.SIGSTOP)
        return json.loads(line)

    def turn(self, count: int) -> dict[str, float]:
        """Runs for ``count`` batches; returns ``MEASURES``."""
        os.killpg(self._process.pid, signal.SIGCONT)
        print(count, file=self._process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        """Kills it: it holds nothing, and its own end waits for batches read ahead."""
        with contextlib.suppress(ProcessLookupError):  # it has been closed
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@contextlib.contextmanager
def started(commands: Iterable[Sequence[str]]) -> Iterator[list[Side]]:
    """Starts a side of each command; closes all at the end, also where one does not start."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(contextlib.closing(Side(c))) for c in commands]


def take_turns(
    sides: Sequence[Side], repeats: int, seconds: float, batch: int
) -> dict[str, np.ndarray]:
    """Returns ``repeats`` turns of about ``seconds``, [repeats, sides] by measure.

    Two rounds before them find the number of batches of each side, of ``batch`` rows.
    """
    counts = [8] * len(sides)
    for _ in range(2):
        rates = [side.turn(count)["rate"] for side, count in zip(sides, counts, strict=True)]
        counts = [max(4, int(seconds * rate / batch)) for rate in rates]
    turns = [
        [side.turn(count) for side, count in zip(sides, counts, strict=True)]
        for _ in range(repeats)
    ]
    return {m: np.array([[side[m] for side in row] for row in turns]) for m in MEASURES}


def of_module(module: str, *flags: str) -> list[str]:
    """Returns the command ``python -m <module>`` with these flags."""
    return [sys.executable, "-m", module, *flags]


def pair_cells(turns: dict[str, np.ndarray]) -> list[str]:
    """Returns a cell of each of two sides and one of their ratio, by measure: in which the first is
    ahead where the ratio is above 1."""
    cells = []
    for measure, ahead in zip(MEASURES, (0, 1), strict=True):
        values = turns[measure]
        ratios = values[:, ahead] / values[:, 1 - ahead]
        for numbers, form in ((values[:, 0], ",.0f"), (values[:, 1], ",.0f"), (ratios, ".2f")):
            cells.append(cell(numbers, form))
    return cells


def cell(values: np.ndarray, form: str) -> str:
    """Returns "median (least to most)"."""
    low, high = f"{min(values):{form}}", f"{max(values):{form}}"
    return f"{np.median(values):{form}} ({low} to {high})"
