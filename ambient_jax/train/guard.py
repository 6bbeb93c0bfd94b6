"""Stops a run whose loss or gradient is not finite; the error names the step and its rows.

The step marks itself in ``state.Sums.nonfinite``, so that the host does not wait for it.
"""

import json
import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from ambient_jax.data import paths

_SHOWN = 4


class Rows(NamedTuple):
    """Rows of a batch: ``id`` [B, 3] = (source, episode, step), noise levels ``sigma`` [B].

    ``largest`` [B] is the largest magnitude among normalised actions and observations, except
    images.
    """

    id: Any
    sigma: Any
    largest: Any


def rows(batch: dict[str, Any], xp: Any = jnp) -> Rows:
    """Returns the rows of a batch, see ``step.make_loss``; ``xp`` is ``jax.numpy`` or ``numpy``."""
    leaves = [batch["action"], *jax.tree.leaves(batch["observation"])]
    numbers = [x for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
    largest = [xp.max(xp.abs(x.reshape(len(x), -1)), axis=1) for x in numbers]
    return Rows(batch["id"], batch["sigma"], xp.max(xp.stack(largest), axis=0))


def stop(
    workdir: str | os.PathLike, step: int, rows: Rows, names: Sequence[str], learning_rate: float
) -> NoReturn:
    """Writes ``<workdir>/nonfinite.json`` (process 0) and raises FloatingPointError. ``step``,
    counted from 1, is the first whose loss or gradient is not finite, ``rows`` its batch; ``names``
    are those of the sources."""
    ids, sigma, sizes = (np.asarray(x) for x in jax.device_get(rows))
    sizes = np.where(np.isnan(sizes), np.inf, sizes)
    order = np.argsort(-sizes, kind="stable").tolist()
    lines = []
    for row in order:
        source, episode, number = ids[row].tolist()
        # JSON has no infinity.
        largest = float(sizes[row]) if math.isfinite(sizes[row]) else None
        place = {"row": row, "source": names[source], "episode": episode, "step": number}
        lines.append(json.dumps(place | {"sigma": float(sigma[row]), "largest": largest}))
    path = paths.folder(workdir) / "nonfinite.json"
    if jax.process_index() == 0:
        listed = ",\n    ".join(lines)
        paths.write_text(path, f'{{\n  "step": {step},\n  "rows": [\n    {listed}\n  ]\n}}\n')
    first = ", ".join(
        f"{names[ids[row, 0]]} {ids[row, 1]} {ids[row, 2]} ({sizes[row]:.3g})"
        for row in order[:_SHOWN]
    )
    raise FloatingPointError(
        f"loss or gradient is not finite at step {step} (learning rate {learning_rate:.3g}), "
        f"expected finite numbers; its {len(lines)} rows are in {path}, those with the largest "
        f"normalised numbers first, as source episode step (number): {first}. Mend the data if "
        "they stand out, else lower config.train.learning_rate in a new workdir; "
        "config.train.init_from takes this one's last checkpoint, which is from before"
    )
