"""Rollouts of a policy in training, at each of its checkpoints."""

import importlib.util
import json
import math
import os
from typing import Any

import ml_collections
import numpy as np
from absl import logging

from ambient_jax.data import mixture as mixtures
from ambient_jax.data.paths import write_text
from ambient_jax.evaluate import pictures
from ambient_jax.rollout import observations
from ambient_jax.rollout.checkpoints import order
from ambient_jax.rollout.environment import MakeEnv
from ambient_jax.rollout.episodes import Episodes, rollout
from ambient_jax.train import checkpoint, metrics

FILMED, FRAMES = 3, 8  # episodes, and frames of each, in a picture


class Rollouts:
    """Rolls out a config's policy of any parameters in the environment ``config.rollouts``.

    Writes rows of ``<workdir>/rollouts.jsonl``, the curves "rollouts/success" and
    "rollouts/return", and, if the environment draws itself and PyAV is there, a picture and videos
    of some episodes (``<workdir>/pictures/rollouts/``). The best step so far becomes the best
    checkpoint. Raises ValueError if the environment cannot be made or does not fit the policy.
    """

    def __init__(self, config: ml_collections.ConfigDict, mixture: mixtures.Mixture):
        section = config.rollouts
        self._env = MakeEnv(section.env, kwargs=read_json("config.rollouts.env_kwargs", section))
        self._policy = pictures.policy_of(config, mixture, pictures.first_clean(config, mixture))
        self._options = dict(
            episodes=section.episodes,
            execute=config.policy.execute,
            seed=section.seed,
            success=section.success,
            observation=observations.parse(section.observation),
            progress=False,
        )
        env = self._env()
        try:
            space, fields = env.observation_space, self._options["observation"]
            observations.connect(self._policy, space, fields)
            observations.check_actions(self._policy, env.action_space)
            modes = env.metadata.get("render_modes", ())
            self._films = "rgb_array" in modes and importlib.util.find_spec("av") is not None
        finally:
            env.close()

    def __call__(self, step: int, params: Any, writer: metrics.Writer) -> None:
        """Runs the episodes with parameters and writes what came of them."""
        workdir = writer.folder
        videos = {}
        if self._films:
            folder = workdir / "pictures" / "rollouts"
            for e in range(min(FILMED, self._options["episodes"])):
                videos[e] = os.fspath(folder / f"{step:08d}_{e}.mp4")
        env = self._env.rendering() if videos else self._env
        policy = self._policy.with_params(params)
        found = rollout(policy, env, videos=videos, **self._options)
        if videos:
            writer.picture(step, "rollouts", filmstrip(list(videos.values())))
        writer.number(step, "rollouts/success", found.rate.value)
        writer.number(step, "rollouts/return", float(found.returns.mean()))
        record(workdir, step, found, env=self._env.env)


def read_json(field: str, section: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the object of the JSON text of a section's last field; ValueError for another."""
    text = section[field.rpartition(".")[2]]
    try:
        value = json.loads(text or "{}")
        assert isinstance(value, dict)
    except (ValueError, AssertionError) as error:
        raise ValueError(f'{field} is {text!r}, expected JSON such as {{"name": 1}}') from error
    return value


def record(workdir: Any, step: int, found: Episodes, env: str = "") -> None:
    """Adds a step to ``rollouts.jsonl``; records it as the best if no earlier one was better and
    its checkpoint is still there."""
    path = workdir / "rollouts.jsonl"
    earlier = [row for row in metrics.read(path) if row["step"] < step]
    rate, rank = found.rate, order(found, step)
    row: dict[str, Any] = {"step": step, "success": rate.value, "return": rank[1]}
    row |= {"low": rate.low, "high": rate.high, "episodes": rate.count}
    row |= {"success_from": found.success_from}
    write_text(path, "".join(json.dumps(r) + "\n" for r in [*earlier, row]))
    if any((r["success"], r["return"], r["step"]) > rank for r in earlier):
        return
    steps = checkpoint.steps_in(workdir / "checkpoints")
    if steps and step < steps[-1] and step not in steps:
        logging.warning("step %d had the best rollouts, its checkpoint is gone: train.keep", step)
        return
    why = {n: v for n, v in row.items() if n != "step"} | {"seed": int(found.seeds[0])}
    checkpoint.record_best(workdir, step, **why, env=env)


def filmstrip(paths: list[str], frames: int = FRAMES, height: int = 120) -> np.ndarray:
    """Returns frames of videos, equally far apart, as a picture with a row for each video."""
    import av

    rows = []
    for path in paths:
        with av.open(path) as container:
            whole = [frame for frame in container.decode(video=0)]
        size = math.ceil(height * whole[0].width / whole[0].height)
        at = np.linspace(0, len(whole) - 1, frames).round().astype(int)
        shown = [whole[i].reformat(size, height).to_ndarray(format="rgb24") for i in at]
        rows.append(np.concatenate([np.pad(f, ((2, 2), (2, 2), (0, 0))) for f in shown], axis=1))
    return np.concatenate(rows, axis=0)
