"""Data sets of the experiments."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax.experimental import multihost_utils


def build_once(name: str, build: Callable[[], object]) -> None:
    """Calls ``build()`` on the first host; the others wait until it is done."""
    if jax.process_index() == 0:
        build()
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
