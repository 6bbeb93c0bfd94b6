"""Time of K policies trained as one program, over that of K steps of one policy.

Below 1 a sweep is worth it beyond the convenience; 1 / K is a device that one policy left idle.

    python -m experiments.benchmarks.sweep
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ambient_jax import mixing, optim, schedules
from ambient_jax.data import device
from ambient_jax.models.denoiser import build_denoiser
from ambient_jax.train import config as config_lib
from ambient_jax.train import parallel
from ambient_jax.train import state as state_lib
from ambient_jax.train import step as step_lib
from experiments.benchmarks import harness
from experiments.benchmarks.library import FEATURES

EPISODES, STEPS, HISTORY, HORIZON, DIM = 100, 40, 2, 16, 2


def make_data(seed: int = 0) -> device.DeviceData:
    """Returns random walks as two sources, one of them corrupt."""
    rng = np.random.default_rng(seed)
    count = EPISODES * STEPS
    start = np.repeat(np.arange(EPISODES) * STEPS, STEPS).astype(np.int32)
    path = rng.normal(size=(count, DIM)).astype(np.float32)
    return device.DeviceData(
        steps={"action": path, "observation/state": path},
        start=start,
        end=start + np.int32(STEPS),
        episode=start // np.int32(STEPS),
        offset=np.array([0, count // 2], np.int32),
        size=np.array([count // 2] * 2, np.int32),
        sources=mixing.make_sources([1, 1], [True, False], [0.0, 0.1]),
    )


def sweep_row(
    policies: int, batch: int = 128, repeats: int = 12, features: tuple[int, ...] = FEATURES
) -> list[str]:
    """Times a step of K policies together over K times that of one."""
    config = config_lib.default().train
    model = build_denoiser({"name": "unet", "features": features, "blocks": 1})
    optimizer = optim.make_optimizer(config)
    train_step = step_lib.make_train_step(
        step_lib.Objective(), lambda p, *inputs: model.apply({"params": p}, *inputs), optimizer
    )
    sampler = functools.partial(
        device.sample_batch,
        **dict(law=mixing.Ambient(), schedule=schedules.vp()),
        **dict(history=HISTORY, horizon=HORIZON, padding="hold"),
    )
    chunk = jnp.zeros((1, HORIZON, DIM))
    observation = {"state": jnp.zeros((1, HISTORY, DIM))}

    @jax.jit
    def create(key):
        params = model.init(key, chunk, jnp.zeros(1), observation)["params"]
        return state_lib.create(params, optimizer, 2)

    data = make_data()
    runs = []
    for count in (1, policies):
        stack = lambda trees: jax.tree.map(lambda *x: jnp.stack(x), *trees)  # noqa: E731
        keys = [jax.random.key(k) for k in range(count)]
        devices = parallel.policy_devices(count)
        inputs = (
            parallel.replicate(data, devices),
            parallel.spread(stack([data.sources] * count)),
            parallel.spread(jnp.stack(keys)),
        )
        state = parallel.spread(stack([create(key) for key in keys]))
        step = parallel.lift_policies(train_step, sampler, batch, devices)
        run = lambda state, step=step, inputs=inputs: step(state, inputs)  # noqa: E731
        runs.append(harness.chained(run, state))
    seconds = harness.interleaved(runs, repeats)
    milliseconds = 1e3 * np.median(seconds, 1) / [1, policies]
    return [
        f"{policies} policies together / one by one",
        harness.ratio_cell(seconds / np.array([[1], [policies]])),
        f"{milliseconds[1]:.1f} ms a policy and step, {milliseconds[0]:.1f} ms alone; batch "
        f"{batch}, U-Net {harness.widths(features)}, {jax.device_count()} "
        f"{jax.default_backend()} device(s)",
    ]


if __name__ == "__main__":
    print(harness.table([sweep_row(policies) for policies in (2, 4, 8)]))
