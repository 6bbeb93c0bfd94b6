"""Where a run's arrays lie: the whole state on every device, stacked policies, or a sharded state.

===========  =========================================  ===========================================
layout       state                                      program
===========  =========================================  ===========================================
Replicated   whole on every device of every host        pmap; gradients are summed (the default)
Stacked      K policies, each on one local device       pmap of a vmap; see ``sweep``
Sharded      every large array split over all devices   jit over a mesh (FSDP, ZeRO stage 3)
===========  =========================================  ===========================================

Sharded: each device keeps 1 / N of parameters, average and moments. It gathers an array where the
network uses it, and keeps its part of the gradient (Zhao et al. 2023,
https://arxiv.org/abs/2304.11277). The backward pass may gather again; XLA also keeps casts of what
was gathered (docs/launch.md, "Memory of a device"). The numbers are those of the others up to
rounding. Checkpoints are the same files, so that a run resumes with another layout and on other
devices.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ambient_jax.train import parallel
from ambient_jax.train import state as state_lib

Create = Callable[[jax.Array], state_lib.TrainState]
LEAST = 4096  # entries of an array that is worth splitting
_GATHERED = "gathered_parameter"


class Replicated:
    """The whole state on every device. The functions of ``parallel`` say what the methods do."""

    axis: str | None = parallel.AXIS  # the step sums over it, see ``step.make_train_step``
    send = staticmethod(parallel.shard)
    streamed = staticmethod(parallel.lift_streamed)
    take_sums = staticmethod(parallel.lift_take_sums)

    @staticmethod
    def applied(apply: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        """Returns ``apply(params, ...)`` for parameters as they lie."""
        return apply

    @staticmethod
    def lay(tree: Any) -> Any:
        """Returns parameters of a program, laid as those of a state."""
        return tree

    @staticmethod
    def create(create: Create, key: jax.Array) -> state_lib.TrainState:
        """Makes the state of step 0."""
        return jax.jit(create)(key)

    @staticmethod
    def place(states: Sequence[Any]) -> Any:
        """Puts the policies' states on devices."""
        [state] = states
        return parallel.replicate(state)

    @staticmethod
    def fetch(tree: Any) -> list[Any]:
        """Returns each policy's tree on the host; all hosts must call it."""
        return [parallel.unreplicate(tree)]

    @staticmethod
    def keep(data: Any) -> Any:
        """Puts data on every device, for ``resident``."""
        return parallel.replicate(data)

    @staticmethod
    def resident(train_step: Callable, sampler: Callable, size: int, key: jax.Array) -> Callable:
        """Returns ``step(state, data) -> state``; see ``parallel.lift_resident``."""
        rows = parallel.rows_per_device(size)
        return parallel.lift_resident(train_step, sampler, rows, key)

    @staticmethod
    def kept(data: Any) -> Any:
        """Returns one device's copy of the data that ``keep`` placed."""
        return jax.tree.map(lambda x: x.addressable_data(0)[0], data)


class Stacked(Replicated):
    """K policies of one program, each on one device of this host."""

    axis = None

    @staticmethod
    def place(states: Sequence[Any]) -> Any:
        return parallel.spread(parallel.stack(states))

    @staticmethod
    def fetch(tree: Any) -> list[Any]:
        # Real copies, as the buffers are donated later.
        whole = jax.tree.map(lambda x: np.array(x).reshape(-1, *x.shape[2:]), tree)
        count = len(jax.tree.leaves(whole)[0])
        return [jax.tree.map(lambda x: x[k], whole) for k in range(count)]  # noqa: B023


