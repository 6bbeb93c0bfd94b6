"""Digests of a checkpoint's files: written as it is saved, compared whenever it is read.

``<step>/digests.json`` is part of what Orbax commits: a checkpoint has it from the moment that it
appears under its name. Those of versions before have none and are read with a warning.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from absl import logging

from ambient_jax.train import layout

FILE = "digests.json"
# For Orbax to keep with the step, so that one that lost its digests is not taken for an old one.
METADATA = {"digests": FILE}
_STEP = "_CHECKPOINT_METADATA"  # of Orbax, which adds the time of the commit after our digests
_JSON = "metadata"  # of Orbax, the file of an item of JSON
_OPTIONAL = "data"  # an item that is there where a stream was read
_COMMITTED = "commit_success.txt"  # of Orbax, written last; nothing is read from it


def write(folder: pathlib.Path, step: int) -> None:
    """Notes SHA-256 of all files of a folder that is about to become a step's checkpoint."""
    files = {name: _digest(folder / name) for name in _files(folder)}
    text = json.dumps({"step": step, "sha256": files}, indent=1) + "\n"
    (folder / FILE).write_text(text, encoding="utf-8")


def damage(folder: pathlib.Path, items: Sequence[str]) -> str:
    """What is not as it was saved, such as "state/manifest.ocdbt is missing"; "" if all is.

    Args:
      folder: of one step.
      items: the parts to read; the others may be damaged or gone.

    Raises:
      OSError: a file that cannot be read now, which is not said to be damaged.
    """
    noted = _load(folder / FILE)
    if noted is None:
        return _damage_without_digests(folder, items)
    if not noted:
        return f"{FILE} cannot be read"
    step, digests = noted
    if str(step) != folder.name:
        return f"{FILE} is that of step {step}"
    wanted = lambda name: "/" not in name or name.split("/")[0] in items  # noqa: E731
    there = set(filter(wanted, _files(folder)))
    noted_files = set(filter(wanted, digests))
    for item in items:
        noted_item = any(name.startswith(f"{item}/") for name in noted_files)
        if not (folder / item).is_dir() and (noted_item or item != _OPTIONAL):
            return f"{item} is missing"
    for name in sorted(noted_files - there):
        return f"{name} is missing"
    for name in sorted(there - noted_files):
        return f"{name} was not saved with it"
    for name in sorted(there):
        if _digest(folder / name) != digests[name]:
            return f"{name} is not what was saved"
    return ""


def check(folder: pathlib.Path, items: Sequence[str]) -> None:
    """Raises ValueError for ``damage``, with what to do about it."""
    if reason := damage(folder, items):
        raise ValueError(f"checkpoint {folder} is damaged: {reason}; {way_on(folder, items)}")


def read_json(folder: pathlib.Path, item: str) -> Any:
    """An item of JSON; raises ValueError for one that is none or missing."""
    path = folder / item / _JSON
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError) as error:
        told = "is missing" if isinstance(error, FileNotFoundError) else f"is no JSON, {error}"
        raise ValueError(
            f"checkpoint {folder} has unreadable {item} ({path} {told}); {way_on(folder, (item,))}"
        ) from None


@contextlib.contextmanager
def reading(folder: pathlib.Path, items: Sequence[str]) -> Iterator[None]:
    """Makes whatever Orbax raises for items that it cannot read a ValueError of one line."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # of many types, by file and version
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise ValueError(
            f"checkpoint {folder} has unreadable {' or '.join(items)} ({reason}); "
            f"{way_on(folder, items)}"
        ) from error


def way_on(folder: pathlib.Path, items: Sequence[str]) -> str:
    """What to do about a damaged checkpoint: where the newest sound one is."""
    for step in reversed(layout.steps_in(folder.parent)):
        other = folder.parent / str(step)
        with contextlib.suppress(OSError):
            if other != folder and not damage(other, items):
                return f"step {step} is sound: give {other}, or move the damaged one away"
    return "no other step beside it is sound: bring back a copy, or train anew in another workdir"


def set_aside(directory: pathlib.Path, items: Sequence[str], at_most: int | None) -> int:
    """See ``Checkpointer.sound_step``; -1 where there is no checkpoint."""
    damaged, found = {}, -1
    for step in reversed(layout.numbered(directory)):
        if at_most is None or step <= at_most:
            reason = damage(directory / str(step), items)
            if not reason:
                found = step
                break
            damaged[step] = reason
    if damaged and found < 0:
        told = "; ".join(f"step {step}: {reason}" for step, reason in damaged.items())
        raise ValueError(
            f"no checkpoint in {directory} is as it was saved ({told}): bring back a copy, or give "
            "another --workdir to begin anew"
        )
    for step, reason in damaged.items():
        name, number = f"{step}.damaged", 1
        while (directory / name).exists():
            number += 1
            name = f"{step}.damaged-{number}"
        (directory / str(step)).rename(directory / name)
        logging.warning(
            "checkpoint %s is damaged (%s): it is %s now, and the run goes on from step %d",
            *(directory / str(step), reason, name, found),
        )
    return found


def _damage_without_digests(folder, items):
    saved = {}
    if (folder / _STEP).exists():
        try:
            saved = json.loads((folder / _STEP).read_bytes())
            if METADATA.items() <= (saved.get("custom_metadata") or {}).items():
                return f"{FILE} is missing"
            saved = dict(saved["item_handlers"])
        except (ValueError, KeyError, TypeError, AttributeError):
            return f"{_STEP} cannot be read"
    for item in items:
        if not (folder / item).is_dir() and (item in saved or item != _OPTIONAL):
            return f"{item} is missing"
    _warn_once(str(folder))
    return ""


@functools.cache
def _warn_once(folder):
    logging.warning(
        "checkpoint %s has no %s, as it was saved by an older version: it is read unchecked",
        *(folder, FILE),
    )


def _load(path):
    """Step and digests by file; None without the file, () for what is no such file."""
    try:
        noted = json.loads(path.read_bytes())
        return int(noted["step"]), {str(n): str(d) for n, d in noted["sha256"].items()}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ()


def _files(folder):
    """Names of the files below a folder, but those that are hidden or none of the checkpoint."""
    names = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    seen = [n for n in names if not any(part.startswith(".") for part in n.parts)]
    return [n.as_posix() for n in seen if n.name not in (FILE, _COMMITTED)]


def _digest(path):
    if path.name == _STEP:
        return hashlib.sha256(_constant_part(path)).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _constant_part(path):
    """What Orbax does not change of a step's metadata at its commit, or the text if it is none."""
    text = path.read_bytes()
    try:
        found = json.loads(text)
        kept = {name: found[name] for name in ("item_handlers", "custom_metadata")}
        return json.dumps(kept, sort_keys=True).encode()
    except (ValueError, KeyError, TypeError, RecursionError):
        return text
