"""Feeds a run with batches: from data in device memory, or from a stream from disk.

Both feeds have ``step_fn(state, batch) -> state``, the train step lifted over the devices;
``batches``, an endless iterator of its batches; ``state()``, the position to save with a
checkpoint (or None); and ``rows_at(step, policy)``, the rows of a step's batch, for ``guard``.
"""

import collections
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.experimental import multihost_utils

from ambient_jax import mixing
from ambient_jax.data import device, pipeline
from ambient_jax.data import mixture as mixtures
from ambient_jax.data.paths import AnyPath
from ambient_jax.train import guard, parallel
from ambient_jax.train import layout as layouts
from ambient_jax.train.config import build
from ambient_jax.train.parts import Parts


class DeviceFeed:
    """Data in device memory, from which the compiled step draws its batch.

    The layout "stacked" has a config for each policy (``parallel.lift_policies``); ``parts`` are
    built from the first.
    """

    def __init__(
        self,
        configs: Sequence[ml_collections.ConfigDict],
        parts: Parts,
        mixture: mixtures.Mixture,
        layout: layouts.Layout,
    ):
        stacked = isinstance(layout, layouts.Stacked)
        config, law = configs[0], parts.law
        self._layout, self._size = layout, config.train.batch_size
        self._keys = [jax.random.key(c.seed) for c in configs]
        self._sources: list[mixing.Sources | None] = [None]
        if stacked:  # the laws resolve to one law, whose weights are arrays
            laws = [build(mixing, c.law) for c in configs]
            resolved = [
                mixing.resolve(law, mixtures.weighted_sources(c.data, law, mixture.statistics))
                for c, law in zip(configs, laws, strict=True)
            ]
            law, self._sources = resolved[0][0], [sources for _, sources in resolved]
        resident = device.load_device_data(mixture)
        self._sampler = mixture.sampler(law, parts.schedule)
        if not stacked:
            self._data = batch = layout.keep(resident)
            inputs = parts.train_step, self._sampler, self._size, self._keys[0]
            self.step_fn = layout.resident(*inputs)
        else:
            devices = parallel.policy_devices(len(configs))
            self._data = parallel.replicate(resident, devices)
            self.step_fn = parallel.lift_policies(
                parts.train_step, self._sampler, self._size, devices
            )
            stacks = parallel.stack(self._sources), jnp.stack(self._keys)
            batch = (self._data, *map(parallel.spread, stacks))
        self.batches: Iterator[Any] = itertools.repeat(batch)

    def state(self) -> None:
        """Returns None, as the draws of a step are a function of its number."""

    def rows_at(self, step: int, policy: int = 0) -> guard.Rows:
        """Draws all rows of a step's batch (counted from 1) again."""
        key, sources = self._keys[policy], self._sources[policy]

        @jax.jit
        def draw(data):
            data = data if sources is None else data._replace(sources=sources)
            return guard.rows(self._sampler(data, key, step - 1, jnp.arange(self._size)))

        return draw(self._layout.kept(self._data))


class StreamFeed:
    """A stream from disk; each host reads its own rows of the batches.

    It begins after ``start`` steps at ``position``, the ``state()`` at that step. Raises ValueError
    for a wrong position or other shards, and as ``pipeline.stream_batches`` does.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        parts: Parts,
        mixture: mixtures.Mixture,
        layout: layouts.Layout,
        start: int,
        position: Any,
        workdir: AnyPath,
    ):
        shards = config.data.shards
        if start:
            position = _merged(position, workdir / "checkpoints" / str(start))
            saved = position["of"]["shards"]
            if shards not in (None, saved):
                raise ValueError(
                    f"workdir {workdir} holds a run with data.shards = {saved}, this one has "
                    f"{shards}: give another --workdir, or data.shards = {saved} to resume"
                )
            shards = saved
        self.step_fn = layout.streamed(parts.train_step, jax.random.key(config.seed))
        self._stream = pipeline.stream_batches(
            mixture,
            parts.law,
            parts.schedule,
            seed=config.seed,
            batch_size=config.train.batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            shards=shards,
            put=lambda batch: (guard.rows(batch, np), layout.send(batch)),
        )
        if start:
            self._stream.set_state(position)
        # Reports are one interval late.
        self._recent: collections.deque[tuple[int, guard.Rows]] = collections.deque(
            maxlen=2 * config.train.log_every
        )
        self.batches: Iterator[Any] = self._follow(start)

    def _follow(self, start):
        for step, (rows, batch) in enumerate(self._stream, start + 1):
            self._recent.append((step, rows))
            yield batch

    def state(self) -> list[Any]:
        """Returns every host's position in the stream, in order; all hosts must call it."""
        position = self._stream.get_state()
        if jax.process_count() == 1:
            return [position]
        text = np.frombuffer(json.dumps(position).encode(), np.uint8)
        sizes = multihost_utils.process_allgather(np.asarray(text.size))
        padded = np.zeros(int(np.max(sizes)), np.uint8)
        padded[: text.size] = text
        rows = multihost_utils.process_allgather(padded)
        return [json.loads(bytes(row[:n])) for row, n in zip(rows, sizes, strict=True)]

    def rows_at(self, step: int, policy: int = 0) -> guard.Rows:
        """Returns all hosts' rows of one of the last steps, in order; all hosts must call it."""
        rows = dict(self._recent)[step]
        if jax.process_count() == 1:
            return rows
        return multihost_utils.process_allgather(rows, tiled=True)


def _merged(states: Any, folder: AnyPath) -> dict[str, Any]:
    """Joins the positions of all hosts in a checkpoint to that of the whole stream."""
    try:
        position = pipeline.merge(states)
        # Older versions call shards lanes.
        position["of"] = {{"lanes": "shards"}.get(n, n): v for n, v in position["of"].items()}
        count, _ = int(position["of"]["shards"]), int(position["step"])
        if sorted(map(int, position["taken"])) == list(range(count)):
            return position
    except (TypeError, KeyError, IndexError, ValueError, AttributeError):
        pass
    raise ValueError(
        f"checkpoint {folder} has no position of the data stream in data (it has "
        f"{json.dumps(states)[:60]}): move it away to resume from the one before"
    )
