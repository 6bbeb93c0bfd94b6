"""Ratios inside the library: ambient against denoising step, import time, latency of a policy."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

from ambient_jax import corruption, losses, optim, schedules
from ambient_jax.models.denoiser import build_denoiser
from ambient_jax.policy import solvers
from ambient_jax.train import config as config_lib
from ambient_jax.train import state as state_lib
from ambient_jax.train import step as step_lib
from experiments.benchmarks import harness

HISTORY, HORIZON, DIM = 2, 16, 2
FEATURES = (32, 64, 128)  # of the U-Net


def _network(batch, features):
    model = build_denoiser({"name": "unet", "features": features})
    keys = jax.random.split(jax.random.key(0), 4)
    observation = {"state": jax.random.normal(keys[0], (batch, HISTORY, 4))}
    x = jax.random.normal(keys[1], (batch, HORIZON, DIM))
    params = jax.jit(model.init)(keys[2], x, jnp.ones(batch) / 2, observation)["params"]
    return lambda p, *a: model.apply({"params": p}, *a), params, observation, x


def loss_row(
    batch: int = 128, repeats: int = 60, features: tuple[int, ...] = FEATURES
) -> list[str]:
    """Times a train step with the ambient loss over one with the denoising loss."""
    apply, params, observation, x = _network(batch, features)
    config = config_lib.default().train
    data = {
        "observation": observation,
        "action": x,
        "mask": jnp.ones((batch, HORIZON), bool),
        "sigma": jnp.linspace(0.05, 1, batch),
        "sigma_min": jnp.where(jnp.arange(batch) % 2, 0.1, 0.0),
        "sigma_max": jnp.where(jnp.arange(batch) % 2, 0.0, 1.0),
        "source": jnp.arange(batch) % 2,
        "id": jnp.arange(3 * batch).reshape(batch, 3),
    }
    steps = []
    for loss in step_lib.LOSSES:
        optimizer = optim.make_optimizer(config)
        train_step = step_lib.make_train_step(step_lib.Objective(loss=loss), apply, optimizer)
        compiled = jax.jit(train_step, donate_argnums=0)
        state = state_lib.create(jax.tree.map(jnp.copy, params), optimizer, 2)
        run = lambda s, compiled=compiled: compiled(s, data, jax.random.key(0))  # noqa: E731
        steps.append(harness.chained(run, state))
    seconds = harness.interleaved(steps, repeats)
    return [
        "ambient step / denoising step",
        harness.ratio_cell(seconds, 3),
        f"{np.median(seconds[0]) * 1e3:.1f} ms denoising, U-Net {harness.widths(features)}, "
        f"batch {batch}",
    ]


def latency_row(
    batch: int, steps: int = 20, repeats: int = 20, features: tuple[int, ...] = FEATURES
) -> list[str]:
    """Times one action chunk by DDIM."""
    apply, params, observation, x = _network(batch, features)

    @jax.jit
    def act(keys):
        denoise = lambda x, s: apply(params, x, jnp.broadcast_to(s, x.shape[:1]), observation)  # noqa: E731
        options = dict(solver="ddim", steps=steps, schedule=schedules.vp(), prediction="eps")
        return solvers.solve(denoise, keys, x.shape[1:], **options)

    keys = jax.random.split(jax.random.key(1), batch)
    seconds = harness.interleaved([lambda: jax.block_until_ready(act(keys))], repeats)[0]
    return [
        f"DDIM, {steps} steps, {batch} chunks at once",
        f"{np.median(seconds) * 1e3:.1f} ms",
        f"{batch / np.median(seconds):.0f} chunks/s",
    ]


def weighting_row(sigma_min: float, draws: int = 1_000_000) -> list[str]:
    """Measures gradient noise of the ambient loss's weightings at the best prediction.

    For standard normal x0 the best eps prediction is sigma x_t. Compared is the variance of a
    step's direction, var(dL/dh) / E[d2L/dh2]^2 over the training law above sigma_min.
    """
    keys = jax.random.split(jax.random.key(0), 4)
    x0, e, z = (jax.random.normal(k, (draws, 1, 1)) for k in keys[:3])
    sigma = sigma_min + (1 - sigma_min) * jax.random.uniform(keys[3], (draws,))
    x_min = corruption.add_noise(x0, e, sigma_min)
    x_t = jax.vmap(lambda x, n, s: corruption.renoise(x, n, s, sigma_min))(x_min, z, sigma)
    h = sigma[:, None, None] * x_t
    noise = {}
    for weighting in losses.WEIGHTINGS:
        loss = lambda h, w=weighting: jnp.sum(  # noqa: E731
            losses.batch_ambient_loss(h, x_min, z, sigma, sigma_min, weighting=w)
        )
        gradient = jax.grad(loss)(h)
        curvature = jax.grad(loss)(h + 1) - gradient
        noise[weighting] = float(jnp.var(gradient) / jnp.mean(curvature) ** 2)
    return [
        f"ambient loss, sigma_min {sigma_min}: gradient variance, buffered / unit",
        f"{noise['buffered'] / noise['unit']:.2f}",
        f"{draws:.0e} draws, x0 standard normal, eps",
    ]


def import_row(repeats: int = 7) -> list[str]:
    """Times ``import ambient_jax`` over ``import jax``, in fresh processes."""
    run = lambda module: subprocess.run([sys.executable, "-c", f"import {module}"], check=True)  # noqa: E731
    seconds = harness.interleaved([lambda: run("jax"), lambda: run("ambient_jax")], repeats)
    return [
        "import ambient_jax / import jax",
        harness.ratio_cell(seconds),
        f"{np.median(seconds[0]):.2f} s for jax",
    ]


def main() -> str:
    """Returns the table as markdown."""
    rows = [loss_row(), latency_row(1), latency_row(200), import_row()]
    return harness.table([*rows, *map(weighting_row, (0.1, 0.3, 0.6))])


if __name__ == "__main__":
    print(main())
