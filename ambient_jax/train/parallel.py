"""Lifts the step over devices by ``jax.pmap`` and moves data to them.

Every array of a pmapped function has a leading axis of local devices. With several hosts
(``initialize``), each feeds its own devices and the axis spans them all.
"""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

AXIS = "batch"
TIMEOUT = 120  # s that hosts wait for each other at the start


def initialize(
    coordinator: str = "", num_processes: int = 0, process_id: int = -1, *, timeout: int = TIMEOUT
) -> None:
    """Joins a multi-host run; call before any other use of JAX.

    Args:
      coordinator: host:port of process 0; "auto" on a TPU pod or under Slurm, where
        ``jax.distributed`` finds the other arguments; "" for a single process, which does nothing.
      num_processes, process_id: with a host:port, on each host.
      timeout: seconds that hosts wait for each other; then process 0 ends the program.

    Raises ValueError for inconsistent arguments, OSError without an answer or for a port in use.
    """
    alone = (num_processes, process_id) in [(0, -1), (1, -1), (1, 0)]
    if coordinator in ("", "auto") and not alone:
        raise ValueError(
            f"num_processes is {num_processes} and process_id {process_id} and the coordinator "
            f"{coordinator!r}, expected a coordinator host:port, or neither of the two"
        )
    if not coordinator:
        return
    if coordinator == "auto":
        try:
            jax.distributed.initialize()
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                f"the coordinator is 'auto' and no run of several hosts could be joined ({error}): "
                "expected a TPU pod, Slurm or the like, or give host:port"
            ) from error
    else:
        host, port = _address(coordinator)
        if num_processes < 1 or not 0 <= process_id < num_processes:
            raise ValueError(
                f"num_processes is {num_processes} and process_id {process_id}, expected 0 <= "
                "process_id < num_processes on each host"
            )
        if timeout < 1:
            raise ValueError(f"the coordinator's timeout is {timeout}, expected at least 1 second")
        logging.info(
            "host %d of %d: waiting up to %d s for the others, coordinator %s",
            *(process_id, num_processes, timeout, coordinator),
        )
        _reach(host, port, process_id, timeout)
        # CPU devices of several processes communicate over gloo; accelerators ignore this setting.
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        late = threading.Timer(timeout, _end, (coordinator, num_processes, timeout))
        late.daemon = True
        late.start()
        # JAX's limit would abort the process with a trace.
        jax.distributed.initialize(
            coordinator, num_processes, process_id, initialization_timeout=timeout + 60
        )
        late.cancel()
    counts = (jax.local_device_count(), jax.device_count())
    logging.info(
        "host %d of %d, %d local of %d devices", jax.process_index(), jax.process_count(), *counts
    )


