"""Stops a run whose loss or gradient is not finite: names the step and the rows of its batch.

The step marks the first one in ``state.Sums.nonfinite``, so that nothing waits for it. What its
batch held is found afterwards: data on the devices are drawn once more, of a stream the rows of the
last batches are remembered.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from ambient_jax.data.paths import expanded

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
        text = f'{{\n  "step": {step},\n  "rows": [\n    {lines}\n  ]\n}}\n'
        temporary = path.with_suffix(".tmp")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
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
