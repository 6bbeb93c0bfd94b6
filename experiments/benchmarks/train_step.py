"""Times a whole training step of each denoiser, in JAX and in PyTorch, on the CPU.

A step is what training does: noise a batch, predict eps, mean squared error, gradient, clip by
global norm, AdamW, exponential moving average of the parameters; in JAX jitted with its state
donated, in PyTorch eager and compiled, with the same weights, checked to compute the same function.
Repeats of all sides are interleaved in one process: read the ratios rather than the milliseconds.
Beside other work, OpenMP's barriers make PyTorch wait for whole time slices: use --cores=1.

    python -m experiments.benchmarks.train_step --batch=128,256 --repeats=15
"""

import copy
import functools
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from absl import flags, logging

from ambient_jax.cli import console, report
from ambient_jax.models.denoiser import build_denoiser
from experiments.benchmarks import networks_torch
from experiments.benchmarks.flops import flops_per_step

HORIZON, DIMS, CONDITION = 16, 2, 8
CONFIGS = {
    "unet-32": {"name": "unet", "features": (32, 64, 128)},
    "unet-64": {"name": "unet", "features": (64, 128, 256)},
    "transformer": {"name": "transformer", "width": 128, "depth": 4, "heads": 4},
}
COLUMNS = ("network", "params", "batch", "GFLOP/step", "JAX ms", "torch ms", "compiled ms")
COLUMNS += ("torch / JAX", "compiled / JAX", "JAX GFLOP/s", "product GFLOP/s", "difference")
Clock = Callable[[], float]
RATE, DECAY, CLIP, EMA = 3e-4, 1e-4, 1.0, 0.999


class Batch(NamedTuple):
    x0: Any
    eps: Any
    sigma: Any
    condition: Any


def make_batch(size: int, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    chunk = (size, HORIZON, DIMS)
    arrays = rng.normal(size=chunk), rng.normal(size=chunk), rng.uniform(size=size)
    return Batch(*(a.astype(np.float32) for a in (*arrays, rng.normal(size=(size, CONDITION)))))


def init_params(backbone) -> Any:
    """Returns parameters away from zero, so that a comparison tests all of them."""
    batch = make_batch(2)
    params = jax.jit(backbone.init)(jax.random.key(0), batch.x0, batch.sigma, batch.condition)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noised = [p + 0.02 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, noised)


def jax_step(backbone) -> tuple[Callable, optax.GradientTransformation]:
    optimizer = optax.chain(optax.clip_by_global_norm(CLIP), optax.adamw(RATE, weight_decay=DECAY))

    def loss_fn(params, batch):
        sigma = batch.sigma[:, None, None]
        x_t = jnp.sqrt(1 - sigma**2) * batch.x0 + sigma * batch.eps
        eps_hat = backbone.apply(params, x_t, batch.sigma, batch.condition)
        return jnp.mean((eps_hat - batch.eps) ** 2)

    def step(state, batch):
        params, ema, opt_state = state
        loss, grads = jax.value_and_grad(loss_fn)(params, batch)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        ema = jax.tree.map(lambda e, p: e + (1 - EMA) * (p - e), ema, params)
        return (params, ema, opt_state), loss

    return jax.jit(step, donate_argnums=0), optimizer


def torch_network(name: str) -> torch.nn.Module:
    config = dict(CONFIGS[name])
    if config.pop("name") == "unet":
        return networks_torch.UNet1D(DIMS, CONDITION, **config)
    return networks_torch.TransformerDenoiser(DIMS, CONDITION, HORIZON, **config)


def torch_step(module: torch.nn.Module, compiled: bool) -> Callable[[Batch], float]:
    ema = copy.deepcopy(module)
    averages = list(ema.parameters())
    parameters = list(module.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=DECAY, foreach=True)
    forward = torch.compile(module) if compiled else module

    def step(batch):
        sigma = batch.sigma[:, None, None]
        x_t = (1 - sigma**2).sqrt() * batch.x0 + sigma * batch.eps
        loss = torch.mean((forward(x_t, batch.sigma, batch.condition) - batch.eps) ** 2)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP, foreach=True)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(averages, parameters, 1 - EMA)
        return loss.item()

    return step


def matmul_floor(clock: Clock) -> Callable[[], float]:
    """Returns a closure that gives GFLOP/s of a product the size of the networks' own."""
    rows, inner, columns, times = 2048, 640, 128, 16
    a = jax.random.normal(jax.random.key(0), (rows, inner))
    b = jax.random.normal(jax.random.key(1), (inner, columns))
    product = jax.jit(lambda a, b: [(a + i) @ b for i in range(times)])
    jax.block_until_ready(product(a, b))

    def run() -> float:
        start = clock()
        jax.block_until_ready(product(a, b))
        return 2e-9 * rows * inner * columns * times / (clock() - start)

    return run


