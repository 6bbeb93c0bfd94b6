"""Trains and evaluates the table's policies: one process for each CPU core, or one for all.

A core each is twice as fast as all cores for one: small steps leave a second core idle.
"""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import os
import pathlib
import signal
import threading
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import jax
import ml_collections
import numpy as np
import tqdm
from absl import flags, logging

from ambient_jax.policy import evaluation
from ambient_jax.policy.policy import Policy
from ambient_jax.train import checkpoint, host_memory, sweep, trainer
from experiments import console
from experiments.maze import env, levels, policies, task
from experiments.maze.rollout import Rollouts

Program = dict[str, ml_collections.ConfigDict]
# When the parent has ended, so must this process, once the job in hand has saved its state.
_orphaned, _busy = threading.Event(), threading.Lock()


def run(base: ml_collections.ConfigDict, workdir: pathlib.Path) -> bool:
    """Trains and evaluates what is missing; False if a signal ended it early.

    Raises:
      RuntimeError: a process died.
    """
    on_cpu = jax.default_backend() == "cpu"
    together = base.task.together or (4 if on_cpu else 10**6)
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [None]
    workers = base.task.workers or (len(cores) if on_cpu else 1)
    programs = [p for p in policies.programs(base, together) if _missing(p, base, workdir)]
    count = sum(map(len, programs))
    logging.info(
        "%d policies to train or evaluate, as %d programs on %d processes",
        *(count, len(programs), workers),
    )
    bar = tqdm.tqdm(total=count, desc="policies", unit="policy", disable=not count)
    with bar:
        if workers == 1:
            for program in programs:
                if train_and_evaluate(program, base, workdir):
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
            jobs = {pool.submit(train_and_evaluate, p, base, workdir): p for p in programs}
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


def _start(slots: Any) -> None:
    """Sets up a process: its core, its line on the screen, and an end when its parent ends."""
    index, core = slots.get()
    if core is not None:
        os.sched_setaffinity(0, {core})
    os.environ["TQDM_POSITION"] = str(index + 1)
    os.environ["TQDM_LEAVE"] = "0"
    host_memory.keep_freed_memory()
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
    program: Program, base: ml_collections.ConfigDict, workdir: pathlib.Path
) -> str:
    """Trains the policies of one program and rolls them out; returns the signal that ended it."""
    with _busy:
        return "SIGTERM" if _orphaned.is_set() else _train_and_evaluate(program, base, workdir)


def _train_and_evaluate(program, base, workdir):
    # A sweep keeps its policies in step: one that is further must not go back with the others.
    # (Complete ones are only checked to be of these configs.)
    parts: dict[int, Program] = {}
    for name, config in program.items():
        parts.setdefault(_step(workdir / name), {})[name] = config
    for part in parts.values():
        (name, config), *others = part.items()
        if policies.is_alone(config) and not others:
            result = trainer.train(config, workdir / name)
        else:
            result = sweep.train(part, workdir)
        if result.signal:
            return result.signal
    goals = env.free_goals(np.random.default_rng(base.task.eval_seed), base.task.goals)
    simulators: dict[str, Any] = {}
    for name, config in program.items():
        for solver, steps in solvers(name, base):
            path = rollouts_path(workdir, name, solver, steps)
            about = _about(workdir, name, config, base, solver, steps)
            if _is(path, about):
                continue
            policy = Policy.from_checkpoint(workdir / name, solver=solver, steps=steps)
            # Policies of one program differ in parameters only, so they share a compiled rollout.
            simulate = simulators.setdefault(
                path.name, task.simulator(policy, config.policy.execute)
            )
            _save(path, about, simulate(policy.params, goals, seed=base.task.eval_seed))
        if is_main(name, base) and not (workdir / name / "levels.json").exists():
            _measure_levels(workdir / name, config)
    return ""


def is_main(name: str, base: ml_collections.ConfigDict) -> bool:
    """Whether a policy (``policies.key``) is of the group main and of the first seed."""
    entry = policies.entries(base.task)[name.split("/")[0]]
    return entry.group == "main" and name.endswith(f"_{base.task.seeds[0]}")


def solvers(name: str, base: ml_collections.ConfigDict) -> list[tuple[str, int]]:
    """The solvers, as (name, steps), that a policy is rolled out with: the config's first."""
    more = [tuple(s) for s in base.task.solvers] if is_main(name, base) else []
    return [(base.policy.solver, base.policy.steps), *more]


def rollouts_path(workdir: pathlib.Path, name: str, solver: str, steps: int) -> pathlib.Path:
    """Where the rollouts of a policy with a solver lie."""
    return workdir / name / f"rollouts_{solver}_{steps}.npz"


def load(path: pathlib.Path) -> Rollouts:
    """Rollouts as saved."""
    with np.load(path) as file:
        fields = {name: file[name] for name in file.files if name != "about"}
    return Rollouts(**fields | {"positions": fields["positions"].astype(float)})


def _missing(program, base, workdir):
    """The program's policies that are not finished: trained to the end and rolled out as asked."""
    return [
        name
        for name, config in program.items()
        for solver, steps in solvers(name, base)
        if not _is(
            rollouts_path(workdir, name, solver, steps),
            _about(workdir, name, config, base, solver, steps),
        )
    ]


def _about(workdir, name, config, base, solver, steps):
    """What rollouts hang on, beside the training: they are made again if it changes."""
    return {
        "trained": _step(workdir / name) == config.train.steps,
        "solver": [solver, steps, config.policy.clip],
        "execute": config.policy.execute,
        "goals": [base.task.goals, base.task.eval_seed],
    }


def _step(directory):
    """How far a policy is trained."""
    try:
        return checkpoint.find(directory)[1]
    except FileNotFoundError:
        return 0


def _is(path, about):
    if not (about["trained"] and path.exists()):
        return False
    with np.load(path) as file:
        return json.loads(str(file["about"])) == about


def _save(path, about, rollouts):
    fields = {name: getattr(rollouts, name) for name in Rollouts.__dataclass_fields__}
    fields["positions"] = fields["positions"].astype(np.float32)
    temporary = path.with_suffix(".tmp.npz")
    np.savez_compressed(temporary, about=json.dumps(about), **fields)
    os.replace(temporary, path)


def _measure_levels(directory, config):
    policy = Policy.from_checkpoint(directory)
    found = {"sigma": evaluation.LEVELS}
    for source in ("gcs", "rrt"):
        held_out = pathlib.Path(config.data.root) / f"maze_{source}_held_out"
        chunks = levels.chunks(held_out, history=policy.history, horizon=policy.horizon)
        found[source] = evaluation.denoising_loss(policy, *chunks[:3]).tolist()
    text = json.dumps(found | {"metres": float(policy.normalizer.scale["action"].mean())})
    temporary = directory / "levels.tmp"
    temporary.write_text(text)
    os.replace(temporary, directory / "levels.json")
