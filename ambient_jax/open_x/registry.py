"""The registry: 75 data sets as rows of three tables that lie beside this file.

``registry.csv`` says what each is, ``standardization.csv`` how it becomes the common form (in the
vocabulary of `spec`), ``schema.csv`` the features as stored. They were read from public code and
documentation, not from the data: what those leave open, or contradict, is in ``doubts``. Motions
are taken to be in the axes of the robot's base where no source says otherwise.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import importlib.resources
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from absl import logging

from ambient_jax import _checks
from ambient_jax.open_x import spec as spec_lib

MIXTURES = ("rtx", "magic_soup", "magic_soup_plus", "wide")
"""RT-X (11 data sets), Magic Soup (25), Magic Soup++ (27) and a wide one (50)."""

_INFO_COLUMNS = (
    *("name", "tfds", "version", "robot", "hz", "episodes", "action_encoding", "state_encoding"),
    *("doubts", "remarks"),
)
_warned: set[str] = set()


@dataclasses.dataclass(frozen=True)
class DataSet:
    """One data set.

    Attributes:
      name: by which mixtures call it.
      tfds: name of its folder; ``""`` if it is not public as TFDS.
      version: that the row describes.
      robot: in words.
      hz: control rate; None if unknown.
      episodes: of the training split; None if unknown.
      action_encoding: EEF_POS (xyz, rpy, gripper), JOINT_POS, NAV_2D, ...
      state_encoding: POS_EULER, POS_QUAT, JOINT, ..., or NONE.
      weights: by mixture, multiplies the size of the data set.
      doubts: what no source settles; `warn_doubts` logs it.
      remarks: what is worth knowing.
      lines: the row of standardization.csv.
      schema: the row of schema.csv.
    """

    name: str
    tfds: str
    version: str
    robot: str
    hz: float | None
    episodes: int | None
    action_encoding: str
    state_encoding: str
    weights: Mapping[str, float]
    doubts: str
    remarks: str
    lines: Mapping[str, str]
    schema: str

    @functools.cached_property
    def spec(self) -> spec_lib.Spec:
        """How it becomes the common form."""
        return self._spec(self.lines["action"])

    @functools.cached_property
    def otherwise(self) -> spec_lib.Spec | None:
        """The same with the other reading of a doubtful action, where there is one."""
        return self._spec(self.lines["otherwise"]) if self.lines["otherwise"] else None

    def _spec(self, action: str) -> spec_lib.Spec:
        rest = {k: v for k, v in self.lines.items() if k not in ("name", "action", "otherwise")}
        return spec_lib.parse({**rest, "action": action, "hz": self.hz}, self.name)


@functools.cache
def data_sets() -> Mapping[str, DataSet]:
    """All data sets by name."""
    info = _table("registry.csv")
    lines, schema = _table("standardization.csv"), _table("schema.csv")
    return MappingProxyType({n: _data_set(row, lines[n], schema[n]) for n, row in info.items()})


def get(name: str) -> DataSet:
    """One data set.

    Raises:
      ValueError: the registry has none of that name (the nearest is named).
    """
    found = data_sets()
    if name not in found:
        raise ValueError(
            f"the Open-X registry has no data set {name!r}{_checks.nearest(name, found)}: for one "
            "of your own write its spec (see ambient_jax.open_x.spec)"
        )
    return found[name]


def mixture(name: str | Mapping[str, float], own: Iterable[str] = ()) -> dict[str, float]:
    """Weights by data set, of a mixture of the registry or of one's own.

    A weight multiplies the size of the data set: at 1 its steps count like all others.

    Args:
      name: one of `MIXTURES`, or weights by data set.
      own: names of data sets that the registry need not know, because they have specs of their own.

    Raises:
      ValueError: an unknown mixture or data set, or a weight that is not positive and finite.
    """
    if isinstance(name, str):
        _checks.one_of("mixture", name, MIXTURES)
        return {d.name: d.weights[name] for d in data_sets().values() if name in d.weights}
    if not name:
        raise ValueError("the mixture is empty: give weights by data set")
    own = frozenset(own)
    for data_set, weight in name.items():
        if data_set not in own:
            get(data_set)
        if not isinstance(weight, int | float) or not 0 < weight < float("inf"):
            raise ValueError(
                f"weight of {data_set} is {weight!r}, expected a positive number: leave a data set "
                "out to give it none"
            )
    return {data_set: float(weight) for data_set, weight in name.items()}


def warn_doubts(names: Iterable[str]) -> dict[str, str]:
    """Logs the doubts about data sets, of each once in a process.

    Returns:
      The doubts by name, logged now or before; data sets without doubts are left out.

    Raises:
      ValueError: the registry has none of that name.
    """
    doubts = {name: get(name).doubts for name in names}
    doubts = {name: text for name, text in doubts.items() if text}
    for name in [n for n in doubts if n not in _warned]:
        other = get(name).lines["otherwise"]
        hint = f"; the other reading: {other}" if other else ""
        logging.warning("%s is doubtful: %s%s", name, doubts[name], hint)
        _warned.add(name)
    return doubts


def _table(file: str) -> dict[str, dict[str, str]]:
    text = (importlib.resources.files(__package__) / file).read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    return {row["name"]: row for row in rows}


def _data_set(row: dict[str, str], lines: dict[str, str], schema: dict[str, str]) -> DataSet:
    given: dict[str, Any] = {n: row[n] for n in _INFO_COLUMNS}
    given["hz"] = float(row["hz"]) if row["hz"] else None
    given["episodes"] = int(row["episodes"]) if row["episodes"] else None
    weights = {m: float(row[m]) for m in MIXTURES if row[m]}
    return DataSet(
        **given,
        weights=MappingProxyType(weights),
        lines=MappingProxyType(lines),
        schema=schema["fields"],
    )
