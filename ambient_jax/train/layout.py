"""Where the checkpoints of a run lie, and which is the newest or the best of them."""

from __future__ import annotations

import json
import os
import pathlib
import re
from typing import Any

from ambient_jax.data.paths import expanded

_BEST = "best"
_HOW_TO = "find the best with python -m ambient_jax.evaluate --best --checkpoint=<workdir>"
_PARTS = ("assets", "state", "ema_params")


def numbered(directory: pathlib.Path) -> list[int]:
    """Names of folders that are numbers, ascending: Orbax takes them for steps."""
    if not directory.is_dir():
        return []
    return sorted(int(p.name) for p in directory.iterdir() if _is_number(p.name) and p.is_dir())


def steps_in(directory: pathlib.Path) -> list[int]:
    """Steps of the finished checkpoints in their folder, ascending; also of damaged ones."""
    return [step for step in numbered(directory) if _is_checkpoint(directory / str(step))]


def _is_number(name):
    return re.fullmatch("0|[1-9][0-9]*", name) is not None


def _is_checkpoint(path):
    return _is_number(path.name) and any((path / part).exists() for part in _PARTS)


def absolute(path: str | os.PathLike) -> pathlib.Path:
    """The whole path, with ``~`` as the home."""
    return pathlib.Path(os.path.abspath(expanded(path)))


def find(path: str | os.PathLike) -> tuple[pathlib.Path, int]:
    """Checkpoint directory and step for a path to a workdir, its checkpoints or one checkpoint.

    ``<workdir>/best`` is the checkpoint that is recorded as the best one.

    Raises:
      FileNotFoundError: when there is no finished checkpoint, or none recorded.
    """
    path = absolute(path)
    if _is_checkpoint(path):
        return path.parent, int(path.name)
    if path.name == _BEST and not path.exists():
        return _find_best(path.parent)
    for directory in (path, path / "checkpoints"):
        if steps := steps_in(directory):
            return directory, steps[-1]
    raise FileNotFoundError(
        f"no finished checkpoint at {path}, expected a workdir with checkpoints/<step>, that "
        "folder, or one step's folder; train first, or check the path"
    )


def _find_best(workdir):
    step, directory = best_step(workdir), workdir / "checkpoints"
    if step is None:
        raise FileNotFoundError(f"no {workdir / _BEST}.json, expected a recorded step: {_HOW_TO}")
    if step not in steps_in(directory):
        raise FileNotFoundError(
            f"{workdir / _BEST}.json names step {step}, whose checkpoint is gone; there are "
            f"{', '.join(map(str, steps_in(directory))) or 'none'}: {_HOW_TO}"
        )
    return directory, step


def best_step(workdir: str | os.PathLike) -> int | None:
    """The step that is recorded as the best; None where there is no record.

    Raises:
      ValueError: a record that cannot be read.
    """
    path = pathlib.Path(expanded(workdir)) / f"{_BEST}.json"
    try:
        step = json.loads(path.read_bytes())["step"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise ValueError(f"{path} does not name a step ({e}): delete it, or {_HOW_TO}") from None
    if type(step) is not int or step < 0:
        raise ValueError(f"{path} does not name a step ({step!r}): delete it, or {_HOW_TO}")
    return step


def record_best(workdir: str | os.PathLike, step: int, **why: Any) -> None:
    """Records a step's checkpoint as the best; a training process keeps it from its next save on.

    Args:
      workdir: of the run, which may go on.
      step: one of ``steps_in``.
      **why: JSON values that the record tells beside it, such as its loss.
    """
    path = pathlib.Path(expanded(workdir)) / f"{_BEST}.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"step": step, **why}, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)
