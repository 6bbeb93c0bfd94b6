"""Trains and evaluates a table's policies: one process for each CPU core, or one for all.

One core per process is twice as fast as all cores for one: small steps leave a second core idle.
"""

import concurrent.futures
import contextlib
import json
import multiprocessing
import os
import pathlib
import signal
import threading
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import jax
import tqdm
from absl import flags, logging

from ambient_jax import mixing
from ambient_jax.cli import console
from ambient_jax.data import mixture as mixtures
from ambient_jax.data.paths import expanded
from ambient_jax.train import checkpoint, lock, runs, sweep, trainer
from experiments import checks
from experiments.table import cache, policies, rollouts
from experiments.table.experiment import Experiment, Table
from experiments.table.policies import Config, Program

# When the parent has ended, so must this process, once the job in hand has saved its state.
_orphaned, _busy = threading.Event(), threading.Lock()


def run(experiment: Experiment, config: Config, workdir: str | os.PathLike[str]) -> None:
    """Builds the data, trains and rolls out what is missing and prints the report.

    The same command carries on, policy by policy. Meanwhile it holds the workdir's ``lock``; with
    ``config.task.report_only`` it only reads, also beside a running one.
    """
    with contextlib.nullcontext() if config.task.report_only else lock.hold(workdir):
        checks.same_task(config.task, experiment.get_config().task)
        experiment.check(config)  # before data are built: what is wrong is said at once
        experiment.policies(config.task, {})
        if not config.task.report_only:
            experiment.build(config)
        folder = pathlib.Path(expanded(workdir))
        annotations = experiment.annotate(config, folder) if experiment.annotate else {}
        table = Table(experiment, config, folder, annotations)
        done = train_and_evaluate(table)
        if done and experiment.baselines and "baselines" in config.task.groups:
            more = experiment.baselines(table)
            table = Table(experiment, config, folder, {**annotations, **more})
            done = train_and_evaluate(table)
        if not done:
            logging.warning("interrupted: the same command carries on")
            return
        if experiment.confirm and not config.task.report_only:
            experiment.confirm(table)
        print(experiment.report(table))


def train_and_evaluate(table: Table) -> bool:
    """Trains and evaluates what is missing; False if a signal ended it early.

    With ``task.report_only`` it only checks what is there. ``task.together`` is the number of
    policies in one program (0: 4 on CPU, all on an accelerator), ``task.workers`` that of processes
    (0: one for each CPU core, or one for an accelerator).
    """
    task, workdir = table.config.task, table.workdir
    check_trained(table)
    on_cpu = jax.default_backend() == "cpu"
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [None]
    workers = task.workers or (len(cores) if on_cpu else 1)
    together = task.together or (4 if on_cpu else 10**6)
    programs = policies.programs(table.config, table.rows, together)
    left = {
        key: [cache.outdated(*file) for file in table.files(key, config).items()]
        for program in programs
        for key, config in program.items()
    }
    if task.report_only:
        if all(map(all, left.values())):
            reasons = cache.tally(reason for reasons in left.values() for reason in reasons)
            raise ValueError(
                f"{workdir} has no rollouts of this config ({reasons}), expected some: the same "
                "command without --config.task.report_only makes them"
            )
        return True
    programs = [program for program in programs if any(any(left[key]) for key in program)]
    count = sum(map(len, programs))
    logging.info(
        "%d policies to train or evaluate, as %d programs on %d processes",
        *(count, len(programs), workers),
    )
    for key in left:  # processes of a table that was killed are saving what they have
        lock.await_end(workdir / key)
    with tqdm.tqdm(total=count, desc="policies", unit="policy", disable=not count) as bar:
        if workers == 1:
            for program in programs:
                if _train_and_evaluate(table, program):
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
            jobs = {pool.submit(_train_and_evaluate, table, p): p for p in programs}
            try:
                for job in concurrent.futures.as_completed(jobs):
                    if job.result():
                        return False
                    bar.update(len(jobs[job]))
            except BrokenProcessPool as error:
                raise ChildProcessError(
                    "a training process died (out of memory?): the same command carries on; "
                    "--config.task.workers=1 needs the least memory"
                ) from error
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
    return True


def check_trained(table: Table) -> None:
    """Checks each policy that has a checkpoint, of every seed, against its config and data
    (ValueError); FileNotFoundError if its data are gone."""
    mixture: dict[str, mixtures.Mixture] = {}
    for name in table.rows:
        for seed in table.config.task.seeds:
            folder = table.folder(name, seed)
            try:
                assets = checkpoint.load_assets(folder)
            except FileNotFoundError:
                continue
            except ValueError as error:
                if table.config.task.report_only:
                    raise
                logging.warning("%s", error)  # training sets it aside, or says that none is sound
                continue
            config = table.config_of(name, seed)
            # Policies of one program have the same fingerprints of their data.
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


def _train_and_evaluate(table: Table, program: Program) -> str:
    """Trains the policies of one program and rolls them out; returns the signal that ended it."""
    with _busy:
        if _orphaned.is_set():
            return "SIGTERM"
        # A sweep keeps its policies in step: one that is further must not go back with the others.
        # (Complete ones are only checked to be of these configs.)
        parts: dict[int, Program] = {}
        for key, config in program.items():
            parts.setdefault(cache.step(table.workdir / key), {})[key] = config
        for part in parts.values():
            (key, config), *more = part.items()
            if policies.is_alone(config) and not more:
                result = trainer.train(config, table.workdir / key)
            else:
                result = sweep.train(part, table.workdir)
            if result.signal:
                return result.signal
        rollouts.evaluate(table, program)
        return ""
