"""Rollouts on disk, which remember what they hang on, so that they are made again if it changes."""

from __future__ import annotations

import collections
import contextlib
import json
import pathlib
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from absl import logging

from ambient_jax.data.paths import replacing
from ambient_jax.train import checkpoint

_UNREADABLE = (zipfile.BadZipFile, zlib.error, NotImplementedError, AttributeError)


def is_current(path: pathlib.Path, about: Mapping[str, Any]) -> bool:
    """Whether the file is there and was made of ``about`` (JSON values, as given to ``save``)."""
    try:
        return path.exists() and not _other(path, about)
    except ValueError as error:
        logging.warning("%s: it is made anew", error)
        return False


def outdated(path: pathlib.Path, about: Mapping[str, Any]) -> str:
    """Why a policy's rollouts are not those that are asked for; "" for those that are.

    Args:
      path: of the file, in the policy's folder.
      about: what it is to be made of; its "steps" are those of the complete training.
    """
    if not path.exists():
        return "not made yet"
    if (at := step(path.parent)) != about["steps"]:
        return f"of policies at step {at} of {about['steps']}"
    try:
        other = _other(path, about)
    except ValueError:
        return "damaged"
    return f"made with other {' and '.join(other)}" if other else ""


def tally(reasons: Iterable[str]) -> str:
    """The reasons in words, with how often each is given, such as "3 not made yet"."""
    counted = collections.Counter(reasons).most_common()
    return ", ".join(f"{count} {reason}" for reason, count in counted)


def _other(path, about):
    """The names of what the file was made of otherwise."""
    with _reading(path), np.load(path) as file:
        made = dict(json.loads(str(file["about"])))
    return sorted(n for n in made.keys() | about.keys() if made.get(n) != about.get(n))


def save(path: pathlib.Path, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes the arrays by name; the file appears when it is complete."""
    with replacing(path) as file:
        np.savez_compressed(file, about=json.dumps(about), **arrays)


def load(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays by name; raises ValueError for a file that is damaged."""
    with _reading(path), np.load(path) as file:
        return {name: file[name] for name in file.files if name != "about"}


@contextlib.contextmanager
def _reading(path):
    try:
        yield
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, TypeError, OSError, EOFError, *_UNREADABLE) as error:
        raise ValueError(
            f"{path} holds no rollouts, or is damaged ({' '.join(str(error).split())[:120]}): "
            "delete it, and the table's command makes it anew"
        ) from error


def step(directory: pathlib.Path) -> int:
    """How far a policy is trained: its last checkpoint's step, 0 without one."""
    try:
        return checkpoint.find(directory)[1]
    except FileNotFoundError:
        return 0
