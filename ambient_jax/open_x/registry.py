"""The registry: 75 data sets as rows of three tables beside this file.

``registry.csv`` describes the data sets, ``standardization.csv`` defines their conversion to the
common form (in the vocabulary of `spec`), ``schema.csv`` lists the stored features. The tables come
from public code and documentation, not from the data; ``doubts`` has open questions and
contradictions. Motions are in the axes of the robot's base unless a source states other axes.
"""

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
"""RT-X (11 data sets), Magic Soup (25), Magic Soup++ (27) and a wide mixture (50)."""

_warned: set[str] = set()


@dataclasses.dataclass(frozen=True)
class DataSet:
    """One data set: a row of each table."""

    name: str  # in mixtures
    tfds: str  # name of its folder; "" if it is not public as TFDS
    version: str  # the version that the row describes
    robot: str
    hz: float | None  # control rate; None if unknown
    episodes: int | None  # of the training split; None if unknown
    action_encoding: str  # EEF_POS (xyz, rpy, gripper), JOINT_POS, NAV_2D, ...
    state_encoding: str  # POS_EULER, POS_QUAT, JOINT, ..., or NONE
    weights: Mapping[str, float]  # by mixture; each multiplies the size of the data set
    doubts: str  # questions that no source answers; `warn_doubts` logs them
    remarks: str
    lines: Mapping[str, str]  # of standardization.csv
    schema: str  # of schema.csv

    @functools.cached_property
    def spec(self) -> spec_lib.Spec:
        """Returns the conversion to the common form."""
        return self._spec(self.lines["action"])

    @functools.cached_property
    def otherwise(self) -> spec_lib.Spec | None:
        """Returns the spec with the other reading of a doubtful action, if there is one."""
        return self._spec(self.lines["otherwise"]) if self.lines["otherwise"] else None

    def _spec(self, action: str) -> spec_lib.Spec:
        lines = {k: v for k, v in self.lines.items() if k not in ("name", "otherwise")}
        return spec_lib.parse({**lines, "action": action, "hz": self.hz}, self.name)


@functools.cache
def data_sets() -> Mapping[str, DataSet]:
    """Returns all data sets by name."""
    info = _table("registry.csv")
    lines, schema = _table("standardization.csv"), _table("schema.csv")
    return MappingProxyType({n: _data_set(row, lines[n], schema[n]) for n, row in info.items()})


def get(name: str) -> DataSet:
    """Returns a data set; raises ValueError for an unknown name, with the nearest."""
    rows = data_sets()
    if name not in rows:
        raise ValueError(
            f"the Open-X registry has no data set {name!r}{_checks.nearest(name, rows)}: for one "
            "of your own write its spec (see ambient_jax.open_x.spec)"
        )
    return rows[name]


def mixture(name: str | Mapping[str, float], own: Iterable[str] = ()) -> dict[str, float]:
    """Returns weights by data set, which multiply its size: with weight 1 all steps count alike.

    ``name`` is one of `MIXTURES`, or weights by data set; data sets in ``own`` need no registry
    row. Raises ValueError for an unknown mixture or data set, or a weight that is not positive.
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
    """Returns the doubts about data sets by name, without empty ones, and logs each once."""
    doubts = {name: get(name).doubts for name in names}
    doubts = {name: text for name, text in doubts.items() if text}
    for name in [n for n in doubts if n not in _warned]:
        reading = get(name).lines["otherwise"]
        hint = f"; the other reading: {reading}" if reading else ""
        logging.warning("%s is doubtful: %s%s", name, doubts[name], hint)
        _warned.add(name)
    return doubts


def _table(file: str) -> dict[str, dict[str, str]]:
    text = (importlib.resources.files(__package__) / file).read_text(encoding="utf-8")
    return {row["name"]: row for row in csv.DictReader(text.splitlines())}


def _data_set(row: dict[str, str], lines: dict[str, str], schema: dict[str, str]) -> DataSet:
    columns: dict[str, Any] = {n: v for n, v in row.items() if n not in MIXTURES}
    columns["hz"] = float(row["hz"]) if row["hz"] else None
    columns["episodes"] = int(row["episodes"]) if row["episodes"] else None
    weights = MappingProxyType({m: float(row[m]) for m in MIXTURES if row[m]})
    mapped = MappingProxyType(lines)
    return DataSet(**columns, weights=weights, lines=mapped, schema=schema["fields"])