def _address(coordinator: str) -> tuple[str, int]:
    host, colon, port = coordinator.rpartition(":")
    plain = host.startswith("[") and host.endswith("]") or not set(host) & set(":/@ ")
    if not (colon and host and plain and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(
            f"the coordinator is {coordinator!r}, expected host:port of process 0, such as "
            "10.0.0.1:1234, or 'auto'"
        )
    return host.strip("[]"), int(port)


def _reach(host: str, port: int, process_id: int, timeout: float) -> None:
    """Waits for a listener at the address; on process 0, checks that the port is free."""
    if process_id == 0:
        try:
            socket.create_server(("", port)).close()
        except OSError as error:
            raise OSError(f"port {port} of the coordinator cannot be used here: {error}") from error
        return
    end = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise TimeoutError(
                    f"no coordinator answers at {host}:{port} within {timeout} s ({error}): start "
                    "process 0 there, check host and port, or wait longer (--coordinator_timeout)"
                ) from error
            time.sleep(0.2)


def _end(coordinator: str, num_processes: int, timeout: float) -> None:
    """Ends a process that waits inside JAX, where no exception reaches it."""
    message = f"not all of {num_processes} processes have come to the coordinator {coordinator} "
    message += f"within {timeout} s: start the others, or wait longer (--coordinator_timeout)"
    print(f"error: {message}", file=sys.stderr, flush=True)
    os._exit(1)


def rows_per_device(batch_size: int) -> int:
    """Returns the rows of the global batch per device; raises ValueError unless they divide."""
    devices = jax.device_count()
    if batch_size < 1 or batch_size % devices:
        raise ValueError(
            f"train.batch_size is {batch_size}, expected a positive multiple of the {devices} "
            f"devices ({jax.process_count()} hosts x {jax.local_device_count()})"
        )
    return batch_size // devices


def replicate(tree: Any, count: int | None = None) -> Any:
    """Copies the tree to every local device, or the first ``count`` (leading axis)."""
    devices = jax.local_devices()[:count]
    stacked = jax.tree.map(lambda x: np.broadcast_to(x, (len(devices), *np.shape(x))), tree)
    return jax.pmap(lambda x: x, axis_name=AXIS, devices=devices)(stacked)


def unreplicate(tree: Any) -> Any:
    """Copies the first device's tree to the host; a real copy, as buffers are donated later."""
    return jax.tree.map(lambda x: np.array(x.addressable_data(0))[0], tree)


def _split(tree: Any, devices: int) -> Any:
    """Reshapes [N, ...] to [devices, N / devices, ...]."""
    return jax.tree.map(lambda x: x.reshape(devices, x.shape[0] // devices, *x.shape[1:]), tree)


def shard(batch: Any) -> Any:
    """Splits a host's batch [B, ...] over its devices, [devices, B/devices, ...], and sends it."""
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()), (AXIS,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS))
    split = _split(batch, jax.local_device_count())
    return jax.tree.map(lambda x: jax.device_put(x, sharding), split)


def lift_streamed(
    train_step: Callable, key: jax.Array, devices: Sequence[jax.Device] | None = None
) -> Callable:
    """Returns ``step(state, batch) -> state`` for a sharded batch, which donates the state.
    ``devices``, by default all, may be those of a topology, to compile for."""
    step = lambda state, batch: train_step(state, batch, key)  # noqa: E731
    return jax.pmap(step, axis_name=AXIS, donate_argnums=0, devices=devices)


def lift_resident(train_step: Callable, sampler: Callable, rows: int, key: jax.Array) -> Callable:
    """Returns ``step(state, data) -> state`` for data in device memory.

    ``sampler(data, key, step, rows) -> batch`` draws by rows of the global batch, so the draws do
    not depend on the number of devices.
    """

    def step(state, data):
        local = jax.lax.axis_index(AXIS) * rows + jnp.arange(rows)
        return train_step(state, sampler(data, key, state.step, local), key)

    return jax.pmap(step, axis_name=AXIS, donate_argnums=0)


def lift_take_sums(empty: Any) -> Callable:
    """Returns ``state -> (state with empty sums, sums)`` for lifted states, without waiting."""

    def take(state):
        clear = lambda new, old: jnp.broadcast_to(new, old.shape)  # noqa: E731
        return state.replace(sums=jax.tree.map(clear, empty, state.sums)), state.sums

    return jax.pmap(take, donate_argnums=0)


def any_host(flag: bool) -> bool:
    """Whether the flag is set on any host; all hosts must call it at the same step."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def is_first_host() -> bool:
    """Whether this is process 0; unlike ``jax.process_index`` it starts no devices."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def tell_all(line: str) -> str:
    """Returns process 0's line (up to 2000 bytes) on every host; all hosts must call it."""
    if not jax.distributed.is_initialized():
        return line
    text = line.encode()[:2000]
    padded = np.frombuffer(text.ljust(2000, b"\0"), np.uint8)
    received = multihost_utils.broadcast_one_to_all(padded)
    return bytes(np.asarray(received, np.uint8)).rstrip(b"\0").decode(errors="ignore")


def policy_devices(policies: int) -> int:
    """Returns the largest number of local devices that divides the number of policies."""
    return max(d for d in range(1, jax.local_device_count() + 1) if policies % d == 0)


def spread(tree: Any) -> Any:
    """Splits the leading axis of K policies over devices: [K, ...] to [devices, K/devices, ...]."""
    return jax.pmap(lambda x: x)(_split(tree, policy_devices(len(jax.tree.leaves(tree)[0]))))


def lift_policies(train_step: Callable, sampler: Callable, rows: int, devices: int) -> Callable:
    """Returns ``step(states, (data, sources, keys)) -> states`` for independent policies.

    States, sources and keys are ``spread``; the data are on each device once ([devices, ...]). A
    policy gets the same batches as in a training of its own.
    """

    def step_of_policy(state, data, sources, key):
        batch = sampler(data._replace(sources=sources), key, state.step, jnp.arange(rows))
        return train_step(state, batch, key)

    mapped = jax.vmap(step_of_policy, in_axes=(0, None, 0, 0))
    step = lambda states, inputs: mapped(states, *inputs)  # noqa: E731
    return jax.pmap(step, donate_argnums=0, devices=jax.local_devices()[:devices])


def stack(trees: Sequence[Any]) -> Any:
    """Stacks trees of one structure along a new leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
