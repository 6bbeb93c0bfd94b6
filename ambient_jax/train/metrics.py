"""Writes sums from the devices as rows of ``metrics.jsonl``, ``timing.jsonl`` and TensorBoard.

``metrics.jsonl`` has no times, so that a resumed run writes the file of an uninterrupted one. In
a bucket, which cannot append, each row is an object ``metrics/<step>.jsonl``; ``read`` joins them,
also in a copy of the workdir.
"""

import json
import os
import pathlib
import re
import shutil
import tempfile
import threading
import uuid
from collections.abc import Sequence
from concurrent import futures
from typing import Any

import ml_collections
import numpy as np
import tensorboardX
from absl import logging

from ambient_jax.data import paths
from ambient_jax.data.bucket import BucketPath
from ambient_jax.data.paths import AnyPath
from ambient_jax.train import state as state_lib
from ambient_jax.train import weights_and_biases

_READERS = 16  # threads that read parts


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


class _File:
    """Rows at the end of a local file, each on the disk when ``add`` returns."""

    def __init__(self, path: pathlib.Path, step: int):
        _truncate(path, step)
        self._file = path.open("a", encoding="utf-8")

    def add(self, row: dict) -> None:
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._file.close()


class _Parts:
    """Rows as objects, which a thread writes in their order. ``flush`` waits for them and raises
    the first error, as does the next ``add``."""

    def __init__(self, path: BucketPath, step: int):
        self._folder = path.with_suffix("")
        for part in _parts(path):
            if _number(part) > step:
                part.unlink()
        if path.is_file():  # from a copy of a local workdir
            _truncate(path, step)
        self._thread = futures.ThreadPoolExecutor(1)
        self._pending: list[futures.Future] = []

    def add(self, row: dict) -> None:
        path, text = self._folder / f"{row['step']:08d}.jsonl", json.dumps(row) + "\n"
        while self._pending and self._pending[0].done():
            self._pending.pop(0).result()
        self._pending.append(self._thread.submit(path.write_text, text))

    def flush(self) -> None:
        while self._pending:
            self._pending.pop(0).result()

    def close(self) -> None:
        try:
            self.flush()
        finally:
            self._thread.shutdown()


class Writer:
    """Appends rows to ``<workdir>/metrics.jsonl``, TensorBoard and ``config.train.wandb``. It first
    drops rows after ``step``, which an interrupted run may have left."""

    def __init__(
        self,
        workdir: str | os.PathLike,
        step: int = 0,
        config: ml_collections.ConfigDict | None = None,
    ):
        self.folder = paths.folder(workdir)
        self.folder.mkdir(parents=True, exist_ok=True)
        files = {name: self.folder / f"{name}.jsonl" for name in ("metrics", "timing")}
        self._files: dict[str, Any] = {
            name: _Parts(path, step) if isinstance(path, BucketPath) else _File(path, step)
            for name, path in files.items()
        }
        self._temporary = None
        if isinstance(self.folder, BucketPath):
            self._temporary = tempfile.TemporaryDirectory(prefix="ambient_jax-tensorboard-")
        board = self._temporary.name if self._temporary else str(self.folder / "tensorboard")
        # Names of event files have seconds: in a bucket a file would replace another's.
        suffix = f".{uuid.uuid4().hex[:8]}" if self._temporary else ""
        self._board = tensorboardX.SummaryWriter(board, purge_step=step, filename_suffix=suffix)
        self._run = None
        self._step, self._pictures = step, dict[str, Any]()
        self._lock = threading.Lock()  # pictures come from another thread
        if config is not None and (project := config.train.wandb):
            self._run = weights_and_biases.Run(project, self.folder, config.to_dict())

    def write(self, row: dict, timing: dict) -> None:
        """Adds one row to each file and flushes it to the disk; see ``flush`` for a bucket."""
        for name, values in (("metrics", row), ("timing", timing)):
            self._files[name].add(values)
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

    def flush(self) -> None:
        """Waits until all rows are in the bucket, if the workdir is in one; call it before a
        checkpoint is saved. Raises OSError if they cannot be written."""
        for file in self._files.values():
            file.flush()
        if self._temporary:
            self._board.flush()
            self._upload()

    def _upload(self):
        for file in pathlib.Path(self._temporary.name).iterdir():
            (self.folder / "tensorboard" / file.name).upload(file)

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._board.close()
        if self._temporary:
            self._upload()
            self._temporary.cleanup()
        if self._run:
            if pictures := self._taken():
                self._run.log(self._step + 1, pictures)  # the last row may have older ones
            self._run.close()


def read(path: str | os.PathLike, fields: Sequence[str] = ("step",)) -> list[dict]:
    """Reads rows of a JSON-lines file, or of its parts, that have the numeric ``fields``; none
    without either. Warns of every other line, such as a last line that a crash cut short."""
    file = paths.folder(path)
    rows = _rows(file, fields)[0] if file.exists() else []
    # A part that the file has, too, is left from a copy of a workdir in a bucket.
    last = max((row["step"] for row in rows if "step" in row), default=-1)
    parts = [part for part in _parts(file) if _number(part) > last]
    with futures.ThreadPoolExecutor(_READERS) as pool:
        return rows + [r for part, _ in pool.map(lambda p: _rows(p, fields), parts) for r in part]


def _parts(path: AnyPath) -> list[AnyPath]:
    """Returns the parts of a file of rows, by their steps."""
    folder = path.with_suffix("")
    if folder == path or not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if _number(p) >= 0), key=_number)


def _number(part: AnyPath) -> int:
    match = re.fullmatch(r"(\d+)\.jsonl", part.name)
    return int(match[1]) if match else -1


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


def _truncate(path: AnyPath, step: int) -> None:
    parts = _parts(path) if isinstance(path, pathlib.Path) else []
    if not path.exists() and not parts:
        return
    rows, foreign = _rows(path, ("step",)) if path.exists() else ([], False)
    if foreign:
        aside = path.with_suffix(".jsonl.damaged")
        aside.write_bytes(path.read_bytes())
        logging.warning("%s has lines that are no rows: %s keeps it as it was", path, aside)
    if parts:  # a copy of a workdir in a bucket, whose parts become the file
        rows = read(path)
    paths.write_text(path, "".join(json.dumps(row) + "\n" for row in rows if row["step"] <= step))
    if parts:
        shutil.rmtree(path.with_suffix(""))
