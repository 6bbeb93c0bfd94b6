"""The one place that knows of devices: the step lifted by ``jax.pmap``, and data moved to it.

Every array that a pmapped function takes has a leading axis of local devices. With several hosts
(``initialize``), each feeds its own devices and the axis spans them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

AXIS = "batch"


def initialize(coordinator: str = "", num_processes: int = 0, process_id: int = -1) -> None:
    """Joins a multi-host run; call before any other use of JAX.

    With no arguments on a TPU pod or under Slurm, ``jax.distributed`` finds the rest by itself:
    pass coordinator="auto". The empty string means a single process, and does nothing.
    """
    if not coordinator:
        return
    if coordinator == "auto":
        jax.distributed.initialize()
    else:
        if num_processes < 1 or not 0 <= process_id < num_processes:
            raise ValueError(
                f"num_processes is {num_processes} and process_id {process_id}, expected 0 <= "
                "process_id < num_processes on each host"
            )
        # CPU devices of several processes talk over gloo; accelerators ignore this setting.
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(coordinator, num_processes, process_id)
    logging.info(
        "host %d of %d, %d local of %d devices",
        jax.process_index(),
        jax.process_count(),
        jax.local_device_count(),
        jax.device_count(),
    )


def rows_per_device(batch_size: int) -> int:
    """Rows of the global batch on each device; raises ValueError when they do not divide."""
    devices = jax.device_count()
    if batch_size < 1 or batch_size % devices:
        raise ValueError(
            f"train.batch_size is {batch_size}, expected a positive multiple of the {devices} "
            f"devices ({jax.process_count()} hosts x {jax.local_device_count()})"
        )
    return batch_size // devices


def replicate(tree: Any, count: int | None = None) -> Any:
    """Puts a copy of the tree on every local device, or the first ``count`` (leading axis)."""
    devices = jax.local_devices()[:count]
    stacked = jax.tree.map(lambda x: np.broadcast_to(x, (len(devices), *np.shape(x))), tree)
    return jax.pmap(lambda x: x, axis_name=AXIS, devices=devices)(stacked)


def unreplicate(tree: Any) -> Any:
    """The first device's copy, on the host; a real copy, as the buffers are donated later."""
    return jax.tree.map(lambda x: np.array(x.addressable_data(0))[0], tree)


def shard(batch: Any) -> Any:
    """Splits a host's batch [B, ...] over its devices, [devices, B/devices, ...], and sends it."""
    devices = jax.local_device_count()
    split = jax.tree.map(lambda x: x.reshape(devices, x.shape[0] // devices, *x.shape[1:]), batch)
    sharding = _sharding()
    return jax.tree.map(lambda x: jax.device_put(x, sharding), split)


def _sharding():
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()), (AXIS,))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS))


def lift_streamed(
    train_step: Callable, key: jax.Array, devices: Sequence[jax.Device] | None = None
) -> Callable:
    """``step(state, batch) -> state`` for a sharded batch; the state's buffers are donated.

    ``devices`` (default: all) may be absent ones, to compile for.
    """
    step = lambda state, batch: train_step(state, batch, key)  # noqa: E731
    return jax.pmap(step, axis_name=AXIS, donate_argnums=0, devices=devices)


def lift_resident(train_step: Callable, sampler: Callable, rows: int, key: jax.Array) -> Callable:
    """``step(state, data) -> state`` for data that live on the devices.

    ``sampler(data, key, step, rows) -> batch`` chooses inside the compiled step; ``rows`` are this
    device's of the global batch, so the choice does not depend on the number of devices.
    """

    def step(state, data):
        mine = jax.lax.axis_index(AXIS) * rows + jnp.arange(rows)
        return train_step(state, sampler(data, key, state.step, mine), key)

    return jax.pmap(step, axis_name=AXIS, donate_argnums=0)


def lift_take_sums(empty: Any) -> Callable:
    """``state -> (state with empty sums, the first device's sums [1, ...])``, without waiting."""
    take = jax.pmap(
        lambda state: (state.replace(sums=empty), state.sums), axis_name=AXIS, donate_argnums=0
    )

    def take_sums(state):
        state, sums = take(state)
        return state, jax.tree.map(lambda x: x.addressable_data(0), sums)

    return take_sums


def any_host(flag: bool) -> bool:
    """True if the flag is set on any host; all hosts must call it at the same step."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def is_first_host() -> bool:
    """Whether this is process 0; unlike ``jax.process_index`` it starts no devices."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def tell_all(line: str) -> str:
    """Process 0's line (up to 2000 bytes), on every host; all hosts must call it."""
    if not jax.distributed.is_initialized():
        return line
    text = line.encode()[:2000]
    padded = np.frombuffer(text.ljust(2000, b"\0"), np.uint8)
    told = multihost_utils.broadcast_one_to_all(padded)
    return bytes(np.asarray(told, np.uint8)).rstrip(b"\0").decode(errors="ignore")


def policy_devices(policies: int) -> int:
    """The largest number of local devices that K policies divide over evenly."""
    return max(d for d in range(1, jax.local_device_count() + 1) if policies % d == 0)


def spread(tree: Any) -> Any:
    """Splits the leading axis of K policies over devices: [K, ...] to [devices, K/devices, ...]."""

    def split(x):
        devices = policy_devices(x.shape[0])
        return x.reshape(devices, x.shape[0] // devices, *x.shape[1:])

    return jax.pmap(lambda x: x)(jax.tree.map(split, tree))


def gather(tree: Any) -> Any:
    """Undoes ``spread``, on the host; real copies, as the buffers are donated later."""
    return jax.tree.map(lambda x: np.array(x).reshape(-1, *x.shape[2:]), tree)


def lift_policies(train_step: Callable, sampler: Callable, rows: int, devices: int) -> Callable:
    """``step(states, (data, sources, keys)) -> states`` for policies that never talk to each other.

    States, sources and keys are ``spread``; the data are on each device once ([devices, ...]).
    Row for row a policy's batches are those that it has alone.
    """

    def one(state, data, sources, key):
        batch = sampler(data._replace(sources=sources), key, state.step, jnp.arange(rows))
        return train_step(state, batch, key)

    many = jax.vmap(one, in_axes=(0, None, 0, 0))
    return jax.pmap(
        lambda states, inputs: many(states, *inputs),
        donate_argnums=0,
        devices=jax.local_devices()[:devices],
    )


def lift_take_policy_sums(empty: Any) -> Callable:
    """``states -> (states with empty sums, sums)`` of ``spread`` states, without waiting."""

    def take(states):
        clear = lambda new, old: jnp.broadcast_to(new, old.shape)  # noqa: E731
        return states.replace(sums=jax.tree.map(clear, empty, states.sums)), states.sums

    return jax.pmap(take, donate_argnums=0)
