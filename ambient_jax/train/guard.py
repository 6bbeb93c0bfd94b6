"""Stops a run whose loss or gradient is not finite: names the step and the rows of its batch.

The step marks the first one in ``state.Sums.nonfinite``, so that nothing waits for it. What its
batch held is found afterwards: data on the devices are drawn once more, of a stream the rows of the
last batches are remembered.
"""

from __future__ import annotations

import collections
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from ambient_jax.data.paths import expanded, write_text

_SHOWN = 4


class Rows(NamedTuple):
    """What is told of a batch's rows.

    Attributes:
      id: [B, 3] = (source, episode, step).
      sigma: [B], noise levels.
      largest: [B], largest magnitude of the numbers that a row is made of, normalised (actions and
        observations, images left out): a sample that should not be there stands out by it.
    """

    id: Any
    sigma: Any
    largest: Any


def rows(batch: dict[str, Any], xp=jnp) -> Rows:
    """The rows of a batch, see ``step.make_loss``; ``xp`` is ``jax.numpy`` or ``numpy``."""
    given = [batch["action"], *jax.tree.leaves(batch["observation"])]
    numbers = [x for x in given if jnp.issubdtype(x.dtype, jnp.floating)]
    largest = [xp.max(xp.abs(x.reshape(len(x), -1)), axis=1) for x in numbers]
    return Rows(batch["id"], batch["sigma"], xp.max(xp.stack(largest), axis=0))


def redrawn(
    sampler: Callable, data: Any, key: jax.Array, step: int, size: int, sources: Any = None
) -> Rows:
    """All rows of a step's batch of data that live on the devices.

    Args:
      sampler: ``sampler(data, key, step, rows) -> batch``.
      data: as ``parallel.replicate`` made them.
      key: of the run.
      step: counted from 1.
      size: B.
      sources: in place of the data's.
    """

    @jax.jit
    def draw(data):
        data = jax.tree.map(lambda x: x[0], data)
        data = data if sources is None else data._replace(sources=sources)
        return rows(sampler(data, key, step - 1, jnp.arange(size)))

    return draw(jax.tree.map(lambda x: x.addressable_data(0), data))


class Recent:
    """The rows of a stream's last batches, this host's, kept before they are sent to devices.

    Args:
      put: sends a batch to the devices.
      size: number of batches.
    """

    def __init__(self, put: Callable[[Any], Any], size: int):
        self._put, self._rows = put, collections.deque(maxlen=size)

    def put(self, batch: dict[str, np.ndarray]) -> tuple[Rows, Any]:
        """For ``pipeline.stream_batches``, whose iterator goes to ``follow``."""
        return rows(batch, np), self._put(batch)

    def follow(self, batches: Iterator[tuple[Rows, Any]], start: int) -> Iterator[Any]:
        """The batches on the devices, of the steps after ``start``."""
        for step, (of_host, batch) in enumerate(batches, start + 1):
            self._rows.append((step, of_host))
            yield batch

    def rows(self, step: int) -> Rows:
        """All hosts' rows of a step, in order; all hosts must call it."""
        of_host = dict(self._rows)[step]
        if jax.process_count() == 1:
            return of_host
        return multihost_utils.process_allgather(of_host, tiled=True)


def stop(
    workdir: str | os.PathLike, step: int, found: Rows, names: Sequence[str], learning_rate: float
) -> NoReturn:
    """Writes ``<workdir>/nonfinite.json`` (process 0) and raises.

    Args:
      workdir: of the run.
      step: the first one whose loss or gradient is not finite, counted from 1.
      found: the rows of its batch; written with the largest numbers first.
      names: of the sources.
      learning_rate: at that step.

    Raises:
      FloatingPointError: always.
    """
    found = jax.device_get(found)
    largest = np.where(np.isnan(found.largest), np.inf, found.largest)
    order = np.argsort(-largest, kind="stable")
    listed = []
    for row in order.tolist():
        source, episode, at = found.id[row].tolist()
        size = float(largest[row])
        listed.append(
            {
                "row": row,
                "source": names[source],
                "episode": episode,
                "step": at,
                "sigma": float(found.sigma[row]),
                # JSON has no infinity.
                "largest": size if math.isfinite(size) else None,
            }
        )
    path = pathlib.Path(expanded(workdir)) / "nonfinite.json"
    if jax.process_index() == 0:
        lines = ",\n    ".join(json.dumps(row) for row in listed)
        write_text(path, f'{{\n  "step": {step},\n  "rows": [\n    {lines}\n  ]\n}}\n')
    told = ", ".join(
        f"{r['source']} {r['episode']} {r['step']} ({largest[r['row']]:.3g})"
        for r in listed[:_SHOWN]
    )
    raise FloatingPointError(
        f"loss or gradient is not finite at step {step} (learning rate {learning_rate:.3g}), "
        f"expected finite numbers; its {len(listed)} rows are in {path}, those with the largest "
        f"normalised numbers first, as source episode step (number): {told}. Mend the data if they "
        "stand out, else lower config.train.learning_rate in a new workdir; config.train.init_from "
        "takes this one's last checkpoint, which is from before"
    )
