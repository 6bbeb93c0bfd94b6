"""The folder of a policy's rollouts: episodes are kept as they end, so that a run carries on.

``episodes.jsonl`` has a line for each episode in the order of their ends, ``settings.json`` what
their numbers depend on, ``episodes.csv`` all episodes in order, ``videos/`` those of the first.
"""

import csv
import dataclasses
import io
import json
import math
import os
import pathlib
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from absl import logging

from ambient_jax.cli import report
from ambient_jax.data.paths import write_text
from ambient_jax.rollout import episodes as episodes_lib
from ambient_jax.rollout.environment import MakeEnv, Outcome
from ambient_jax.train import lock

PROGRESS, SETTINGS = "episodes.jsonl", "settings.json"


def kept(
    policy: Any,
    env: MakeEnv,
    out: pathlib.Path,
    about: dict[str, Any],
    videos: int,
    options: dict[str, Any],
) -> episodes_lib.Episodes:
    """Runs the episodes that a folder does not have, adds them to it and returns all."""
    films = _videos(env, out, min(videos, options["episodes"]))
    make: Callable[[], gymnasium.Env] = env.rendering() if films else env
    with lock.hold(out):
        done = _resumed(out, about)
        for e, film in films.items():
            if not os.path.exists(film):
                done.pop(e, None)
        with (out / PROGRESS).open("a", encoding="utf-8") as file:

            def keep(e: int, outcome: Outcome) -> None:
                row = {"episode": e, **dataclasses.asdict(outcome)}
                file.write(json.dumps(row) + "\n")
                file.flush()
                os.fsync(file.fileno())

            found = episodes_lib.rollout(
                policy, make, videos=films, done=done, on_episode=keep, **options
            )
        write_text(out / "episodes.csv", as_csv(found))
    return found


def _resumed(out: pathlib.Path, about: dict[str, Any]) -> dict[int, Outcome]:
    """Returns the episodes of a folder, after a check that they were run with these settings."""
    path, progress = out / SETTINGS, out / PROGRESS
    plain = json.loads(json.dumps(report.plain(about)))
    if not path.exists():
        if progress.exists():
            raise ValueError(f"{out} has {PROGRESS} without {SETTINGS}: give another out folder")
        write_text(path, json.dumps(plain, indent=2) + "\n")
        return {}
    saved = report.read(path)
    for name in sorted(saved.keys() | plain.keys()):
        if saved.get(name) != plain.get(name):
            raise ValueError(
                f"{out} has rollouts with {name} = {saved.get(name)!r}, these have "
                f"{plain.get(name)!r}: give another out folder, or delete this one"
            )
    done: dict[int, Outcome] = {}
    lines = progress.read_text(encoding="utf-8").splitlines() if progress.exists() else []
    whole = []
    for line in lines:
        try:
            row = json.loads(line)
            number = int(row.pop("episode"))
            done[number] = Outcome(**row)
        except (ValueError, TypeError, KeyError, AttributeError):
            logging.warning("%s has a line that is no episode, which is run again", progress)
            continue
        whole.append(line)
    if lines:
        write_text(progress, "".join(f"{line}\n" for line in whole))
        logging.info("%s: %d episodes were run before", out, len(done))
    return done


def _videos(env: MakeEnv, out: pathlib.Path, count: int) -> dict[int, str]:
    """Returns the paths of videos of the first episodes; none if the environment draws nothing."""
    if not count:
        return {}
    one = env()
    try:
        modes = one.metadata.get("render_modes", ())
    finally:
        one.close()
    if "rgb_array" not in modes:
        logging.warning(
            "no videos: %s has the render modes %s, expected rgb_array", env.env, list(modes)
        )
        return {}
    return {e: os.fspath(out / "videos" / f"episode_{e:04d}.mp4") for e in range(count)}


def as_csv(found: episodes_lib.Episodes) -> str:
    """Returns the episodes as CSV, a line each; the columns of the last infos begin with info/."""
    columns: dict[str, Any] = {
        "episode": np.arange(len(found.seeds)),
        "seed": found.seeds,
        "success": found.success.astype(int),
        "return": found.returns,
        "best_reward": found.best_rewards,
        "steps": found.lengths,
        "terminated": found.terminated.astype(int),
        "outside": found.outside,
    }
    columns |= {f"info/{name}": values for name, values in found.infos.items()}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*(c.tolist() for c in columns.values()), strict=True):
        writer.writerow("" if isinstance(v, float) and math.isnan(v) else v for v in row)
    return text.getvalue()
