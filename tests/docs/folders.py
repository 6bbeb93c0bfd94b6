"""The folders that the documentation speaks of, small: /data/teleop, /data/play and others."""

import pathlib

import numpy as np

from ambient_jax.data import storage, write
from ambient_jax.data.storage import lerobot_write

WIDTH = 7  # of states and actions
# name: (episodes for training, standard deviation of the noise on the way)
FOLDERS = {"teleop": (8, 0.0), "play": (12, 0.05), "old_arm": (8, 0.2)}


def episode(rng, noise):
    """A smooth way to a random goal, with white noise on it; the action is the next state."""
    steps = int(rng.integers(20, 30))
    s = np.linspace(0, 1, steps + 1)[:, None]
    start, goal = rng.uniform(-1, 1, (2, WIDTH))
    way = start + (goal - start) * (10 * s**3 - 15 * s**4 + 6 * s**5)
    way = (way + noise * rng.normal(size=way.shape)).astype(np.float32)
    last = np.arange(steps) == steps - 1
    flags = {"is_first": np.arange(steps) == 0, "is_last": last, "is_terminal": last}
    numbers = {name: np.zeros(steps, np.float32) for name in ("reward", "discount")}
    return {"steps": {"observation": {"state": way[:-1]}, "action": way[1:], **flags, **numbers}}


def write_all(root: pathlib.Path) -> pathlib.Path:
    """Writes the folders: RLDS with the splits train and val, and "pick" in LeRobot format."""
    vector = np.zeros(WIDTH, np.float32)
    features = write.rlds_features({"state": vector}, vector)
    for seed, (name, (count, noise)) in enumerate(FOLDERS.items()):
        rng = np.random.default_rng(seed)
        splits = {"train": count, "val": 2}
        episodes = {s: [episode(rng, noise) for _ in range(n)] for s, n in splits.items()}
        write.write_dataset(root, name=name, version="1.0.0", features=features, episodes=episodes)
    play = storage.open_dataset(root / "play/1.0.0", "train", last_step="keep")
    lerobot_write.write_lerobot(root / "pick", play, hz=10)
    return root
