"""The environment ``gym_pusht/PushT-v0``: made, moved and observed.

Lengths are pixels of its 512 x 512 world, whose y axis points down; a pose is x, y and angle [rad].
https://github.com/huggingface/gym-pusht
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ambient_jax._packages import MissingError

NAME = "gym_pusht/PushT-v0"
SIZE = 512  # width of the world
DT = 0.1  # s, control step
RADIUS = 15.0  # of the pusher
GOAL = np.array([256.0, 256.0, np.pi / 4])  # pose of the T
CENTRE = np.array([0.0, 45.0])  # centre of gravity of the T, in its frame
# Corners of the T in its frame; the origin is in the middle of the bar's outer edge.
OUTLINE = np.array(
    [(-60, 0), (60, 0), (60, 30), (15, 30), (15, 120), (-15, 120), (-15, 30), (-60, 30)], float
)
SUCCESS = 0.95  # coverage above which an episode ends, as in the package
PIXELS = 96  # height and width of an image
SMALL = 24  # the same of a small one
# Widths of what ``observation`` returns.
OBSERVATION = {"state": 5, "agent_pos": 2, "environment_state": 16, "relative": 10}
# Of bar and stem, in the order of the environment's keypoints.
_CORNERS = np.array(
    [(-60, 0), (60, 0), (60, 30), (-60, 30), (-15, 30), (15, 30), (15, 120), (-15, 120)], float
)
_MISSING = "PushT needs the package gym-pusht: pip install 'ambient_jax[pusht]'"


def make(max_steps: int = 300) -> Any:
    """Returns a PushT environment that observes "environment_state" and "agent_pos".

    Raises ImportError where gym-pusht is missing.
    """
    import gymnasium

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pygame, on how it was packaged
            import gym_pusht  # noqa: F401  (registers the environment)
    except ImportError as error:
        raise MissingError(_MISSING) from error
    return gymnasium.make(
        NAME,
        obs_type="environment_state_agent_pos",
        max_episode_steps=max_steps,
        disable_env_checker=True,
    )


def advance(env: Any, action: np.ndarray) -> float:
    """Moves towards an action [2] for 0.1 s, as the inner environment's ``step``; returns coverage.

    It makes no observation and no arrays, which takes less than half of the time. Coverage is the
    share of the goal that the T covers; above ``SUCCESS`` the episode is solved.
    """
    inner = env.unwrapped
    agent, space, dt = inner.agent, inner.space, inner.dt
    to_x, to_y = map(float, action)
    for _ in range(int(1 / (dt * inner.control_hz))):
        (x, y), (u, v) = agent.position, agent.velocity
        along_x = inner.k_p * (to_x - x) + inner.k_v * (0 - u)
        along_y = inner.k_p * (to_y - y) + inner.k_v * (0 - v)
        agent.velocity = (u + along_x * dt, v + along_y * dt)
        space.step(dt)
    return coverage(pose(env))


def coverage(block: np.ndarray) -> float:
    """Returns the share of the goal that a T at a pose [3] covers."""
    import shapely

    goal, here = (shapely.Polygon(to_world(at, OUTLINE)) for at in (GOAL, block))
    return goal.intersection(here).area / goal.area


def state(env: Any) -> np.ndarray:
    """Returns the environment's "state" [5]: x and y of the pusher, then the pose of the T."""
    x, y, angle = pose(env)
    return np.array([*env.unwrapped.agent.position, x, y, angle % (2 * np.pi)])


def observation(states: np.ndarray) -> dict[str, np.ndarray]:
    """Returns all observations but the image, float32, of states [..., 5].

    "state" [..., 5], "agent_pos" [..., 2] and "environment_state" [..., 16], x and y of the eight
    corners of bar and stem, are what the environment gives with these names. "relative" [..., 10]
    are the pusher and the goal's place and direction in the frame of the T, the direction of the T
    and the pusher's place: what to do depends on where the pusher is at the T, and little on where
    both are.
    """
    states = states.astype(np.float32).astype(float)
    angle = states[..., 4]
    place, block = states[..., :2], states[..., 2:4]
    c, s = np.cos(angle), np.sin(angle)
    along, across = np.stack([c, s], -1), np.stack([-s, c], -1)  # axes of the T
    turned = _CORNERS[:, :1] * along[..., None, :] + _CORNERS[:, 1:] * across[..., None, :]
    corners = (turned + block[..., None, :]).reshape(*states.shape[:-1], 16)
    inside = [
        ((point - block) * axis).sum(-1) for point in (place, GOAL[:2]) for axis in (along, across)
    ]
    rest = GOAL[2] - angle
    relative = np.stack([*inside, np.cos(rest), np.sin(rest), c, s, *np.moveaxis(place, -1, 0)], -1)
    found = {"state": states, "agent_pos": place}
    found |= {"environment_state": corners, "relative": relative}
    return {name: value.astype(np.float32) for name, value in found.items()}


def image(env: Any) -> np.ndarray:
    """Returns the environment's "pixels" [96, 96, 3] uint8."""
    return env.unwrapped._render()


def small(images: np.ndarray) -> np.ndarray:
    """Returns images [..., 96, 96, 3] as "small" [..., 24 * 24 * 3] uint8, means over 4 x 4."""
    lead, size = images.shape[:-3], PIXELS // SMALL
    blocks = images.reshape(*lead, SMALL, size, SMALL, size, 3)
    return blocks.mean((-4, -2)).round().astype(np.uint8).reshape(*lead, -1)


def pusher(env: Any) -> np.ndarray:
    """Returns the pusher's x and y, [2]."""
    return np.array(env.unwrapped.agent.position)


def pose(env: Any) -> np.ndarray:
    """Returns the pose of the T, [3]."""
    block = env.unwrapped.block
    return np.array([*block.position, block.angle])


def place(env: Any, block: np.ndarray, agent: np.ndarray) -> None:
    """Puts the T at a pose [3] and the pusher at rest at [2]."""
    inner = env.unwrapped
    inner.block.angle = float(block[2])  # first: it turns the T around its centre of gravity
    inner.block.position = tuple(map(float, block[:2]))
    inner.agent.position, inner.agent.velocity = tuple(map(float, agent)), (0, 0)
    inner.space.reindex_shapes_for_body(inner.block)
    inner.space.reindex_shapes_for_body(inner.agent)


def rotation(angle: float) -> np.ndarray:
    """Returns the rotation [2, 2] by an angle [rad]."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([(c, -s), (s, c)])


def to_world(block: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Converts points [K, 2] from the frame of a T at [3] to the world, [K, 2]."""
    return block[:2] + points @ rotation(block[2]).T


def to_block(block: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Converts points [K, 2] or [2] of the world to the frame of a T at [3]."""
    return (points - block[:2]) @ rotation(block[2])


def wrap(angle: np.ndarray) -> np.ndarray:
    """Wraps an angle to [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi
