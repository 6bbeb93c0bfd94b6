"""Files of checkpoints: finds the step of a path, and checks that files are unchanged.

``<step>/digests.json``, committed with the step, has the SHA-256 of every file; every read compares
it. Checkpoints of older versions have none and are read with a warning.
"""

import contextlib
import functools
import hashlib
import json
import os
import pathlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import logging

from ambient_jax.data import paths
from ambient_jax.data.bucket import BucketPath
from ambient_jax.data.paths import AnyPath
from ambient_jax.train import remote_files
from ambient_jax.train.remote_files import COMMITTED, DIGESTS, PARTS, shown

# Orbax keeps this with the step, which shows that digests were lost.
METADATA = {"digests": DIGESTS}
# Orbax's files: a step's metadata, which its commit changes after the digests are written; an item
# of JSON.
_STEP, _JSON = "_CHECKPOINT_METADATA", "metadata"
_OPTIONAL = "data"  # exists only for streams
_BEST = "best"
_HOW_TO = "find the best with python -m ambient_jax.evaluate --best --checkpoint=<workdir>"


def numbered(directory: pathlib.Path) -> list[int]:
    """Returns names of folders that are numbers, ascending, which Orbax treats as steps."""
    if not directory.is_dir():
        return []
    return sorted(int(p.name) for p in directory.iterdir() if _is_number(p.name) and p.is_dir())


def steps_in(directory: AnyPath) -> list[int]:
    """Returns steps of the finished checkpoints in a folder, ascending, including damaged ones."""
    if isinstance(directory, BucketPath):
        return remote_files.steps_in(directory)
    return [step for step in numbered(directory) if _is_checkpoint(directory / str(step))]


def _is_number(name):
    return re.fullmatch("0|[1-9][0-9]*", name) is not None


def _is_checkpoint(path):
    return _is_number(path.name) and any((path / part).exists() for part in PARTS)


def absolute(path: str | os.PathLike) -> AnyPath:
    """Returns the absolute path, with ``~`` expanded."""
    folder = paths.folder(path)
    return folder if isinstance(folder, BucketPath) else pathlib.Path(os.path.abspath(folder))


def find(path: str | os.PathLike) -> tuple[pathlib.Path, int]:
    """Returns directory and step for a path to a workdir, its checkpoints or one of them.
    ``<workdir>/best`` is the recorded best one. A checkpoint in a bucket is copied to a local
    directory, which is returned. Raises FileNotFoundError if there is none."""
    directory, step = where(path)
    if isinstance(directory, BucketPath):
        return remote_files.fetched(directory, step).parent, step
    return directory, step


def where(path: str | os.PathLike) -> tuple[AnyPath, int]:
    """As ``find``, without a copy of what is in a bucket."""
    path = absolute(path)
    if isinstance(path, BucketPath):
        is_checkpoint = _is_number(path.name) and int(path.name) in steps_in(path.parent)
    else:
        is_checkpoint = _is_checkpoint(path)
    if is_checkpoint:
        return path.parent, int(path.name)
    if path.name == _BEST and not path.exists():
        return _find_best(path.parent)
    for directory in (path, path / "checkpoints"):
        if steps := steps_in(directory):
            return directory, steps[-1]
    raise FileNotFoundError(
        f"no finished checkpoint at {path}, expected a workdir with checkpoints/<step>, that "
        "folder, one step's folder, or a policy folder; train first, or check the path"
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
    """Returns the best step by the record, None without one; ValueError if it is unreadable."""
    path = absolute(workdir) / f"{_BEST}.json"
    try:
        step = json.loads(path.read_bytes())["step"]
        if type(step) is int and step >= 0:
            return step
        reason = repr(step)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = str(error)
    raise ValueError(f"{path} does not name a step ({reason}): delete it, or {_HOW_TO}")


def record_best(workdir: str | os.PathLike, step: int, **why: Any) -> None:
    """Records a step as the best; a training process keeps its checkpoint from its next save on.
    ``why`` are JSON values of the record, such as the checkpoint's loss."""
    text = json.dumps({"step": step, **why}, indent=2) + "\n"
    paths.write_text(absolute(workdir) / f"{_BEST}.json", text)


def await_metadata(folder: pathlib.Path, seconds: float = 60.0) -> None:
    """Waits until a thread of Orbax's has written a step's metadata, which the digests cover."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            content = json.loads((folder / _STEP).read_bytes())
            if METADATA.items() <= content["custom_metadata"].items():
                return
        time.sleep(0.01)


def write_digests(folder: pathlib.Path, step: int) -> None:
    """Writes the digests of a folder that will become a step's checkpoint."""
    files = {name: _digest(folder / name) for name in _files(folder)}
    text = json.dumps({"step": step, "sha256": files}, indent=1) + "\n"
    (folder / DIGESTS).write_text(text, encoding="utf-8")


def damage(folder: pathlib.Path, items: Sequence[str]) -> str:
    """Returns the first difference from the save, as "state/manifest.ocdbt is missing", or "".

    Checks ``items`` of a step's folder. Raises OSError if a file cannot be read now.
    """
    try:
        content = json.loads((folder / DIGESTS).read_bytes())
        step = int(content["step"])
        digests = {str(name): str(digest) for name, digest in content["sha256"].items()}
    except FileNotFoundError:
        return _damage_without_digests(folder, items)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{DIGESTS} cannot be read"
    if str(step) != folder.name:
        return f"{DIGESTS} is that of step {step}"
    if reason := _missing_item(folder, items, {name.split("/")[0] for name in digests}):
        return reason
    is_read = lambda name: "/" not in name or name.split("/")[0] in items  # noqa: E731
    present, saved = (set(filter(is_read, names)) for names in (_files(folder), digests))
    if saved - present:
        return f"{min(saved - present)} is missing"
    if present - saved:
        return f"{min(present - saved)} was not saved with it"
    changed = (name for name in sorted(present) if _digest(folder / name) != digests[name])
    return next((f"{name} is not what was saved" for name in changed), "")


def _missing_item(folder, items, saved):
    for item in items:
        if not (folder / item).is_dir() and (item in saved or item != _OPTIONAL):
            return f"{item} is missing"
    return ""


def _damage_without_digests(folder, items):
    saved = {}
    if (folder / _STEP).exists():
        try:
            content = json.loads((folder / _STEP).read_bytes())
            if METADATA.items() <= (content.get("custom_metadata") or {}).items():
                return f"{DIGESTS} is missing"
            saved = dict(content["item_handlers"])
        except (ValueError, KeyError, TypeError, AttributeError):
            return f"{_STEP} cannot be read"
    reason = _missing_item(folder, items, saved)
    if not reason:
        _warn_once(str(folder))
    return reason


@functools.cache
def _warn_once(folder):
    logging.warning(
        "checkpoint %s has no %s, as it was saved by an older version: it is read unchecked",
        *(folder, DIGESTS),
    )


def check(folder: pathlib.Path, items: Sequence[str]) -> None:
    """Raises ValueError for ``damage``, with the ``remedy``."""
    if reason := damage(folder, items):
        raise ValueError(
            f"checkpoint {shown(folder)} is damaged: {reason}; {remedy(folder, items)}"
        )


def read_json(folder: pathlib.Path, item: str) -> Any:
    """Reads an item of JSON; raises ValueError if it is missing or invalid."""
    path = folder / item / _JSON
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        reason = f"{path} is missing"
    except (ValueError, RecursionError) as error:
        reason = f"{path} is no JSON, {error}"
    raise ValueError(
        f"checkpoint {shown(folder)} has unreadable {item} ({reason}); {remedy(folder, (item,))}"
    )


@contextlib.contextmanager
def reading(folder: pathlib.Path, items: Sequence[str]) -> Iterator[None]:
    """Turns any error of Orbax about items that it cannot read into a ValueError of one line."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # of many types, by file and version
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise ValueError(
            f"checkpoint {shown(folder)} has unreadable {' or '.join(items)} ({reason}); "
            f"{remedy(folder, items)}"
        ) from error


def remedy(folder: pathlib.Path, items: Sequence[str]) -> str:
    """Returns a remedy for a damaged checkpoint: the newest sound one, if there is one."""
    directory = remote_files.origin(folder.parent) or folder.parent
    for step in reversed(steps_in(directory)):
        path = folder.parent / str(step)
        with contextlib.suppress(OSError):
            if path == folder:
                continue
            if isinstance(directory, BucketPath):
                remote_files.fetched(directory, step)
            if not damage(path, items):
                return f"step {step} is sound: give {shown(path)}, or move the damaged one away"
    return "no other step beside it is sound: bring back a copy, or train anew in another workdir"


def set_aside(directory: pathlib.Path, items: Sequence[str], at_most: int | None) -> int:
    """Does the work of ``Checkpointer.sound_step``; returns -1 if there is no checkpoint."""
    return set_aside_damaged(
        directory,
        numbered(directory),
        lambda step: damage(directory / str(step), items),
        lambda step, name: (directory / str(step)).rename(directory / name),
        at_most,
    )


def set_aside_damaged(
    directory: AnyPath,
    steps: Sequence[int],
    damage_of: Callable[[int], str],
    move: Callable[[int, str], Any],
    at_most: int | None,
) -> int:
    """As ``set_aside``, by the ``damage`` of a step and a function that renames it."""
    damaged, sound = {}, -1
    for step in reversed(steps):
        if at_most is None or step <= at_most:
            reason = damage_of(step)
            if not reason:
                sound = step
                break
            damaged[step] = reason
    if damaged and sound < 0:
        reasons = "; ".join(f"step {step}: {reason}" for step, reason in damaged.items())
        raise ValueError(
            f"no checkpoint in {directory} is as it was saved ({reasons}): bring back a copy, or "
            "give another --workdir to begin anew"
        )
    for step, reason in damaged.items():
        name, number = f"{step}.damaged", 1
        while (directory / name).exists():
            number += 1
            name = f"{step}.damaged-{number}"
        move(step, name)
        logging.warning(
            "checkpoint %s is damaged (%s): it is %s now, and the run goes on from step %d",
            *(directory / str(step), reason, name, sound),
        )
    return sound


def _files(folder):
    """Returns names of the files below a folder, except hidden and unchecked ones."""
    names = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    return [
        name.as_posix()
        for name in names
        if name.name not in (DIGESTS, COMMITTED) and not any(p[0] == "." for p in name.parts)
    ]


def _digest(path):
    if path.name != _STEP:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    # Only the fields that Orbax's commit does not change.
    text = path.read_bytes()
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        content = json.loads(text)
        fixed = {name: content[name] for name in ("item_handlers", "custom_metadata")}
        text = json.dumps(fixed, sort_keys=True).encode()
    return hashlib.sha256(text).hexdigest()
