"""Two small RLDS data sets for the notebooks: a point in the plane that moves to a goal."""

import pathlib

import numpy as np

from ambient_jax.data import write


def motion(
    rng: np.random.Generator, jitter: float, steps: int = 24
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a way [steps + 1, 2] from a random start to a random goal, and the goal [2]."""
    start, goal = rng.uniform(-1, 1, (2, 2))
    s = np.linspace(0, 1, steps + 1)[:, None]
    way = start + (goal - start) * (10 * s**3 - 15 * s**4 + 6 * s**5)  # least jerk
    return (way + jitter * rng.normal(size=way.shape)).astype(np.float32), goal.astype(np.float32)


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
    root: str | pathlib.Path, good: int = 20, jagged: int = 100, jitter: float = 0.05
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
