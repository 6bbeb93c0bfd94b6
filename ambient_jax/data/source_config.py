"""Sources as a config states them: their fields, defaults and what cannot be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import ml_collections

from ambient_jax import _checks, admission
from ambient_jax.data import last_step

ROLES = ("clean", "corrupt")
_DEFAULTS = {"split": "train", "weight": 1.0, "sigma_min": 0.0, "sigma_max": None}
_DEFAULTS |= {"bounds": "", "open_x": "", "last_step": ""}
_FIELDS = ("path", "role", *_DEFAULTS)


def read(config: ml_collections.ConfigDict, complete: bool = True) -> dict[str, dict[str, Any]]:
    """The fields of each source of a data section by its name, with their defaults.

    Args:
      config: the data section.
      complete: False for a template, whose sources may still lack paths.

    Raises:
      ValueError: for the first field that is missing, unknown or cannot be, named with its source.
    """
    if not config.sources:
        raise ValueError(
            "config.data.sources is empty, expected at least one RLDS folder, such as "
            "config.data.sources.demos = source('path/to/demos', 'clean')"
        )
    specs = {}
    for name, given in config.sources.items():
        given = dict(given) if isinstance(given, Mapping | ml_collections.ConfigDict) else {}
        for field in given:
            _checks.one_of(f"field of config.data.sources.{name}", field, _FIELDS)
        for field in ("path", "role"):
            if not given.get(field) and (complete or field == "role"):
                raise ValueError(f"config.data.sources.{name}.{field} is missing")
        spec = _DEFAULTS | given
        _check_types(name, spec)
        if config.bounds and spec["role"] == "corrupt" and not spec["bounds"]:
            spec |= {"bounds": config.bounds, "sigma_min": 0.0, "sigma_max": None}
        _checks.one_of(f"config.data.sources.{name}.role", spec["role"], ROLES)
        if not (spec["weight"] >= 0 and math.isfinite(spec["weight"])):
            raise ValueError(
                f"config.data.sources.{name}.weight is {spec['weight']}, expected a finite number "
                ">= 0, which multiplies the number of chunks"
            )
        if spec["last_step"]:
            last = f"config.data.sources.{name}.last_step"
            _checks.one_of(last, spec["last_step"], last_step.CHOICES)
        _check_bounds_file(config, name, spec)
        specs[name] = spec | {"sigma_max": _sigma_max(name, spec)}
    return specs


def _check_types(name, spec):
    for field in ("path", "role", "split", "bounds", "last_step"):
        if not isinstance(spec.get(field, ""), str):
            raise ValueError(f"config.data.sources.{name}.{field} is {spec[field]!r}, expected str")
    for field in ("weight", "sigma_min", "sigma_max"):
        if spec[field] is not None or field != "sigma_max":
            _checks.number(f"config.data.sources.{name}.{field}", spec[field])


def _check_bounds_file(config, name, spec):
    if not spec["bounds"]:
        return
    if spec["role"] == "clean" or spec["sigma_min"] != 0 or spec["sigma_max"] is not None:
        raise ValueError(
            f"config.data.sources.{name} has a bounds file and the role {spec['role']!r}, "
            f"sigma_min {spec['sigma_min']}, sigma_max {spec['sigma_max']}: expected a corrupt "
            "source whose bounds are those of the file alone"
        )


def _sigma_max(name, spec):
    low, high = spec["sigma_min"], spec["sigma_max"]
    admission.check_bounds(low, high, [name], ordered=spec["role"] != "clean")
    if spec["role"] == "clean" and (low > 0 or high not in (None, 1)):
        raise ValueError(
            f"source {name!r} is clean and has sigma_min {low}, sigma_max {high}: clean data train "
            "every noise level; leave the bounds out, or give it the role 'corrupt'"
        )
    if high is None:
        return 0.0 if low > 0 else 1.0  # as ``admission``, without a device
    return float(high)
