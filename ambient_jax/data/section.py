"""Checks the options and sources of a config's data section, before opening data."""

from collections.abc import Mapping
from typing import Any

import ml_collections

from ambient_jax import _checks, admission, observations
from ambient_jax.data import chunk, device, normalizer

PLACEMENTS = ("device", "stream")
ROLES = ("clean", "corrupt")
_LONGEST = 10_000  # largest plausible number of steps of a history or a chunk
_DEFAULTS = {"split": "train", "weight": 1.0, "sigma_min": 0.0, "sigma_max": None}
_DEFAULTS |= {"bounds": "", "format": "", "open_x": "", "last_step": "", "group": ""}
_DEFAULTS |= {"observation_min": 0.0}
_FIELDS = ("path", "role", *_DEFAULTS)


def check_options(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError for an impossible option of the data section, except for its sources."""
    _checks.names("config.data.observation", config.observation)
    if not isinstance(config.action, str) or not config.action:
        raise ValueError(
            f"config.data.action is {config.action!r}, expected a name under steps, such as "
            "'action'"
        )
    for name in ("history", "horizon"):
        _checks.number(f"config.data.{name}", config[name], 1, _LONGEST, whole=True)
    maps = (config.normalization, config.normalize_per, config.least_range, config.outliers)
    normalizer.check_options(*maps, "config.data.")
    _checks.one_of("config.data.order", config.order, device.ORDERS)
    _checks.one_of("config.data.padding", config.padding, chunk.PADDINGS)
    _checks.one_of("config.data.placement", config.placement, PLACEMENTS)
    if config.placement == "stream" and config.order != "noise_first":
        raise ValueError(
            "config.data.order is 'data_first' and placement 'stream': a stream is noise first; "
            "set order to 'noise_first' or placement to 'device'"
        )
    _checks.number("config.data.shuffle_window", config.shuffle_window, 1, whole=True)
    if config.shuffle_memory is not None:  # GiB
        _checks.number(
            "config.data.shuffle_memory", config.shuffle_memory, 0, above=True, below=True
        )
    _checks.number("config.data.prefetch", config.prefetch, 0, 10_000, whole=True)
    _checks.number("config.data.assemblers", config.get("assemblers", 1), 1, 1024, whole=True)
    if config.shards is not None:
        _checks.number("config.data.shards", config.shards, 1, whole=True)


def sources(config: ml_collections.ConfigDict, complete: bool = True) -> dict[str, dict[str, Any]]:
    """Returns the fields of each source of a data section by its name, with their defaults.

    Raises:
      ValueError: a field is missing, unknown or impossible. Only ``complete`` requires a path.
    """
    if not config.sources:
        raise ValueError(
            "config.data.sources is empty, expected at least one RLDS folder, such as "
            "config.data.sources.demos = source('path/to/demos', 'clean')"
        )
    return {name: _source(config, name, own, complete) for name, own in config.sources.items()}


def _source(config, name, values, complete):
    where = f"config.data.sources.{name}"
    values = dict(values) if isinstance(values, Mapping | ml_collections.ConfigDict) else {}
    if ":" not in str(values.get("format", "")):  # another package's format may have other fields
        for field in values:
            _checks.one_of(f"field of {where}", field, _FIELDS)
    for field in ("path", "role"):
        if not values.get(field) and (complete or field == "role"):
            raise ValueError(f"{where}.{field} is missing")
    fields = _DEFAULTS | values
    for field in ("path", "role", "split", "bounds", "format", "last_step", "group"):
        if not isinstance(fields.get(field, ""), str):
            raise ValueError(f"{where}.{field} is {fields[field]!r}, expected str")
    _checks.number(f"{where}.weight", fields["weight"], 0, below=True)
    for field in ("sigma_min", "sigma_max"):
        if fields[field] is not None or field != "sigma_max":
            _checks.number(f"{where}.{field}", fields[field])
    try:
        knots = observations.curve(fields["observation_min"])
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if fields["role"] == "clean" and any(knots[1]):
        raise ValueError(
            f"{where} is clean and has an observation_min: clean data train every level of the "
            "observations' noise; leave it out, or give it the role 'corrupt'"
        )
    if config.bounds and fields["role"] == "corrupt" and not fields["bounds"]:
        fields |= {"bounds": config.bounds, "sigma_min": 0.0, "sigma_max": None}
    role, low, high = fields["role"], fields["sigma_min"], fields["sigma_max"]
    _checks.one_of(f"{where}.role", role, ROLES)
    if fields["last_step"]:
        _checks.one_of(f"{where}.last_step", fields["last_step"], chunk.LAST_STEPS)
    if fields["bounds"] and (role == "clean" or low != 0 or high is not None):
        raise ValueError(
            f"{where} has a bounds file and the role {role!r}, sigma_min {low}, sigma_max {high}: "
            "expected a corrupt source whose bounds are those of the file alone"
        )
    admission.check_bounds(low, high, [name], ordered=role != "clean")
    if role == "clean" and (low > 0 or high not in (None, 1)):
        raise ValueError(
            f"source {name!r} is clean and has sigma_min {low}, sigma_max {high}: clean data train "
            "every noise level; leave the bounds out, or give it the role 'corrupt'"
        )
    if high is None:
        high = 0.0 if low > 0 else 1.0  # as ``admission``, without a device
    return fields | {"sigma_max": float(high)}
