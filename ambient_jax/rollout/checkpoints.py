"""Reports on the rollouts of trained policies: of one checkpoint, or the best of several."""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from ambient_jax import estimates
from ambient_jax.cli import report
from ambient_jax.data.paths import check_local, expanded
from ambient_jax.policy.policy import Policy
from ambient_jax.rollout import episodes as episodes_lib
from ambient_jax.rollout import folder as folder_lib
from ambient_jax.rollout.environment import MakeEnv
from ambient_jax.train import checkpoint, loading
from ambient_jax.train import config as config_lib

COLUMNS = ("", "episodes", "success", "95% interval", "return", "95% interval", "steps")


class Report(NamedTuple):
    """The ``table`` and the ``results`` that were written to ``folder``."""

    table: str
    results: dict[str, Any]
    folder: pathlib.Path


def evaluate(
    path: str | os.PathLike[str],
    env: MakeEnv,
    *,
    episodes: int = 50,
    execute: int = 0,
    seed: int = 0,
    videos: int = 4,
    out: str | os.PathLike[str] = "",
    source: str = "",
    solver: Mapping[str, Any] | None = None,
    **options: Any,
) -> Report:
    """Rolls out a checkpoint's policy; writes ``<workdir>/rollouts/<env>/<step>/``.

    The folder gets ``results.json``, ``episodes.csv``, ``table.md`` and ``videos/``. Each episode
    is kept when it ends (``episodes.jsonl``): the same call carries on, also with more episodes.

    Args:
      path: workdir, checkpoint, policy folder or address, see ``loading.load``.
      env: makes the environment.
      episodes, seed: see ``rollout``.
      execute: actions of a chunk that are executed; 0 takes ``policy.execute`` of the config.
      videos: number of the first episodes of which videos are written.
      out: another folder.
      source: see ``Policy.from_checkpoint``.
      solver: solver, steps, clip or eta of the policy, in place of the config's.
      **options: further ones of ``rollout``.

    Raises:
      FileNotFoundError: there is no checkpoint.
      ValueError: as ``rollout``, or the folder has rollouts of other settings.
    """
    found_at, step = loading.find(path)
    policy = Policy.from_checkpoint(found_at, source=source or None, **(solver or {}))
    execute = execute or _execute(found_at)
    folder = _local(out) if out else _beside(found_at) / _name(env) / str(step)
    about = _about(policy, env, execute, seed, source, options)
    options |= dict(episodes=episodes, execute=execute, seed=seed)
    found = folder_lib.kept(policy, env, folder, about, videos, options)
    results = {"checkpoint": found_at, "step": step, "settings": about, **summary(found)}
    caption = f"{env.env}, policy of step {step}; {_describe(found, about)}"
    if _chose(found_at, step, env, found.seeds):
        caption += " Some of these starts chose this step as the best, which favours it: give "
        caption += "another seed."
    rows = [[f"step {step}", *cells(found)]]
    table = report.write(folder, COLUMNS, rows, caption, results)
    return Report(table, results, folder)


def best(
    path: str | os.PathLike[str],
    env: MakeEnv,
    *,
    episodes: int = 50,
    execute: int = 0,
    seed: int = config_lib.CHOOSING_SEED,
    out: str | os.PathLike[str] = "",
    source: str = "",
    solver: Mapping[str, Any] | None = None,
    **options: Any,
) -> Report:
    """Records the checkpoint with the most successes as the best one.

    All checkpoints run the same episodes. Of equal ones the one with the highest mean return is the
    best, then the newest. Writes ``<workdir>/checkpoints_by_rollouts/<env>/`` and
    ``<workdir>/best.json``, which training then keeps. Repeat it as training goes on: episodes that
    were run are kept. Checkpoints that training deletes meanwhile are skipped. ``path`` is a
    workdir or its checkpoints folder; for options and errors see ``evaluate``, whose ``seed`` has
    other starts, on which the best one is judged without favour.
    """
    directory, newest = checkpoint.find(path)
    if checkpoint.absolute(path) not in (directory, directory.parent):
        raise ValueError(f"{path} is one checkpoint, expected a workdir with several to compare")
    workdir = directory.parent
    results_folder = _local(out) if out else workdir / "checkpoints_by_rollouts" / _name(env)
    first = Policy.from_checkpoint(directory / str(newest), source=source or None, **(solver or {}))
    execute = execute or _execute(directory / str(newest))
    about = _about(first, env, execute, seed, source, options)
    options |= dict(episodes=episodes, execute=execute, seed=seed)
    found: dict[int, episodes_lib.Episodes] = {}
    for step in checkpoint.steps_in(directory):
        folder = directory / str(step)
        try:
            params = checkpoint.load_policy_assets(folder)["params"]
        except (OSError, ValueError):
            if step in checkpoint.steps_in(directory):
                raise
            continue  # the training deleted it
        logging.info("rollouts of step %d", step)
        policy = first.with_params(params)
        settings = {**about, "parameters": _digest(params)}
        found[step] = folder_lib.kept(policy, env, results_folder / str(step), settings, 0, options)
    chosen = _recorded(workdir, found, env, seed)
    rows = [
        [f"step {step} (best)" if step == chosen else f"step {step}", *cells(e)]
        for step, e in found.items()
    ]
    caption = f"{env.env}, the same starts and noise for every step; "
    caption += f"{_describe(found[chosen], about)} The best step's success is of the episodes that "
    caption += "chose it, which favours it."
    by_step = {step: summary(e) for step, e in found.items()}
    results = {"settings": about, "best": chosen, "steps": by_step}
    table = report.write(results_folder, COLUMNS, rows, caption, results)
    return Report(table, results, results_folder)


