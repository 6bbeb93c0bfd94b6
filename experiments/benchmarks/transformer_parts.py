"""Times the parts of the transformer's training step on one core of the CPU, each by itself.

    python -m experiments.benchmarks.transformer_parts

Processor time of the forward and backward pass, or of what a step does besides; the network is that
of ``train_step``. Parts overlap in a step, whose compiler fuses them: read the shares as an upper
bound on what a faster part can save.
"""

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from ambient_jax.cli import console, report
from ambient_jax.models import layers
from ambient_jax.models.convolution import product
from ambient_jax.models.denoiser import build_denoiser

HORIZON, DIMS, CONDITION, WIDTH, DEPTH, HEADS = 16, 2, 8, 128, 4, 4
COLUMNS = ("part", "times", "ms each", "ms a step", "share")


def arrays(*shapes: tuple[int, ...]) -> list[jax.Array]:
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def with_gradient(function: Callable) -> Callable:
    def both(*inputs):
        y, pull = jax.vjp(function, *inputs)
        return y, pull(y)

    return both


def milliseconds(repeats: int, function: Callable, *inputs: Any) -> float:
    """Returns the median of processor times, without compilation."""
    compiled = jax.jit(function)
    times = []
    for _ in range(repeats + 2):
        start = time.process_time()
        jax.block_until_ready(compiled(*inputs))
        times.append(time.process_time() - start)
    return 1e3 * statistics.median(times[2:])


def parts(batch: int, repeats: int) -> dict[str, tuple[int, float]]:
    """Returns how often each part comes in a step, and its milliseconds."""
    rows = batch, HORIZON
    x, wide, qkv = arrays((*rows, WIDTH), (*rows, 4 * WIDTH), (*rows, 3 * WIDTH))
    up, down, to_qkv, out = arrays(
        *((WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH), (WIDTH, 3 * WIDTH), (WIDTH, WIDTH))
    )
    scale, shift, film = arrays((batch, 1, WIDTH), (batch, 1, WIDTH), (WIDTH, 26 * WIDTH))

    def attention(qkv):
        split = (p.reshape(*rows, HEADS, -1).transpose(0, 2, 1, 3) for p in jnp.split(qkv, 3, -1))
        return layers.attend(*split, None).transpose(0, 2, 1, 3).reshape(*rows, WIDTH)

    def modulated(x, scale, shift):
        return layers.layer_norm(x) * (1 + scale) + shift

    timed = lambda f, *inputs: milliseconds(repeats, with_gradient(f), *inputs)  # noqa: E731
    return {
        "products of the MLP": (
            DEPTH,
            timed(lambda x, h, u, d: (product(x, u), product(h, d)), x, wide, up, down),
        ),
        "products of qkv and out": (
            DEPTH,
            timed(lambda x, u, d: (product(x, u), product(x, d)), x, to_qkv, out),
        ),
        "attention without its products": (DEPTH, timed(attention, qkv)),
        "GELU": (DEPTH, timed(layers.gelu, wide)),
        "layer norm, scale and shift": (2 * DEPTH + 1, timed(modulated, x, scale, shift)),
        "product of scales and shifts": (1, timed(product, x[:, 0], film)),
    }


def whole(batch: int, repeats: int) -> tuple[float, float]:
    """Returns milliseconds of the network's gradient, and of optimizer and average."""
    model = dict(name="transformer", width=WIDTH, depth=DEPTH, heads=HEADS)
    backbone = build_denoiser(model).backbone
    x, condition = arrays((batch, HORIZON, DIMS), (batch, CONDITION))
    sigma = jnp.linspace(0, 1, batch)
    params = jax.jit(backbone.init)(jax.random.key(0), x, sigma, condition)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))

    def loss(params):
        return jnp.mean((backbone.apply(params, x, sigma, condition) - x) ** 2)

    def update(params, average, moments):
        updates, moments = optimizer.update(params, moments, params)
        params = optax.apply_updates(params, updates)
        return params, jax.tree.map(lambda a, p: a + 1e-3 * (p - a), average, params), moments

    gradient = milliseconds(repeats, jax.value_and_grad(loss), params)
    return gradient, milliseconds(repeats, update, params, params, optimizer.init(params))


def table(batch: int, repeats: int) -> list[list[str]]:
    """Measures all parts and returns the rows of the table."""
    gradient, update = whole(batch, repeats)
    found = parts(batch, repeats)
    total = gradient + update
    rest = gradient - sum(times * ms for times, ms in found.values())
    found |= {"the rest of the gradient": (1, rest), "optimizer and average": (1, update)}
    rows = [
        [part, str(times), f"{ms:.2f}", f"{times * ms:.1f}", f"{times * ms / total:.0%}"]
        for part, (times, ms) in found.items()
    ]
    return [*rows, ["gradient, optimizer and average", "", "", f"{total:.1f}", "100%"]]


def main(_: list[str]) -> None:
    # Before the first computation, which sizes the pool of threads.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    print(report.markdown(COLUMNS, table(flags.FLAGS.batch, flags.FLAGS.repeats)))


if __name__ == "__main__":
    flags.DEFINE_integer("batch", 128, "rows", lower_bound=1)
    flags.DEFINE_integer("repeats", 15, "timed calls of each part", lower_bound=1)
    console.run(main)