class Sharded:
    """Every array of at least ``LEAST`` entries split over ``devices``, by default all."""

    axis: str | None = None  # the step is one program of the whole batch

    def __init__(self, devices: Sequence[jax.Device] | None = None):
        self.mesh = Mesh(np.array(jax.devices() if devices is None else devices), (parallel.AXIS,))
        self._whole = NamedSharding(self.mesh, PartitionSpec())
        self._rows = NamedSharding(self.mesh, PartitionSpec(parallel.AXIS))

    def sharding(self, leaf: Any) -> NamedSharding:
        """Returns how an array is split: along its longest dimension that the devices divide."""
        fits = [i for i, n in enumerate(leaf.shape) if n % self.mesh.size == 0]
        if not fits or leaf.size < LEAST:
            return self._whole
        longest = max(fits, key=lambda i: leaf.shape[i])
        return NamedSharding(self.mesh, PartitionSpec(*[None] * longest, parallel.AXIS))

    def of(self, tree: Any) -> Any:
        """Returns the sharding of each array, or shape, of a tree."""
        return jax.tree.map(self.sharding, tree)

    def shapes(self, state: Any, batch: Any) -> tuple[Any, Any]:
        """Returns the shapes of a state and a whole batch with their shardings, to compile for."""
        return (
            jax.tree.map(lambda s: s.update(sharding=self.sharding(s)), state),
            jax.tree.map(lambda s: s.update(sharding=self._rows), batch),
        )

    def applied(self, apply: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        """Returns ``apply(params, ...)`` of split parameters, whose gradient is split as they are.

        What is gathered is not kept for the backward pass, unless in another type.
        """

        def gather(leaf):
            here = self.sharding(leaf)

            @jax.custom_vjp
            def whole(x):
                return jax.lax.with_sharding_constraint(x, self._whole)

            def backward(_, gradient):
                return (jax.lax.with_sharding_constraint(gradient, here),)

            whole.defvjp(lambda x: (whole(x), None), backward)
            return checkpoint_name(whole(leaf), _GATHERED)

        policy = jax.checkpoint_policies.save_anything_except_these_names(_GATHERED)

        @functools.partial(jax.checkpoint, policy=policy)
        def gathered(params, *inputs):
            return apply(jax.tree.map(gather, params), *inputs)

        return gathered

    def create(self, create: Create, key: jax.Array) -> state_lib.TrainState:
        shapes = jax.eval_shape(create, key)
        return jax.jit(create, out_shardings=self.of(shapes))(key)

    def place(self, states: Sequence[Any]) -> Any:
        [state] = states
        return jax.tree.map(self._put, state, self.of(state))

    @staticmethod
    def _put(leaf, sharding):
        if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
            return leaf
        host = np.asarray(leaf)  # every host has the whole; each device takes its part
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    def fetch(self, tree: Any) -> list[Any]:
        def host(leaf):
            if leaf.is_fully_replicated:
                return np.array(leaf.addressable_data(0))
            if leaf.is_fully_addressable:
                return np.array(leaf)
            return multihost_utils.process_allgather(leaf, tiled=True)

        return [jax.tree.map(host, tree)]

    def send(self, batch: Any) -> Any:
        make = functools.partial(jax.make_array_from_process_local_data, self._rows)
        return jax.tree.map(make, batch)

    def streamed(self, train_step: Callable, key: jax.Array) -> Callable:
        def step(state, batch):
            return self.lay(train_step(state, self._by_row(batch), key))

        return jax.jit(step, donate_argnums=0)

    def keep(self, data: Any) -> Any:
        """Puts data on every device, for ``resident``."""
        return jax.tree.map(lambda leaf: self._put(leaf, self._whole), data)

    def resident(
        self, train_step: Callable, sampler: Callable, size: int, key: jax.Array
    ) -> Callable:
        """Returns ``step(state, data) -> state``; see ``parallel.lift_resident``."""
        parallel.rows_per_device(size)

        def step(state, data):
            batch = sampler(data, key, state.step, jnp.arange(size))
            return self.lay(train_step(state, self._by_row(batch), key))

        return jax.jit(step, donate_argnums=0)

    @staticmethod
    def kept(data: Any) -> Any:
        """Returns one device's copy of the data that ``keep`` placed."""
        return jax.tree.map(lambda x: x.addressable_data(0), data)

    def take_sums(self, empty: Any) -> Callable:
        def take(state):
            return state.replace(sums=empty), state.sums

        return jax.jit(take, donate_argnums=0, out_shardings=None)

    def _by_row(self, batch):
        return jax.lax.with_sharding_constraint(batch, self._rows)

    def lay(self, tree: Any) -> Any:
        return jax.lax.with_sharding_constraint(tree, self.of(tree))


Layout = Replicated | Sharded


def of(config: ml_collections.ConfigDict) -> Layout:
    """Returns the layout of a run of one policy, by ``train.fsdp``."""
    return Sharded() if config.train.fsdp else Replicated()
