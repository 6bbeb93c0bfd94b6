"""Checks of a config's data section that need no data: told before any are opened."""

from __future__ import annotations

import ml_collections

from ambient_jax import _checks
from ambient_jax.data import chunk, device, normalizer
from ambient_jax.open_x import dataset as open_x

PLACEMENTS = ("device", "stream")
_LONGEST = 10_000  # steps of a history or a chunk; more is a slip of the hand


def check(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError for an option of the data section, but its sources, that cannot work.

    Args:
      config: the data section of ``train.config.default()``.
    """
    _checks.names("config.data.observation", config.observation)
    if not isinstance(config.action, str) or not config.action:
        raise ValueError(
            f"config.data.action is {config.action!r}, expected a name under steps, such as "
            "'action'"
        )
    for name in ("history", "horizon"):
        _checks.number(f"config.data.{name}", config[name], 1, _LONGEST, whole=True)
    maps = (config.normalization, config.normalize_per, config.least_range, config.outliers)
    try:
        normalizer.check_options(*maps)
    except ValueError as error:
        raise ValueError(f"config.data.{error}") from error
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
    if config.shards is not None:
        _checks.number("config.data.shards", config.shards, 1, whole=True)
    form(config.open_x)


def form(section: ml_collections.ConfigDict) -> open_x.CommonForm:
    """The common form of a section ``data.open_x``; raises ValueError for one that cannot be."""
    fields = section.to_dict()
    for name in ("cameras", "quality"):
        if isinstance(fields[name], list):
            fields[name] = tuple(fields[name])
    return open_x.CommonForm(**fields)
