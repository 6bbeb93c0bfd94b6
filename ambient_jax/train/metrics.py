"""Writes sums from the devices as rows of ``metrics.jsonl``, ``timing.jsonl`` and TensorBoard.

``metrics.jsonl`` has no times, so that a resumed run writes the file of an uninterrupted one.
"""

import json
import os
import pathlib
import shutil
import threading
from collections.abc import Sequence
from typing import Any

import ml_collections
import numpy as np
import tensorboardX
from absl import logging

from ambient_jax.data import paths
from ambient_jax.train import state as state_lib
from ambient_jax.train import weights_and_biases


def summarize(
    step: int, sums: state_lib.Sums, names: Sequence[str], learning_rate: float
) -> dict[str, Any]:
    """Returns one row: mean loss, also per noise-level bin and per source (without empty ones)."""
    count, steps = float(np.sum(sums.bin_count)), max(int(sums.steps), 1)
    row: dict[str, Any] = {
        "step": step,
        "loss": float(np.sum(sums.bin_loss)) / max(count, 1.0),
        "grad_norm": float(sums.grad_norm) / steps,
        "learning_rate": learning_rate,
        "admitted": count / steps,
    }
    bins = len(sums.bin_count)
    for i, (total, n) in enumerate(zip(sums.bin_loss, sums.bin_count, strict=True)):
        if n > 0:
            row[f"loss_sigma/{i / bins:.1f}-{(i + 1) / bins:.1f}"] = float(total) / float(n)
    for name, total, n in zip(names, sums.source_loss, sums.source_count, strict=True):
        if n > 0:
            row[f"loss_source/{name}"] = float(total) / float(n)
            row[f"share_source/{name}"] = float(n) / max(count, 1.0)
    return row


class Writer:
    """Appends rows to ``<workdir>/metrics.jsonl``, TensorBoard and ``config.train.wandb``. It first
    drops rows after ``step``, which an interrupted run may have left."""

    def __init__(
        self,
        workdir: str | os.PathLike,
        step: int = 0,
        config: ml_collections.ConfigDict | None = None,
    ):
        self.folder = pathlib.Path(paths.expanded(workdir))
        self.folder.mkdir(parents=True, exist_ok=True)
        self._files = {}
        for name in ("metrics", "timing"):
            path = self.folder / f"{name}.jsonl"
            _truncate(path, step)
            self._files[name] = path.open("a", encoding="utf-8")
        self._board = tensorboardX.SummaryWriter(str(self.folder / "tensorboard"), purge_step=step)
        self._run = None
        self._step, self._pictures = step, dict[str, Any]()
        self._lock = threading.Lock()  # pictures come from another thread
        if config is not None and (project := config.train.wandb):
            self._run = weights_and_biases.Run(project, self.folder, config.to_dict())

    def write(self, row: dict, timing: dict) -> None:
        """Adds one row to each file and flushes it to the disk."""
        for name, values in (("metrics", row), ("timing", timing)):
            file = self._files[name]
            file.write(json.dumps(values) + "\n")
            file.flush()
            os.fsync(file.fileno())
            for key, value in values.items():
                if key != "step":
                    self._board.add_scalar(key, value, row["step"])
        self._step = row["step"]
        if self._run:
            values = {k: v for k, v in {**timing, **row}.items() if k != "step"}
            self._run.log(row["step"], values | self._taken())

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """Writes an image uint8 [h, w, 3] of a step to ``pictures/<name>/<step>.png`` and
        TensorBoard at once, and to Weights & Biases with the next row. From any thread."""
        import PIL.Image  # comes with matplotlib

        path = self.folder / "pictures" / name / f"{step:08d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        with paths.replacing(path) as file:
            PIL.Image.fromarray(image).save(file, "PNG")
        self._board.add_image(f"pictures/{name}", image, step, dataformats="HWC")
        self._send(step, f"pictures/{name}", image)

    def number(self, step: int, name: str, value: float) -> None:
        """Writes a number of a step as ``picture`` writes an image."""
        self._board.add_scalar(name, value, step)
        self._send(step, name, value)

    def _send(self, step, name, value):
        with self._lock:
            self._pictures |= {name: value, "pictures/step": step}

    def _taken(self):
        """Returns the pictures that were not sent yet, and their step: that of the row is later."""
        with self._lock:
            pictures, self._pictures = self._pictures, {}
        return pictures

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._board.close()
        if self._run:
            if pictures := self._taken():
                self._run.log(self._step + 1, pictures)  # the last row may have older ones
            self._run.close()


def read(path: str | os.PathLike, fields: Sequence[str] = ("step",)) -> list[dict]:
    """Reads rows of a JSON-lines file that have the numeric ``fields``; none without the file.
    Warns of every other line, such as a last line that a crash cut short."""
    path = pathlib.Path(paths.expanded(path))
    return _rows(path, fields)[0] if path.exists() else []


def _rows(path, fields):
    """Returns the rows, and whether the file has other lines that a crash does not explain."""
    rows, foreign = [], False
    lines = path.read_bytes().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            logging.warning("%s line %d is cut short and is dropped", path, number)
            foreign |= number < len(lines)
            continue
        lacking = [n for n in fields if not isinstance(row, dict) or not _is_number(row.get(n))]
        if lacking:
            logging.warning("%s line %d has no %s and is dropped", path, number, ", ".join(lacking))
            foreign = True
            continue
        rows.append(row)
    return rows, foreign


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)


def _truncate(path: pathlib.Path, step: int) -> None:
    if not path.exists():
        return
    rows, foreign = _rows(path, ("step",))
    if foreign:
        aside = path.with_suffix(".jsonl.damaged")
        shutil.copyfile(path, aside)
        logging.warning("%s has lines that are no rows: %s keeps it as it was", path, aside)
    paths.write_text(path, "".join(json.dumps(row) + "\n" for row in rows if row["step"] <= step))
