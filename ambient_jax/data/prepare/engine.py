"""Runs the parts on Apache Beam, or in this process, and shows how many are done."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

import tqdm

from ambient_jax import _packages
from ambient_jax.data.files import first_line
from ambient_jax.data.prepare import worker

Task = tuple[str, int]  # source and number of its part
_POLL = 1.0  # s between two looks at what is done
_CHOOSES = re.compile(r"--(runner|direct_running_mode|environment_type)\b")


def run(
    make: Callable[[Task], None],
    tasks: Sequence[Task],
    count: Callable[[], int],
    processes: int,
    options: Sequence[str] = (),
) -> str:
    """Makes parts; returns why the engine ended before all were tried, "" if it did not.

    Args:
      make: makes one part; other processes get it pickled.
      tasks: the parts.
      count: tells how many have ended, for the bar.
      processes: worker processes of Beam's DirectRunner; 0 for this process, without Beam.
      options: Beam's options. With "--runner=..." or "--direct_running_mode=..." they choose what
        runs, in place of the worker processes here.

    Raises:
      ImportError: Beam is not installed.
    """
    if not processes:
        with _progress(tasks, None) as bar:
            for task in tasks:
                make(task)
                bar.update()
        return ""
    beam = _module("apache_beam")
    flags = [f"--direct_num_workers={processes}", "--default_sdk_harness_log_level=CRITICAL"]
    module = _module("apache_beam.options.pipeline_options")
    parsed = module.PipelineOptions([*flags, *options])
    runner = None if any(map(_CHOOSES.match, options)) else _direct_runner()
    lost: list[str] = []
    try:
        with _progress(tasks, count), _workers_watched(lost):
            with beam.Pipeline(runner, options=parsed) as pipeline:
                # Without a reshuffle, one worker would get all.
                spread = pipeline | beam.Create(list(tasks)) | beam.Reshuffle()
                _ = spread | "Make" >> beam.Map(make)
    except _WorkerLost:
        return f"{lost[0]}: is there enough memory?"
    except Exception as error:  # a runner raises what it likes
        return f"{type(error).__name__}: {first_line(error)}"
    return ""


def split(texts: Sequence[str]) -> list[str]:
    """Returns Beam's options from "--runner=FlinkRunner,--parallelism=8" or "runner=... ..."."""
    found = [o for text in texts for o in re.split(r"[,\s]+(?=--|\w+=)", text.strip()) if o]
    return [option if option.startswith("--") else f"--{option}" for option in found]


def _module(name):
    logging.disable(logging.WARNING)  # of optional packages that Beam tries to import
    try:
        otherwise = ", or --processes=0 to use this process"
        return _packages.need(name, "preparing in other processes", "beam", otherwise=otherwise)
    finally:
        logging.disable(logging.NOTSET)
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)


def _direct_runner():
    """Returns DirectRunner's runner of worker processes, with ``worker`` as the process."""
    environments = _module("apache_beam.transforms.environments")
    command = f"exec {shlex.quote(sys.executable)} -m {worker.__name__} {os.getpid()}"
    return _module("apache_beam.runners.portability.fn_api_runner").FnApiRunner(
        environments.SubprocessSDKEnvironment.from_command_string(command)
    )


class _WorkerLost(BaseException):
    pass


@contextlib.contextmanager
def _workers_watched(lost: list[str]) -> Iterator[None]:
    """Interrupts this thread, if it is the main one, when a worker process dies, for which
    DirectRunner waits for ever; ``lost`` says so."""
    hook, caller = threading.excepthook, threading.current_thread()

    def watch(arguments):
        error = arguments.exc_value
        if "Worker subprocess exited" in str(error):
            lost.append(first_line(error))
            if len(lost) == 1 and caller is threading.main_thread():
                signal.pthread_kill(caller.ident, signal.SIGUSR1)  # a real signal ends a wait
        elif not type(error).__module__.startswith("grpc"):  # of the worker's connections
            hook(arguments)

    def interrupt(*_):
        raise _WorkerLost

    if caller is threading.main_thread():
        handler = signal.signal(signal.SIGUSR1, interrupt)
    threading.excepthook = watch
    try:
        yield
    finally:
        threading.excepthook = hook
        if caller is threading.main_thread():
            signal.signal(signal.SIGUSR1, handler)


@contextlib.contextmanager
def _progress(tasks: Sequence[Task], count: Callable[[], int] | None) -> Iterator[tqdm.tqdm]:
    """Shows a bar, which follows ``count`` if it is given."""
    ended = threading.Event()
    with tqdm.tqdm(total=len(tasks), desc="shards", unit="shard") as bar:

        def follow():
            while not ended.wait(_POLL):
                bar.update(count() - bar.n)

        thread = threading.Thread(target=follow, daemon=True)
        if count:
            thread.start()
        try:
            yield bar
        finally:
            ended.set()
            if count:
                thread.join()
                bar.update(count() - bar.n)