def compare(
    name: str,
    batch_size: int,
    repeats: int,
    compiled: bool = True,
    clock: Clock = time.perf_counter,
) -> list[str]:
    """Checks, times and returns one row of the table; raises AssertionError if sides differ."""
    floor = matmul_floor(clock)
    backbone = build_denoiser(CONFIGS[name]).backbone
    params = init_params(backbone)
    module = torch_network(name)
    networks_torch.load_flax(module, jax.device_get(params["params"]))
    batch = make_batch(batch_size)
    torch_batch = Batch(*map(torch.from_numpy, batch))

    reference = module(torch_batch.x0, torch_batch.sigma, torch_batch.condition).detach().numpy()
    output = jax.jit(backbone.apply)(params, batch.x0, batch.sigma, batch.condition)
    difference = float(np.max(np.abs(output - reference)) / np.max(np.abs(reference)))
    count = sum(p.size for p in jax.tree.leaves(params))
    if count != sum(p.numel() for p in module.parameters()) or not difference < 1e-5:
        raise AssertionError(f"{name}: JAX and PyTorch differ by {difference:.1e}.")

    step, optimizer = jax_step(backbone)
    # Copies, since a donated buffer must not be there twice.
    state = params, jax.tree.map(jnp.copy, params), optimizer.init(params)
    flops = flops_per_step(backbone, params, batch_size, HORIZON)

    def run_jax():
        nonlocal state
        state, loss = step(state, jax.device_put(batch))
        return float(loss)

    sides: dict[str, Callable[[], float]] = {"jax": run_jax}
    for side in ("torch", "compiled")[: 1 + compiled]:
        run = torch_step(copy.deepcopy(module), compiled=side == "compiled")
        sides[side] = functools.partial(run, torch_batch)
    losses = {side: run() for side, run in sides.items()}
    logging.info(
        "%s, batch %d: outputs within %.1e of their largest, losses %s",
        *(name, batch_size, difference, losses),
    )

    times: dict[str, list[float]] = {side: [] for side in sides}
    floors = []
    for _ in range(repeats):
        # OpenMP's threads spin for a while after their work, on the other side's cores: wait, and
        # let an untimed step bring each side's own threads and caches back.
        for side, run in sides.items():
            time.sleep(0.3)
            run()
            start = clock()
            run()
            times[side].append(clock() - start)
        floors.append(floor())
    ms = {side: 1e3 * statistics.median(values) for side, values in times.items()}
    ratio = {
        side: statistics.median(t / j for t, j in zip(times[side], times["jax"], strict=True))
        for side in sides
    }
    return [
        *(name, f"{count / 1e6:.2f}M", str(batch_size), f"{flops / 1e9:.1f}"),
        *(f"{ms[side]:.1f}" if side in ms else "-" for side in ("jax", "torch", "compiled")),
        *(f"{ratio[side]:.2f}" if side in ratio else "-" for side in ("torch", "compiled")),
        f"{flops / ms['jax'] / 1e6:.0f}",
        *(f"{statistics.median(floors):.0f}", f"{difference:.0e}"),
    ]


def main(_: list[str]) -> None:
    values = flags.FLAGS
    if values.cores:
        # Before the first computation: both sides size their pools of threads by it.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: values.cores])
        torch.set_num_threads(values.cores)
    clock = time.process_time if values.cores == 1 else time.perf_counter
    rows = []
    for name in values.networks:
        if name not in CONFIGS:
            sys.exit(f"error: --networks has {name!r}, expected some of {', '.join(CONFIGS)}")
        for size in values.batch:
            rows.append(compare(name, int(size), values.repeats, values.compiled, clock))
    print(report.markdown(COLUMNS, rows))


if __name__ == "__main__":
    flags.DEFINE_list("networks", list(CONFIGS), "Which networks.")
    flags.DEFINE_list("batch", ["128", "256"], "Batch sizes.")
    flags.DEFINE_integer("repeats", 15, "Timed steps of each side, interleaved.")
    flags.DEFINE_integer(
        "cores",
        0,
        "Cores to use, 0 for all. With 1, CPU time is measured: it hardly feels other load.",
    )
    flags.DEFINE_boolean("compiled", True, "Also time torch.compile (slow to compile).")
    console.run(main)
