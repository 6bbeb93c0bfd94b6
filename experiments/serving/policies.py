"""Checkpoints of untrained networks, for what does not depend on their weights."""

import os
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np
import optax

from ambient_jax.models.denoiser import build_denoiser
from ambient_jax.policy.policy import Policy
from ambient_jax.train import checkpoint
from ambient_jax.train import config as config_lib
from ambient_jax.train import state as state_lib
from ambient_jax.transforms.chain import Chain
from ambient_jax.transforms.normalizer import Normalizer
from ambient_jax.transforms.steps import Images

IMAGE = 224
CAMERAS = ("front", "wrist")
TINY = {"name": "unet", "features": (8,), "groups": 2}
SEEING = {
    "name": "unet",
    "features": (32, 64),
    "groups": 8,
    "encoder": {"width": 64, "vision": {"widths": (16, 32, 64), "group_size": 8}},
}


def save(workdir: str | os.PathLike, cameras: tuple[str, ...] = ()) -> pathlib.Path:
    """Writes a checkpoint with random weights of a policy of "state" [7], and of cameras of
    224 x 224 pixels if there are any, that draws 16 actions [7]; returns the workdir."""
    names = {"action": 7, "observation/state": 7}
    normalizer = Normalizer(
        "bounds",
        {name: np.zeros(d, np.float32) for name, d in names.items()},
        {name: np.ones(d, np.float32) for name, d in names.items()},
    )
    chain = Chain(normalizer, (Images(cameras, (IMAGE, IMAGE)),) if cameras else ())
    config = config_lib.default()
    config.model = ml_collections.ConfigDict(SEEING if cameras else TINY)
    config.data.horizon, config.data.history = 16, 1
    config.policy.solver, config.policy.steps = "ddim", 10 if cameras else 2
    model = build_denoiser(config.model, chain.inputs(1))
    shapes = Policy(model, None, chain, horizon=16, history=1).parameter_shapes()
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda a: 0.1 * rng.normal(size=a.shape).astype("f"), shapes)
    saver = checkpoint.Checkpointer(pathlib.Path(workdir) / "checkpoints")
    state = state_lib.create(params, optax.sgd(0.1), 1)
    saver.save(1, state, checkpoint.make_assets(config, chain.to_json()))
    saver.close()
    return pathlib.Path(workdir)


def observation(policy: Policy, seed: int = 0) -> dict[str, Any]:
    """Returns a random observation with all its steps, {name: [T, ...]}."""
    rng = np.random.default_rng(seed)
    made: dict[str, Any] = {}
    for name, one in policy.chain.inputs(policy.history).items():
        if one.dtype == np.uint8:
            made[name] = rng.integers(0, 256, one.shape, np.uint8)
        elif one.dtype == np.float32:
            made[name] = rng.uniform(-1, 1, one.shape).astype(np.float32)
    return made
