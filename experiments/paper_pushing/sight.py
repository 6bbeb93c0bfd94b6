"""Where the slider is, from the pictures of both cameras: an encoder that learns from drawn scenes.

With it a policy of the state acts from pictures: it is given the state that the encoder sees. The
scenes are random (``scenes``), drawn as they are needed, so none is seen twice.
"""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tqdm

from ambient_jax.cli.report import plain
from experiments.paper_pushing import cameras
from experiments.paper_pushing.env import PaperScene
from experiments.paper_pushing.network import CameraEncoder
from experiments.planar_pushing.env import KEYPOINTS
from experiments.table import cache

_UNIT = 0.05  # m, of places in the loss
# Shares of the scenes with the slider near its goal, about it, and anywhere in any direction; the
# standard deviations of its place [m] and direction [rad] of the first two.
_SHARES, _NEAR, _ABOUT = (0.3, 0.5), (0.02, 0.12), (0.1, 0.8)
_REACH = 0.15  # m, within which the pusher is from the slider in three of four scenes


class Sight(nn.Module):
    """Sees the slider's x, y, cosine and sine of its yaw.

    Attributes:
        widths, keypoints, width: of the ``CameraEncoder``.
    """

    widths: tuple[int, ...] = (32, 32, 16)
    keypoints: int = 16
    width: int = 256

    @nn.compact
    def __call__(self, pictures: Mapping[str, jax.Array], pusher: jax.Array) -> jax.Array:
        """Returns [B, 4] of pictures [B, h, w, 3] and the pusher's place [B, 2] [m]."""
        encoder = CameraEncoder(self.widths, self.keypoints, self.width)
        rows = {name: image[:, None] for name, image in pictures.items()}
        h = encoder(rows | {"pusher": pusher[:, None] / _UNIT})
        out = nn.Dense(4, name="pose")(nn.relu(nn.Dense(self.width, name="last")(nn.relu(h))))
        turn = out[:, 2:]
        length = jnp.sqrt((turn**2).sum(-1, keepdims=True) + 1e-6)
        return jnp.concatenate([_UNIT * out[:, :2], turn / length], -1)


def scenes(key: jax.Array, count: int, scene: PaperScene) -> jax.Array:
    """Draws states [count, 6] of random scenes: x and y of the pusher and of the slider, and cosine
    and sine of its yaw."""
    kind, place, turn, any_turn, near, pusher = jax.random.split(key, 6)
    of = jax.random.uniform(kind, (count,))
    is_near = of < _SHARES[0]
    off = jax.random.normal(place, (count, 2)) * jnp.where(is_near, _NEAR[0], _ABOUT[0])[:, None]
    slider = off + jnp.array(scene.goal[:2])
    yaw = jax.random.normal(turn, (count,)) * jnp.where(is_near, _NEAR[1], _ABOUT[1])
    yaw = yaw + scene.goal[2]
    anywhere = jax.random.uniform(any_turn, (count,), minval=-jnp.pi, maxval=jnp.pi)
    yaw = jnp.where(of < sum(_SHARES), yaw, anywhere)
    beside = slider + _REACH * jax.random.uniform(near, (count, 2), minval=-1)
    far = scene.reach * jax.random.uniform(pusher, (count, 2), minval=-1)
    at = jnp.where((jnp.arange(count) % 4 == 0)[:, None], far, beside)
    return jnp.concatenate([at, slider, jnp.cos(yaw)[:, None], jnp.sin(yaw)[:, None]], -1)


