"""Draws batches from small data in device memory, inside the compiled step."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ambient_jax import mixing, schedules
from ambient_jax.data import chunk, noise_first
from ambient_jax.data.groups import Groups
from ambient_jax.data.source import Episode, Source

Array = Any  # jax.Array, or np.ndarray before it is put on a device
ORDERS = ("noise_first", "data_first")


class DeviceData(NamedTuple):
    """Steps of all sources, one after the other; chunks are cut from them when they are drawn.

    Attributes:
      steps: "action" [N, D] and "observation/<name>" [N, d], normalised float32, and
        ``chunk.STILL`` if it is needed.
      start, end: [N] int32, positions of the first step of a step's episode and of one past its
        last.
      episode: [N] int32, the episode's id in its source.
      offset, size: [G] int32, first place and number of steps of each group, see ``groups``.
      sources: weights, bounds and roles of the groups, which are the sources of a law.
      order: [N] int32, the position at each place; None if they are the same.
      owner: [G] int32, the source of each group; None if they are the same.
      constants: fields that are constant for a source, see ``with_constants``.
    """

    steps: dict[str, Array]
    start: Array
    end: Array
    episode: Array
    offset: Array
    size: Array
    sources: mixing.Sources
    order: Array | None = None
    owner: Array | None = None
    constants: Mapping[str, Array] = {}


def load_device_data(mixture: Any) -> DeviceData:
    """Reads all episodes of a ``mixture.Mixture`` into host memory, for devices."""
    total = sum(s.num_steps for s in mixture.statistics.values())
    if total >= 2**31:
        raise ValueError(
            f"the sources have {total} steps, more than one device holds: set "
            "config.data.placement to 'stream'"
        )
    first = mixture.statistics[mixture.names[0]].fields
    steps = {name: np.empty((total, m.mean.size), np.float32) for name, m in first.items()}
    start, end, episode = (np.empty(total, np.int32) for _ in range(3))
    sizes = np.array([mixture.statistics[n].num_steps for n in mixture.names], np.int32)
    position = 0
    for k, name in enumerate(mixture.names):
        for index, raw in episodes(mixture.datasets[name], mixture.statistics[name].lengths):
            arrays = mixture.read(k, index, raw)
            stop = position + len(arrays[chunk.ACTION])
            for field, values in arrays.items():
                if field not in steps:  # chunk.STILL, which has no statistics
                    steps[field] = np.empty((total, values.shape[1]), np.float32)
                steps[field][position:stop] = values
            start[position:stop], end[position:stop] = position, stop
            episode[position:stop] = index
            position = stop
    columns = steps, start, end, episode, (np.cumsum(sizes) - sizes).astype(np.int32), sizes
    data = DeviceData(*columns, mixture.sources, constants=dict(mixture.constants))
    split = any(group is not None for group in mixture.groups.of_step)
    return _grouped(data, mixture.groups) if split else data


def episodes(
    source: Source, lengths: np.ndarray, files: range | None = None
) -> Iterator[tuple[int, Episode]]:
    """Yields (id, episode) of episodes that have steps, of all files or some; reads no others."""
    ends = np.cumsum(source.shard_lengths)
    for shard in range(len(ends)) if files is None else files:
        filled = np.flatnonzero(lengths[ends[shard] - source.shard_lengths[shard] : ends[shard]])
        for run in np.split(filled, np.flatnonzero(np.diff(filled) > 1) + 1):
            first = int(run[0]) if len(run) else 0
            yield from itertools.islice(source.stream(shard, first), len(run))


def _grouped(data: DeviceData, groups: Groups) -> DeviceData:
    """Orders the steps of each source by their group."""
    order, sizes = [], []
    for k, of_step in enumerate(groups.of_step):
        group = np.zeros(data.size[k], np.int32) if of_step is None else of_step
        order.append(data.offset[k] + np.argsort(group, kind="stable"))
        sizes.append(np.bincount(group, minlength=np.count_nonzero(groups.owner == k)))
    size = np.concatenate(sizes).astype(np.int32)
    return data._replace(
        offset=(np.cumsum(size) - size).astype(np.int32),
        size=size,
        sources=groups.sources,
        order=np.concatenate(order).astype(np.int32),
        owner=groups.owner,
    )


def sample_batch(
    data: DeviceData,
    key: Array,
    step: Array,
    rows: Array,
    *,
    law: mixing.Law,
    schedule: schedules.Schedule,
    history: int,
    horizon: int,
    order: str = "noise_first",
    padding: str = "mask",
) -> dict[str, Any]:
    """Draws a batch of chunks with replacement, uniformly inside the source that the law draws.

    It is pure and jittable. A row depends only on (key, step, row).

    Args:
      data: all sources.
      key: key of the run.
      step: number of the train step, scalar.
      rows: indices of the rows in the global batch, [B].
      law, schedule: give sigma and P(source | sigma).
      history, horizon: T and H.
      padding: "mask" or "hold", see ``chunk``.
      order: "noise_first", or "data_first", whose batch has an importance ``weight`` [B].

    Returns:
      observation {name: [B, T, d]}, action [B, H, D], mask [B, H], sigma, source, sigma_min and
      sigma_max [B] (the bounds that the law obeys), id [B, 3] = (source, episode, step) and the
      fields of ``with_constants``.
    """
    keys = noise_first.row_keys(noise_first.stream_key(key, "choice"), step, rows)

    def one_row(row_key):
        weight = {}
        if order == "noise_first":
            sigma, source, within = noise_first.draw(row_key, law, data.sources, schedule)
        else:
            sigma, source, within, weight["weight"] = noise_first.draw_data_first(
                row_key, law, data.sources, schedule
            )
        return sigma, source, noise_first.index(within, data.size[source]), weight

    sigma, source, index, weight = jax.vmap(one_row)(keys)
    position = data.offset[source] + index
    if data.order is not None:
        position = data.order[position]
    start = data.start[position]
    observation, action, mask = chunk.gather(
        data.steps, position, start, data.end[position], history, horizon, padding=padding
    )
    _, bounded = mixing.resolve(law, data.sources)
    owner = source if data.owner is None else data.owner[source]
    batch = {
        "observation": observation,
        "action": action,
        "mask": mask,
        "sigma": sigma,
        "source": owner,
        "sigma_min": bounded.sigma_min[source],
        "sigma_max": bounded.sigma_max[source],
        "id": jnp.stack([owner, data.episode[position], position - start], axis=-1),
        **weight,
    }
    return with_constants(batch, data.constants, history)


def with_constants(batch: dict[str, Any], constants: Mapping[str, Any], history: int, xp=jnp):
    """Adds fields that are constant for a source, by the batch's ``source`` [B].

    ``constants`` are [K, d] by name, such as the action's mask "dims", which becomes [B, d];
    "observation/<name>" becomes histories [B, T, d].
    """
    for name, values in constants.items():
        rows = values[batch["source"]]
        if name.startswith(chunk.OBSERVATION):
            history_of = xp.repeat(rows[:, None], history, axis=1)
            batch["observation"][name.removeprefix(chunk.OBSERVATION)] = history_of
        else:
            batch[name] = rows
    return batch
