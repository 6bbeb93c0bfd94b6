"""Two small RLDS data sets for the notebooks: a point in the plane that moves to a goal."""

import pathlib

import numpy as np

from ambient_jax.data import write


def motion(
    rng: np.random.Generator, jitter: float, steps: int = 24
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a straight way [steps + 1, 2], at most 0.1 a step, to a random goal, and the goal."""
    start, goal = rng.uniform(-0.9, 0.9, (2, 2))
    distance = np.linalg.norm(goal - start)
    gone = np.minimum(0.1 * np.arange(steps + 1), distance)[:, None] / distance
    way = start + gone * (goal - start) + jitter * rng.normal(size=(steps + 1, 2))
    return way.astype(np.float32), goal.astype(np.float32)


def episode(rng: np.random.Generator, jitter: float) -> dict:
    """An episode whose action is the next position."""
    way, goal = motion(rng, jitter)
    steps = len(way) - 1
    last = np.arange(steps) == steps - 1
    flags = {"is_first": np.arange(steps) == 0, "is_last": last, "is_terminal": last}
    numbers = {"reward": last.astype(np.float32), "discount": np.ones(steps, np.float32)}
    observation = {"state": way[:-1], "goal": np.tile(goal, (steps, 1))}
    return {"steps": {"observation": observation, "action": way[1:], **flags, **numbers}}


def write_both(
    root: str | pathlib.Path, good: int = 50, jagged: int = 200, jitter: float = 0.05
) -> dict[str, str]:
    """Writes "good" (smooth) and "jagged" with splits train and val; returns their folders."""
    vector, folders = np.zeros(2, np.float32), {}
    features = write.rlds_features({"state": vector, "goal": vector}, vector)
    for seed, (name, count, noise) in enumerate((("good", good, 0.0), ("jagged", jagged, jitter))):
        rng = np.random.default_rng(seed)
        episodes = {
            s: [episode(rng, noise) for _ in range(n)] for s, n in (("train", count), ("val", 20))
        }
        path = write.write_dataset(
            root, name=name, version="1.0.0", features=features, episodes=episodes, overwrite=True
        )
        folders[name] = str(path)
    return folders
