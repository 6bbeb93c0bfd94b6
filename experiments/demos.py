"""Records demonstrations of scripted experts in parallel; stores them with their arguments."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import tqdm
from absl import logging

from ambient_jax.data.write import rlds_features, write_dataset
from experiments import simulate
from experiments.opengl import IMAGE

if TYPE_CHECKING:  # the maze has no physics
    from experiments.tabletop import TabletopEnv

T = TypeVar("T")
Episodes = Iterable[dict[str, Any]]


def successes(
    attempt: Callable[[int], T | None],
    count: int,
    *,
    label: str,
    first: int = 0,
    workers: int | None = None,
    progress: bool = True,
) -> Iterator[tuple[int, T]]:
    """Yields the first ``count`` (index, ``attempt(index)``) that are not None, in order.

    They do not depend on ``workers``, processes that are spawned where there are more than one:
    ``attempt`` must pickle. Raises ValueError where more than half of the attempts fail, and
    ChildProcessError if a process dies.
    """
    if workers is None:
        workers = min(simulate.cores(), count // 20)
    done, tried = 0, 0
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(
            tqdm.tqdm(total=count, desc=f"{label} demos", unit="demo", disable=not progress)
        )
        run: Any = map
        if workers > 1:
            spawn = multiprocessing.get_context("spawn")
            pool = concurrent.futures.ProcessPoolExecutor(workers, mp_context=spawn)
            run = functools.partial(stack.enter_context(pool).map, chunksize=5)
            stack.enter_context(_alive())
        while done < count:
            batch = range(first + tried, first + tried + count - done)
            for index, demonstration in zip(batch, run(attempt, batch), strict=True):
                if demonstration is not None:
                    yield index, demonstration
                    done += 1
                    bar.update()
            tried += len(batch)
            if tried > 2 * done + 10:
                raise ValueError(
                    f"{tried - done} of {tried} demonstrations failed: the scene is too hard for "
                    "the expert, see the experiment's scene.Scene"
                )
    if tried > done:
        logging.info("%s: %d attempts failed and were replaced", label, tried - done)


@contextlib.contextmanager
def _alive():
    try:
        yield
    except BrokenProcessPool as error:
        raise ChildProcessError(
            "a process that makes demonstrations died (out of memory?): try fewer workers"
        ) from error


class Recorded(NamedTuple):
    """One episode of T steps."""

    states: np.ndarray  # [T, d] before each action
    actions: np.ndarray  # [T, a]
    images: np.ndarray | None  # [T, h, w, 3]
    terminated: bool  # whether it ended before the time limit
    info: dict[str, Any]  # of the last step


def record(env: TabletopEnv, act: Callable[[], np.ndarray | None], seed: int) -> Recorded:
    """Records the episode of a seed under ``act()``, which may read ``env`` and ends it by None."""
    observation, info = env.reset(seed=seed)
    observations, actions, done, terminated = [], [], False, False
    while not done and (action := act()) is not None:
        observations.append(observation)
        actions.append(action)
        observation, _, terminated, truncated, info = env.step(action)
        done = terminated or truncated
    images = np.array([o["image"] for o in observations]) if env.camera else None
    states = np.array([o["state"] for o in observations])
    return Recorded(states, np.array(actions), images, terminated, info)


def tabletop_features(
    state: int, condition: str, actions: int, camera: str, **metadata: Any
) -> Any:
    """Returns features of episodes that ``tabletop_episode`` makes, of states [state] and actions
    [actions], with the images of a camera unless it is ""; ``metadata`` as in ``rlds_features``."""
    observation = {"state": np.zeros(state, np.float32), condition: np.zeros(2, np.float32)}
    if camera:
        observation["image"] = np.zeros((IMAGE, IMAGE, 3), np.uint8)
    return rlds_features(observation, np.zeros(actions, np.float32), episode_metadata=metadata)


def tabletop_episode(
    demonstration: Any, condition: str, value: np.ndarray, **metadata: Any
) -> dict[str, Any]:
    """Returns one RLDS episode; observation ``condition`` is ``value`` [2] in all its steps."""
    tiled = np.tile(value, (len(demonstration.actions), 1))
    observation = {"state": demonstration.states, condition: tiled}
    if demonstration.images is not None:
        observation["image"] = demonstration.images
    return {"steps": steps(observation, demonstration.actions), "episode_metadata": metadata}


def steps(observation: Mapping[str, np.ndarray], actions: np.ndarray) -> dict[str, Any]:
    """Returns RLDS steps of T actions [T, a]; the last one is terminal with reward 1."""
    last = np.arange(len(actions)) == len(actions) - 1
    return {
        "observation": dict(observation),
        "action": actions,
        "is_first": np.arange(len(actions)) == 0,
        "is_last": last,
        "is_terminal": last,
        "reward": last.astype(np.float32),
        "discount": 1.0 - last.astype(np.float32),
    }


def write(
    root: Path,
    name: str,
    version: str,
    key: Mapping[str, Any],
    features: Any,
    episodes: Episodes | Mapping[str, Episodes],
) -> Path:
    """Writes a data set, unless the one that is there was built from the same ``key``.

    It appears under its name only when complete. ``episodes``, by split or all of "train", are not
    drawn if it is there.
    """
    directory = root / name / version
    if built_from(directory) == json.loads(json.dumps(key)):
        return directory
    if directory.exists():
        logging.info("%s was built from other arguments: it is built anew", directory)
    return write_dataset(
        root,
        name=name,
        version=version,
        features=features,
        episodes=episodes,
        description=json.dumps(key),
        overwrite=True,
    )


def built_from(directory: Path) -> Mapping[str, Any] | None:
    """Returns the key of a data set that ``write`` wrote; None for any other, or none."""
    try:
        return json.loads(json.loads((directory / "dataset_info.json").read_text())["description"])
    except (FileNotFoundError, KeyError, json.JSONDecodeError):
        return None
