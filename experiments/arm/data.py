"""The arm's data sets on disk, in RLDS: ``arm_smooth`` (clean) and ``arm_rrt`` (corrupt).

An episode is one decision: a problem, and the whole plan as its action. Every plan is stored twice,
also backwards.

Build them with ``python -m experiments.arm.data --root=DIR`` (13 minutes of one core).
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ambient_jax.data.paths import expanded
from ambient_jax.data.rlds import open_dataset
from ambient_jax.data.write import rlds_features
from experiments import demos
from experiments.arm import planners, scene, timing
from experiments.arm.problems import Problem
from experiments.table.data import command

VERSION = "1.0.0"
# Raise it when the same arguments come to give other episodes: it is part of the cache's key.
RECIPE = 1
# Seeds of problems: each planner's, those held out, and in evaluations.
_STREAMS = {"smooth": 0, "rrt": 1, "smooth_held_out": 2, "rrt_held_out": 3}
_SEEDS = 1000
Hand = Callable[[np.ndarray], np.ndarray]  # configuration [7] -> position [3]


def stream(name: str, seed: int) -> int:
    """Returns the seed of a planner's stream of problems, which no other has and no evaluation."""
    return (_STREAMS[name] + 1) * _SEEDS + seed


def episode(problem: Problem, plan: np.ndarray, hand: Hand, **metadata: Any) -> dict[str, Any]:
    """Returns the RLDS episode of a plan [T + 1, 7]: one step, whose action is the whole plan.

    Args:
      problem: of which the plan begins at the start and ends at the goal.
      plan: in rad.
      hand: position [3] of a configuration's hand, see ``observation``.
      metadata: of the episode.
    """
    seen = observation(problem, hand)
    steps = demos.steps({n: v[None] for n, v in seen.items()}, np.float32(plan[1:]).reshape(1, -1))
    return {"steps": steps, "episode_metadata": metadata}


def observation(problem: Problem, hand: Hand) -> dict[str, np.ndarray]:
    """Returns what a policy sees: "start" and "goal" [7] in rad, "hands" [6], their hand positions
    in m, and "scene" [22]; float32."""
    ends = problem.start, problem.goal
    hands = np.concatenate([hand(q) for q in ends])
    seen = {"start": ends[0], "goal": ends[1], "hands": hands, "scene": problem.scene}
    return {name: np.asarray(value, np.float32) for name, value in seen.items()}


def backwards(problem: Problem, plan: np.ndarray) -> tuple[Problem, np.ndarray]:
    """Returns the plan from the goal to the start, which is as good as the plan."""
    return problem._replace(start=problem.goal, goal=problem.start), plan[::-1]


def build(
    root: str | os.PathLike[str],
    *,
    clean: int = 50,
    corrupt: int = 2000,
    held_out: int = 0,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = True,
) -> dict[str, Path]:
    """Plans and writes the data sets below ``root``; returns {"smooth": directory, "rrt": ...}.

    A data set that matches its arguments is kept.

    Args:
      root: directory of all data sets; created if missing.
      clean, corrupt: number of smooth and of RRT-Connect's plans.
      held_out: number of each that no policy sees, to test on; 0 for none.
      seed: of problems and planners, below 1000.
      workers, progress: see ``demos.successes``; they do not change the result.
    """
    if min(clean, corrupt) < 1 or held_out < 0 or not 0 <= seed < _SEEDS:
        raise ValueError(
            f"asked for {clean} smooth, {corrupt} rrt and {held_out} held-out plans with seed "
            f"{seed}, expected at least 1, 1 and 0 and a seed from 0 to {_SEEDS - 1}"
        )
    counts = {"smooth": clean, "rrt": corrupt}
    counts |= {f"{name}_held_out": held_out for name in planners.PLANNERS if held_out}
    sizes = dict(start=scene.JOINTS, goal=scene.JOINTS, hands=6, scene=scene.SIZE)
    features = rlds_features(
        {name: np.zeros(size, np.float32) for name, size in sizes.items()},
        np.zeros(timing.STEPS * scene.JOINTS, np.float32),
        episode_metadata={"planner": str, "seed": np.int64, "index": np.int64, "backwards": bool},
    )

    def episodes(planner: str, count: int, seed: int) -> Iterator[dict[str, Any]]:
        plans = planners.generate(planner, count, seed, workers=workers, progress=progress)
        hand = scene.hand_position()
        for index, (problem, plan) in plans:
            about: dict[str, Any] = dict(
                planner=planner, seed=np.int64(seed), index=np.int64(index)
            )
            yield episode(problem, plan, hand, **about, backwards=False)
            yield episode(*backwards(problem, plan), hand, **about, backwards=True)

    world = {"ranges": scene.RANGES.tolist(), "steps": timing.STEPS, "duration": timing.DURATION}
    written = {}
    for name, count in counts.items():
        planner, number = name.removesuffix("_held_out"), stream(name, seed)
        key = dict(planner=planner, plans=count, seed=number, recipe=RECIPE, **world)
        target = Path(expanded(root)), f"arm_{name}", VERSION
        written[name] = demos.write(*target, key, features, episodes(planner, count, number))
    return written


def load_plans(directory: str | os.PathLike[str]) -> list[np.ndarray]:
    """Reads the plans [T + 1, 7] of a data set in rad, each once: not those backwards."""
    dataset = open_dataset(directory, required=("steps/observation/start", "steps/action"))
    plans = []
    for index in range(0, len(dataset), 2):
        steps = dataset[index]["steps"]
        action = steps["action"].reshape(-1, scene.JOINTS)
        plans.append(np.concatenate([steps["observation"]["start"], action]))
    return plans


if __name__ == "__main__":
    command(build)
