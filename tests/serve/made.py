"""Small policies whose chunks depend on everything that they see, and requests for them."""

import functools
import threading

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import websockets.sync.client

from ambient_jax import schedules
from ambient_jax.models.denoiser import build_denoiser
from ambient_jax.policy.policy import Policy
from ambient_jax.serve.client import Client
from ambient_jax.train import checkpoint
from ambient_jax.train import config as config_lib
from ambient_jax.train import state as state_lib
from ambient_jax.transforms.chain import Chain
from ambient_jax.transforms.normalizer import Normalizer
from ambient_jax.transforms.steps import Images, Text

HORIZON = 4
NORMALIZER = Normalizer(
    "bounds",
    {
        "action": np.float32([1.0, -2.0]),
        "observation/state": np.float32([0.5, 0.5, 3.0]),
        "observation/goal": np.float32([2.0, 2.0]),
    },
    {
        "action": np.float32([2.0, 0.5]),
        "observation/state": np.float32([4.0, 1.0, 2.0]),
        "observation/goal": np.float32([1.0, 5.0]),
    },
)
SEES = (Images(("wrist", "front"), (8, 6)), Text(16))


class Sees(nn.Module):
    """Its x0 has a mean that depends on every input and step, and a spread, so on the key too."""

    @nn.compact
    def __call__(self, x_t, sigma, observation):
        gain = self.param("gain", lambda _: jnp.float32(0.3))
        mean = jnp.zeros(len(x_t))
        for name in sorted(observation):
            value = observation[name]
            flat = value.reshape(len(x_t), -1) / (255.0 if value.dtype == jnp.uint8 else 1.0)
            mean = mean + jnp.sin((flat * (1 + jnp.arange(flat.shape[1]) % 7)).mean(-1))
        x0 = gain * mean[:, None, None] + 0.01 * jnp.arange(HORIZON)[None, :, None]
        level = sigma[:, None, None]
        alpha = schedules.signal(level)
        return level * (x_t - alpha * x0) / (0.04 * alpha**2 + level**2)  # eps of N(x0, 0.04)


@functools.cache
def policy(history=1, sees=False, **options):
    """A policy of "state" [3] and "goal" [2], and of two cameras and a text if it ``sees``."""
    chain = Chain(NORMALIZER, SEES if sees else ())
    params = {"gain": jnp.float32(0.3)}
    common = dict(steps=2, horizon=HORIZON, history=history)
    return Policy(Sees(), params, chain, **{**common, **options})


def observation(seed=0, history=None, sees=False):
    """A robot's observation of one step, or of ``history`` steps."""
    rng = np.random.default_rng(seed)
    lead = () if history is None else (history,)
    made = {
        "state": rng.normal(size=(*lead, 3)).astype(np.float32),
        "goal": rng.normal(size=(*lead, 2)).astype(np.float32),
    }
    if sees:
        for name, size in {"wrist": (8, 6), "front": (12, 10)}.items():
            made[f"image_{name}"] = rng.integers(0, 256, (*lead, *size, 3), np.uint8)
        made["instruction"] = ["open the drawer", "", "close it"][seed % 3]
    return made


def local(policy, observation, seed, **given):
    """The chunk [H, D] that the policy itself has for an observation with all its steps; ``given``
    are known actions [H, D] and weights [H]."""
    row = {
        name: [value] if isinstance(value, str) else np.asarray(value)[None]
        for name, value in observation.items()
    }
    return np.asarray(policy(row, seed, **{n: v[None] for n, v in given.items()}))[0]


def known(seed):
    """Known actions of one chunk and weights of which the first is 1, the last 0."""
    rng = np.random.default_rng(seed)
    actions = rng.normal(size=(HORIZON, 2)).astype(np.float32)
    return {"known": actions, "weights": np.float32([1, 0.7, rng.uniform(0.1, 0.6), 0])}


def close(one, other):
    """Whether chunks are the same to the rounding of batches of different sizes."""
    return one.shape == other.shape and np.allclose(one, other, rtol=1e-5, atol=1e-5)


def connect(port, **options):
    """A bare websocket to a server of this machine."""
    address = f"ws://127.0.0.1:{port}"
    return websockets.sync.client.connect(address, compression=None, proxy=None, **options)


def client(port, **options):
    """A client that does not wait for its server."""
    return Client("127.0.0.1", port, **{"patience": 0, **options})


class Held:
    """A policy whose calls wait for a permission, so that requests gather."""

    def __init__(self, policy):
        self._policy, self.calls = policy, []
        self.go = threading.Event()
        self.go.set()

    def __getattr__(self, name):
        return getattr(self._policy, name)

    def __call__(self, observation, key, **given):
        self.calls.append(len(observation["state"]))
        self.go.wait(20)
        return self._policy(observation, key, **given)


def save(workdir, history=1, step=20):
    """Leaves a checkpoint of an untrained small network of "state" [3] and "goal" [2]."""
    config = config_lib.default()
    config.model = ml_collections.ConfigDict({"name": "unet", "features": (8,), "groups": 2})
    config.data.horizon, config.data.history = HORIZON, history
    config.policy.solver, config.policy.steps = "ddim", 2
    model = build_denoiser(config.model)
    dummy = {n: jnp.zeros((1, history, d)) for n, d in (("state", 3), ("goal", 2))}
    x_t = jnp.zeros((1, HORIZON, 2))
    shapes = jax.eval_shape(model.init, jax.random.key(0), x_t, jnp.zeros(1), dummy)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda a: 0.3 * rng.normal(size=a.shape).astype("f"), shapes["params"])
    state = state_lib.create(params, optax.sgd(0.1), 1)
    saver = checkpoint.Checkpointer(workdir / "checkpoints")
    saver.save(step, state, checkpoint.make_assets(config, NORMALIZER.to_json()))
    saver.close()
    return workdir
