"""Rollouts on disk, with what they depend on: they are made again when that changes."""

import collections
import contextlib
import json
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from absl import logging

from ambient_jax.data.paths import replacing
from ambient_jax.train import checkpoint

_UNREADABLE = (zipfile.BadZipFile, zlib.error, NotImplementedError, AttributeError)


def is_current(path: pathlib.Path, about: Mapping[str, Any]) -> bool:
    """Whether the file is there and was saved with this ``about`` (JSON values)."""
    try:
        return path.exists() and not _changed(path, about)
    except ValueError as error:
        logging.warning("%s: it is made anew", error)
        return False


def is_left_out(path: pathlib.Path, about: Mapping[str, Any], report_only: bool) -> bool:
    """Whether a report does without the file: it is not current, and ``report_only`` makes none."""
    if not report_only or is_current(path, about):
        return False
    logging.warning(
        "left out %s, which is not there or was made with other options: the same command without "
        "--config.task.report_only makes it",
        path,
    )
    return True


def outdated(path: pathlib.Path, about: Mapping[str, Any]) -> str:
    """Returns why the rollouts in a file of a policy's folder are not current; "" if they are.

    The "steps" of ``about``, on which the rollouts depend, are those of the complete training.
    """
    if not path.exists():
        return "not made yet"
    if (at := step(path.parent)) != about["steps"]:
        return f"of policies at step {at} of {about['steps']}"
    try:
        changed = _changed(path, about)
    except ValueError:
        return "damaged"
    return f"made with other {' and '.join(changed)}" if changed else ""


def tally(reasons: Iterable[str]) -> str:
    """Returns each reason with its count, such as "3 not made yet"."""
    counted = collections.Counter(reasons).most_common()
    return ", ".join(f"{count} {reason}" for reason, count in counted)


def _changed(path, about):
    """Returns names in ``about`` whose values differ from the file's."""
    with _reading(path), np.load(path) as file:
        saved = dict(json.loads(str(file["about"])))
    return sorted(n for n in saved.keys() | about.keys() if saved.get(n) != about.get(n))


def save(path: pathlib.Path, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes the arrays by name; the file appears when it is complete."""
    with replacing(path) as file:
        np.savez_compressed(file, about=json.dumps(about), **arrays)


def load(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the arrays by name; raises ValueError for a file that is damaged."""
    with _reading(path), np.load(path) as file:
        return {name: file[name] for name in file.files if name != "about"}


def kept(
    path: pathlib.Path, about: Mapping[str, Any], make: Callable[[], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Returns the arrays of the file; calls ``make()`` first if it is not current."""
    if not is_current(path, about):
        save(path, about, make())
    return load(path)


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
    """Returns the step of a policy's last checkpoint, 0 without one."""
    try:
        return checkpoint.find(directory)[1]
    except FileNotFoundError:
        return 0