def train(
    scene: PaperScene,
    *,
    steps: int = 4000,
    rounds: int = 1,
    batch: int = 32,
    seed: int = 0,
    progress: bool = True,
    start: tuple[int, Any] = (0, None),
) -> Any:
    """Returns the parameters of a ``Sight`` after rounds of so many steps, on fresh scenes each.

    Each round begins with the full learning rate. ``start`` is (1, parameters) after one round.
    """
    optimiser = optax.adam(optax.cosine_decay_schedule(2e-3, steps))

    @jax.jit
    def step(params, state, number):
        states = scenes(jax.random.fold_in(jax.random.key(seed), number), batch, scene)

        def loss(params):
            off = look(params, states, scene) - states[:, 2:6]
            return ((off / jnp.array((_UNIT, _UNIT, 1.0, 1.0))) ** 2).mean()

        value, gradient = jax.value_and_grad(loss)(params)
        change, state = optimiser.update(gradient, state)
        return optax.apply_updates(params, change), state, value

    states = scenes(jax.random.key(seed), 1, scene)
    done, params = start
    if not done:
        params = Sight().init(jax.random.key(seed), _pictures(states, scene), states[:, :2])
    for number in tqdm.trange(
        done * steps, rounds * steps, desc="sight", unit="step", disable=not progress
    ):
        if number % steps == 0:
            state = optimiser.init(params)
        params, state, _ = step(params, state, number)
    return jax.device_get(params)


def look(params: Any, states: jax.Array, scene: PaperScene) -> jax.Array:
    """Returns what the encoder sees [B, 4] in the pictures of states [B, >= 6]."""
    return Sight().apply(params, _pictures(states, scene), states[:, :2])


def seen(params: Any, states: jax.Array, scene: PaperScene) -> jax.Array:
    """Returns the environment's states [..., 12] as the encoder sees them in their pictures; of
    ``states`` [..., 12] only the pusher's place is used otherwise."""
    flat = states.reshape(-1, states.shape[-1])
    pose = look(params, flat, scene)
    pusher, place, (c, s) = flat[:, :2], pose[:, :2], pose[:, 2:].T
    points = jnp.array(KEYPOINTS)
    x = c[:, None] * points[:, 0] - s[:, None] * points[:, 1]
    y = s[:, None] * points[:, 0] + c[:, None] * points[:, 1]
    off = jnp.stack([x, y], -1) + (place - pusher)[:, None]
    return jnp.concatenate([pusher, pose, off.reshape(len(flat), -1)], -1).reshape(states.shape)


def errors(params: Any, states: np.ndarray, scene: PaperScene) -> np.ndarray:
    """Returns the distance [m] and angle [rad] [B, 2] of what is seen from states [B, >= 6]."""
    poses = []
    apply = jax.jit(functools.partial(look, scene=scene))
    for part in np.array_split(states, -(-len(states) // 256)):
        padded = np.resize(part, (256, part.shape[1]))
        poses.append(np.asarray(apply(params, padded))[: len(part)])
    pose = np.concatenate(poses)
    off = pose[:, :2] - states[:, 2:4]
    turn = np.arctan2(pose[:, 3], pose[:, 2]) - np.arctan2(states[:, 5], states[:, 4])
    return np.stack([np.hypot(*off.T), np.abs((turn + np.pi) % (2 * np.pi) - np.pi)], -1)


def kept(path: pathlib.Path, scene: PaperScene, **options: Any) -> Any:
    """Returns the parameters of ``train(scene, **options)``; the file keeps them with the scene and
    the options, and is made anew where these differ."""

    def make():
        trained = flax.serialization.to_bytes(train(scene, **options))
        return {"params": np.frombuffer(trained, np.uint8)}

    arrays = cache.kept(path, {"scene": plain(scene), **options}, make)
    states = scenes(jax.random.key(0), 1, scene)
    shapes = jax.eval_shape(
        lambda: Sight().init(jax.random.key(0), _pictures(states, scene), states[:, :2])
    )
    empty = jax.tree.map(lambda shape: np.zeros(shape.shape, shape.dtype), shapes)
    return flax.serialization.from_bytes(empty, arrays["params"].tobytes())


def _pictures(states, scene):
    return jax.vmap(lambda state: cameras.draw(state, scene))(states)
