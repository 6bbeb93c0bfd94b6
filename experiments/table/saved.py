"""Rollouts on disk, which remember what they hang on, so that they are made again if it changes."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ambient_jax.train import checkpoint


def is_current(path: pathlib.Path, about: Mapping[str, Any]) -> bool:
    """Whether the file is there and was made of ``about`` (JSON values, as given to ``save``)."""
    if not path.exists():
        return False
    with np.load(path) as file:
        return json.loads(str(file["about"])) == about


def save(path: pathlib.Path, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes the arrays by name; the file appears when it is complete."""
    temporary = path.with_suffix(".tmp.npz")
    np.savez_compressed(temporary, about=json.dumps(about), **arrays)
    os.replace(temporary, path)


def load(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays by name."""
    with np.load(path) as file:
        return {name: file[name] for name in file.files if name != "about"}


def step(directory: pathlib.Path) -> int:
    """How far a policy is trained: its last checkpoint's step, 0 without one."""
    try:
        return checkpoint.find(directory)[1]
    except FileNotFoundError:
        return 0
