"""The host loop, which dispatches steps and waits for one only to save."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import tqdm

from ambient_jax.train import parallel


class StopSignal:
    """Turns SIGTERM (preemption) and SIGINT into a flag inside the block."""

    def __enter__(self):
        self.received = ""
        self._old = {}
        if threading.current_thread() is threading.main_thread():
            for s in (signal.SIGTERM, signal.SIGINT):
                self._old[s] = signal.signal(s, self._set)
        return self

    def _set(self, number, frame):
        self.received = signal.Signals(number).name

    def __exit__(self, *_):
        for s, handler in self._old.items():
            signal.signal(s, handler)


def run(
    state: Any,
    step_fn: Callable[[Any, Any], Any],
    batches: Iterator[Any],
    *,
    start: int,
    steps: int,
    log_every: int,
    checkpoint_every: int,
    take_sums: Callable[[Any], tuple[Any, Any]],
    report: Callable[[int, Any, dict], None],
    save: Callable[[int, Any], None],
) -> tuple[Any, str]:
    """Runs steps ``start`` to ``steps``; ``step_fn`` donates the state, batches are on devices.

    Args:
      take_sums: ``state -> (state with empty sums, sums)``, asynchronous as ``step_fn``.
      report: ``(step, sums on device, timing)``; called one interval late, so that it never waits.
      save: ``(step, state)``.

    Returns:
      The last state and the name of the signal that ended the run early, or "".
    """
    pending, stop = None, ""
    begin, last = time.perf_counter(), start
    shown = dict(desc="train", unit="step", mininterval=1.0, disable=jax.process_index() != 0)
    with StopSignal() as signals, tqdm.tqdm(total=steps, initial=start, **shown) as bar:
        for step in range(start + 1, steps + 1):
            state = step_fn(state, next(batches))
            bar.update()
            if step % log_every == 0 or step == steps:
                if pending:
                    report(*pending)
                now = time.perf_counter()
                timing = {"step": step, "steps_per_second": (step - last) / (now - begin)}
                begin, last = now, step
                state, sums = take_sums(state)
                pending = (step, sums, timing)
                stop = signals.received if parallel.any_host(bool(signals.received)) else ""
            elif jax.process_count() == 1:
                stop = signals.received
            if step % checkpoint_every == 0 or step == steps or stop:
                if pending:
                    report(*pending)
                    pending = None
                save(step, state)
            if stop:
                break
    return state, stop
