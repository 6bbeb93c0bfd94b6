"""Trains and evaluates the table's policies: one process for each CPU core, or one for all.

A core each is twice as fast as all cores for one: small steps leave a second core idle.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import json
import multiprocessing
import os
import pathlib
import signal
import threading
from collections.abc import Callable, Mapping
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import jax
import ml_collections
import tqdm
from absl import flags, logging

from ambient_jax import mixing
from ambient_jax.cli import console
from ambient_jax.data import mixture as mixtures
from ambient_jax.train import checkpoint, lock, runs, sweep, trainer
from experiments.table import entries, saved
from experiments.table.entries import Entry, Program, Table

# When the parent has ended, so must this process, once the job in hand has saved its state.
_orphaned, _busy = threading.Event(), threading.Lock()


def alone(job: Callable) -> Callable:
    """A job whose last arguments are config and workdir, which it holds (``lock``) while it makes
    what is missing; what only reports reads beside a running one."""

    @functools.wraps(job)
    def run(*args):
        config, workdir = args[-2:]
        reads = config.task.report_only
        with contextlib.nullcontext() if reads else lock.hold(workdir):
            return job(*args)

    return run


@alone
def run(table: Table, base: ml_collections.ConfigDict, workdir: pathlib.Path) -> bool:
    """Trains and evaluates what is missing; False if a signal ended it early.

    With ``base.task.report_only`` it only checks what is there.

    ``base.task`` has ``seeds``, ``one_seed``, ``groups``, ``together`` (policies in one program; 0:
    4 on CPU, all on an accelerator) and ``workers`` (processes; 0: one for each CPU core, or one
    for an accelerator).

    Raises:
      ValueError: see ``check_trained``; also when there is nothing to report.
      RuntimeError: a process died.
    """
    named = table.entries(base.task)
    check_trained(named, base, workdir)
    on_cpu = jax.default_backend() == "cpu"
    together = base.task.together or (4 if on_cpu else 10**6)
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [None]
    workers = base.task.workers or (len(cores) if on_cpu else 1)
    programs = entries.programs(base, named, together)
    left = {
        name: [saved.outdated(*of) for of in table.files(name, config, base, workdir).items()]
        for program in programs
        for name, config in program.items()
    }
    if base.task.report_only:
        if all(map(all, left.values())):
            told = saved.tally(reason for reasons in left.values() for reason in reasons)
            raise ValueError(
                f"{workdir} has no rollouts of this config ({told}), expected some: the same "
                "command without --config.task.report_only makes them"
            )
        return True
    programs = [program for program in programs if any(any(left[name]) for name in program)]
    count = sum(map(len, programs))
    logging.info(
        "%d policies to train or evaluate, as %d programs on %d processes",
        *(count, len(programs), workers),
    )
    for name in left:  # processes of a table that was killed are saving what they have
        lock.await_end(workdir / name)
    bar = tqdm.tqdm(total=count, desc="policies", unit="policy", disable=not count)
    with bar:
        if workers == 1:
            for program in programs:
                if train_and_evaluate(table, program, base, workdir):
                    return False
                bar.update(len(program))
            return True
        context = multiprocessing.get_context("spawn")
        slots = context.Queue()
        for index in range(workers):
            slots.put((index, cores[index % len(cores)]))
        with concurrent.futures.ProcessPoolExecutor(
            workers, mp_context=context, initializer=_start, initargs=(slots,)
        ) as pool:
            jobs = {pool.submit(train_and_evaluate, table, p, base, workdir): p for p in programs}
            try:
                for job in concurrent.futures.as_completed(jobs):
                    if job.result():
                        return False
                    bar.update(len(jobs[job]))
            except BrokenProcessPool as error:
                raise RuntimeError(
                    "a training process died (out of memory?): the same command carries on; "
                    "--config.task.workers=1 needs the least memory"
                ) from error
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
    return True


def check_trained(
    named: Mapping[str, Entry], base: ml_collections.ConfigDict, workdir: pathlib.Path
) -> None:
    """Checks each policy that has a checkpoint, of every seed, against its config and data.

    Raises:
      ValueError: one was trained with another config or on other data (``runs.check_same``), or as
        ``mixtures.open_mixture``.
      FileNotFoundError: its data are gone.
    """
    mixture: dict[str, mixtures.Mixture] = {}
    for name, entry in named.items():
        for seed in base.task.seeds:
            folder = workdir / entries.key(name, seed)
            try:
                assets = checkpoint.load_assets(folder)
            except FileNotFoundError:
                continue
            except ValueError as error:
                if base.task.report_only:
                    raise
                logging.warning("%s", error)  # training sets it aside, or says that none is sound
                continue
            config = entries.config_of(base, name, entry, seed)
            # Policies of one program differ in nothing that the marks of the data hang on.
            shared = sweep.program(config).items()
            section = json.dumps([(n, v) for n, v in shared if n.startswith("data.")])
            if section not in mixture:
                law = trainer.build(mixing, config.law)
                mixture[section] = mixtures.open_mixture(config.data, law)
            runs.check_same(assets, config, mixture[section], folder)


def _start(slots: Any) -> None:
    """Sets up a process: its core, its line on the screen, and an end when its parent ends."""
    index, core = slots.get()
    if core is not None:
        os.sched_setaffinity(0, {core})
    os.environ["TQDM_POSITION"] = str(index + 1)
    os.environ["TQDM_LEAVE"] = "0"
    flags.FLAGS.mark_as_parsed()  # absl's handler complains otherwise
    logging.use_absl_handler()
    console.setup()
    parent = multiprocessing.parent_process()

    def follow():
        parent.join()
        _orphaned.set()
        os.kill(os.getpid(), signal.SIGTERM)  # training saves and returns
        with _busy:
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def train_and_evaluate(
    table: Table, program: Program, base: ml_collections.ConfigDict, workdir: pathlib.Path
) -> str:
    """Trains the policies of one program and evaluates them; returns the signal that ended it."""
    with _busy:
        if _orphaned.is_set():
            return "SIGTERM"
        if stopped := _train(program, workdir):
            return stopped
        table.evaluate(program, base, workdir)
        return ""


def _train(program: Program, workdir: pathlib.Path) -> str:
    # A sweep keeps its policies in step: one that is further must not go back with the others.
    # (Complete ones are only checked to be of these configs.)
    parts: dict[int, Program] = {}
    for name, config in program.items():
        parts.setdefault(saved.step(workdir / name), {})[name] = config
    for part in parts.values():
        (name, config), *others = part.items()
        if entries.is_alone(config) and not others:
            result = trainer.train(config, workdir / name)
        else:
            result = sweep.train(part, workdir)
        if result.signal:
            return result.signal
    return ""
