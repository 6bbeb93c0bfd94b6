"""The texts of AgiBot World, ``task_info/task_<number>.json``: which episodes there are, and what
the robot does in them."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from typing import Any

from ambient_jax.data import files
from ambient_jax.data.files import first_line

_TASK = re.compile(r"task_(\d{1,18})\.json")


@dataclasses.dataclass(frozen=True)
class Row:
    """An episode of task_info: its task, and (start, end, text) of its segments."""

    task: int
    episode: int
    name: str
    segments: tuple[tuple[int, int, str], ...]


def path_of(directory: str, task: int) -> str:
    return os.path.join(directory, "task_info", f"task_{task}.json")


def read(directory: str) -> dict[int, list[Row]]:
    """Episodes of each task, by number; ValueError, FileNotFoundError: the texts are damaged."""
    folder = os.path.join(directory, "task_info")
    found = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    numbers = sorted(int(match[1]) for name in found if (match := _TASK.fullmatch(name)))
    if not numbers:
        raise FileNotFoundError(
            f"{folder} has no task_<number>.json, which lists the episodes of a task: fetch it"
        )
    tasks, seen = {}, set()
    for number in numbers:
        path = path_of(directory, number)
        tasks[number] = sorted(_rows(path, number), key=lambda row: row.episode)
        for row in tasks[number]:
            if row.episode in seen:
                raise ValueError(f"{path} lists episode {row.episode}, which was listed before")
            seen.add(row.episode)
    return tasks


def _rows(path, task) -> list[Row]:
    try:
        with files.named(path), files.open_file(path) as file:
            entries = json.load(file)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON ({first_line(error)}): fetch it again") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{path} is no list of episodes, expected [{{'episode_id': ...}}, ...]")
    return [_row(entry, task, f"{path}, entry {i}") for i, entry in enumerate(entries)]


def _row(entry: Mapping[str, Any], task: int, where: str) -> Row:
    number, name = entry.get("episode_id"), entry.get("task_name", "")
    if type(number) is not int or not 0 <= number < 1 << 62 or not isinstance(name, str):
        raise ValueError(
            f"{where}: episode_id is {number!r}, task_name {name!r}, expected a number and a text"
        )
    label = entry.get("label_info") or {}
    parts = label.get("action_config") if isinstance(label, dict) else None
    segments = []
    for part in parts if isinstance(parts, list) else ():
        given = part if isinstance(part, dict) else {}
        start, end = given.get("start_frame"), given.get("end_frame")
        if type(start) is not int or type(end) is not int or not 0 <= start <= end:
            raise ValueError(
                f"{where} (episode {number}) has the segment {str(part)[:100]!r}, expected whole "
                "numbers start_frame <= end_frame"
            )
        segments.append((start, end, str(given.get("action_text") or "")))
    return Row(task, number, name, tuple(segments))
