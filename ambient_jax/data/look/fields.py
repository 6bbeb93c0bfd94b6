"""The fields of a data set, measured episode by episode: numbers and texts."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ambient_jax.data.features import Leaf
from ambient_jax.data.look.cameras import short
from ambient_jax.data.moments import Moments
from ambient_jax.data.normalizer import Outlier, outliers_of

WIDE = 1024  # numbers a step; of more, all are measured as one
TEXTS = 10_000  # different texts that are counted
# Fields that number steps and episodes, rather than describe the robot.
BOOKKEEPING = frozenset(
    f"steps/{n}"
    for n in (
        *("timestamp", "frame_index", "episode_index", "index", "task_index"),
        *("is_first", "is_last", "is_terminal", "next.done"),
    )
)
_ACTION = re.compile(r"steps/actions?(?!\w)")


@dataclasses.dataclass(frozen=True)
class Numbers:
    """A field of numbers.

    Attributes:
      path, dtype, shape: of one value.
      names: of its numbers, () where unknown.
      moments: over all steps [d]; [1] of all its numbers as one where these are more than
        ``WIDE``; None where no step has finite numbers.
      constant: whether each never changes, [d] bool.
      outliers: see ``normalizer.outliers_of``.
    """

    path: str
    dtype: str
    shape: tuple[int | None, ...]
    names: tuple[str, ...]
    moments: Moments | None
    constant: np.ndarray
    outliers: tuple[Outlier, ...]

    @property
    def size(self) -> int:
        """Numbers of one value, as far as the shape is known."""
        return int(np.prod([d or 1 for d in self.shape]))

    def name_of(self, dim: int) -> str:
        """The name of a number, or its place."""
        if self.names:
            return self.names[dim]
        if len(self.shape) < 2 or self.size != len(self.constant):
            return str(dim)
        return ", ".join(map(str, np.unravel_index(dim, [d or 1 for d in self.shape])))


@dataclasses.dataclass(frozen=True)
class Texts:
    """A field of texts: ``counts`` are the episodes in which each occurs, the most common first;
    ``more`` says that there are others beyond the first ``TEXTS``."""

    path: str
    counts: Mapping[str, int]
    more: bool


class NumbersMeter:
    """Measures one field of numbers."""

    def __init__(self, leaf: Leaf, names: Sequence[str]):
        self._leaf, self._names = leaf, tuple(names)
        self._moments: Moments | None = None

    def add(self, values: np.ndarray, episode: int) -> Iterator[tuple[str, str]]:
        """Takes an episode's values [T, ...]; yields (kind, text) of what is wrong with them.

        Steps with a number that is not finite are left out.
        """
        name = short(self._leaf.path)
        rows = as_rows(values)
        finite = np.isfinite(rows)
        if not finite.all():
            steps, dims = np.nonzero(~finite)
            what = "NaN" if np.isnan(rows[steps[0], dims[0]]) else "infinite"
            dim = int(dims[0])
            label = self._names[dim] if dim < len(self._names) else str(dim)
            bad = len(np.unique(steps))
            yield (
                "not finite",
                f"{name} [{label}] is {what} at step {steps[0]} "
                f"({bad} {'step' if bad == 1 else 'steps'} of {len(rows)})",
            )
            rows = rows[finite.all(axis=1)]
        if rows.shape[1] > WIDE:
            rows = rows.reshape(-1, 1)
        if not rows.size:
            return
        new, known = Moments.of(rows, episode), self._moments
        if known is not None and known.mean.size != new.mean.size:
            text = f"{name} has {new.mean.size} numbers a step, before it {known.mean.size}"
            yield "other size", text
        else:
            self._moments = new if known is None else known.merge(new)

    def result(self) -> Numbers:
        leaf, moments = self._leaf, self._moments
        field = Numbers(leaf.path, str(leaf.dtype), leaf.shape, (), None, np.zeros(0, bool), ())
        if moments is None:
            return field
        d = moments.mean.size
        magnitude = np.maximum(np.abs(moments.min), np.abs(moments.max))
        outliers = [] if leaf.path in BOOKKEEPING else outliers_of(moments)
        if d == 1 and field.size > WIDE:  # rows are numbers, not steps
            outliers = [o._replace(step=o.step // field.size) for o in outliers]
        return dataclasses.replace(
            field,
            names=self._names if len(self._names) == d else (),
            moments=moments,
            constant=moments.max - moments.min <= moments.rounding * magnitude,
            outliers=tuple(outliers),
        )


class TextsMeter:
    """Counts the texts of one field."""

    def __init__(self, path: str):
        self._path, self._more = path, False
        self._counts: collections.Counter[str] = collections.Counter()

    def add(self, values: np.ndarray) -> Iterator[tuple[str, str]]:
        """Takes an episode's texts [T]; yields (kind, text) of what is wrong with them."""
        texts = {as_text(value) for value in values.flat}
        for text in texts:
            if text in self._counts or len(self._counts) < TEXTS:
                self._counts[text] += 1
            else:
                self._more = True
        if "instruction" in self._path and any(not text.strip() for text in texts):
            yield "empty instruction", f"{short(self._path)} is empty"

    def result(self) -> Texts:
        return Texts(self._path, dict(self._counts.most_common()), self._more)


def as_rows(values: np.ndarray) -> np.ndarray:
    """Values [T, ...] as rows of numbers, [T, d] float64."""
    return values.reshape(len(values), int(np.prod(values.shape[1:]))).astype(np.float64)


def as_text(value: Any) -> str:
    """A stored text, which may be bytes of any kind."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def is_action(path: str) -> bool:
    """Whether a field is the action, or a part of it."""
    return bool(_ACTION.match(path))


def rank(path: str) -> int:
    """Place of a field in a table: actions, what is observed, other steps, once an episode."""
    if path in BOOKKEEPING:
        return 3
    if is_action(path):
        return 0
    if path.startswith("steps/"):
        return 1 if path.startswith("steps/observation/") else 2
    return 4