def order(episodes: episodes_lib.Episodes, step: int) -> tuple[float, float, int]:
    """Returns by what checkpoints are compared, the largest being the best."""
    return float(episodes.success.mean()), float(episodes.returns.mean()), step


def _chose(path, step, env, seeds):
    """Whether episodes of these seeds chose the checkpoint, by the record of the best one."""
    try:
        record = json.loads((pathlib.Path(path).parents[1] / "best.json").read_bytes())
        first, count = int(record["seed"]), int(record["episodes"])
        same = record["step"] == step and _id(record["env"]) == _id(env.env)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return False
    return same and bool(np.any((seeds >= first) & (seeds < first + count)))


def _id(name):
    return name.rpartition(":")[2]  # without the module


def _recorded(workdir, found, env, seed):
    """Records the best step that is still there, and returns it."""
    ranked = sorted(found, key=lambda step: order(found[step], step), reverse=True)
    for step in ranked:
        rate = found[step].rate
        why = dict(success=rate.value, episodes=rate.count, env=env.env, seed=seed)
        checkpoint.record_best(workdir, step, **why)
        if step in checkpoint.steps_in(workdir / "checkpoints"):
            return step
    raise FileNotFoundError(
        f"the training deleted all compared checkpoints of {workdir}: repeat the command"
    )


def summary(found: episodes_lib.Episodes) -> dict[str, Any]:
    """Returns the estimates of episodes: rates and means with their 95% intervals."""
    return {
        "success": found.rate,
        "success_from": found.success_from,
        "return": estimates.mean(found.returns),
        "best_reward": estimates.mean(found.best_rewards),
        "steps": estimates.mean(found.lengths),
        "terminated": float(found.terminated.mean()),
        "outside": float(found.outside.mean()),
        "infos": {name: estimates.mean(values) for name, values in found.infos.items()},
    }


def cells(found: episodes_lib.Episodes) -> list[str]:
    """Returns the cells of ``COLUMNS`` after the first."""
    rate, returns = found.rate, estimates.mean(found.returns)
    percent = f"{100 * rate.low:.1f} to {100 * rate.high:.1f}"
    interval = f"{returns.low:.4g} to {returns.high:.4g}"
    steps = f"{found.lengths.mean():.1f}"
    return [str(rate.count), f"{100 * rate.value:.1f}%", percent, f"{returns.value:.4g}",
            interval, steps]  # fmt: skip


def _describe(found: episodes_lib.Episodes, about: Mapping[str, Any]) -> str:
    key = found.success_from
    what = "the episode terminated" if key == "terminated" else f"info[{key!r}] was true"
    text = (
        f"episode e starts from seed {about['seed']} + e, {about['execute']} actions of a chunk "
        f"are executed, {about['solver']} with {about['steps']} steps. Success, if {what}, with "
        "Wilson's interval; mean return with a bootstrap interval."
    )
    if (share := float(found.outside.mean())) > 0:
        handled = "were clipped" if about["clip"] else "went to the environment as they were"
        text += f" {100 * share:.2g}% of the actions lay outside of the action space and {handled}."
    return text


def _about(policy, env, execute, seed, source, options):
    """Returns what the numbers of an episode depend on, besides the checkpoint."""
    return {
        "parameters": _digest(policy.params),
        "env": env.env,
        "env_module": env.module,
        "env_kwargs": dict(env.kwargs),
        "execute": execute,
        "seed": seed,
        "source": source,
        **{name: getattr(policy, name) for name in ("solver", "steps", "eta")},
        "clip_x0_hat": policy.clip,
        "observation": dict(options.get("observation") or {}),
        "constant": dict(options.get("constant") or {}),
        "success": options.get("success", ""),
        "clip": options.get("clip", False),
        "max_steps": options.get("max_steps") or 0,
        "batch": options.get("batch", 8),
    }


def _digest(params):
    """Returns a hash of parameters, by which rollouts know their policy wherever it lies."""
    digest = hashlib.sha256()
    for name, leaf in sorted(checkpoint.by_name(params).items()):
        digest.update(name.encode() + np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def _execute(path):
    return int(loading.load(path)["config"]["policy"].get("execute", 8))


def _local(path):
    check_local("out", path)
    return pathlib.Path(os.path.abspath(expanded(path)))


def _beside(path):
    """Returns the folder of rollouts: in the workdir, or beside a policy folder."""
    if "://" in path:
        raise ValueError(f"{path} is an address, expected --out=<folder of results> with it")
    folder = pathlib.Path(path).resolve().parent
    return (folder.parent if folder.name == "checkpoints" else folder) / "rollouts"


def _name(env):
    return env.env.replace(":", "_").replace("/", "_")
