"""A small environment: a point moves to where the action says, and wants to reach its goal."""

import flax.linen as nn
import gymnasium
import jax.numpy as jnp
import numpy as np

from ambient_jax.policy.policy import Policy
from ambient_jax.transforms.normalizer import Normalizer

ENV = "ambient_jax_tests/Reach-v0"


class Reach(gymnasium.Env):
    """Actions [2] are the next position, which noise of the episode's generator disturbs.

    ``success`` is the key under which the infos say that the goal is within 0.2; the environment
    terminates there if ``ends``, and if a coordinate exceeds 2. It counts the calls of ``step``.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}
    calls = 0

    def __init__(
        self, form="dict", success="is_success", ends=True, noise=0.05, limit=12, render_mode=None
    ):
        self.form, self.key, self.ends, self.noise, self.limit = form, success, ends, noise, limit
        self.render_mode = render_mode
        box = gymnasium.spaces.Box(-2, 2, (2,), np.float32)
        whole = gymnasium.spaces.Box(-2, 2, (4,), np.float64)
        view = gymnasium.spaces.Box(0, 255, (9, 11, 3), np.uint8)
        spaces = {
            "dict": gymnasium.spaces.Dict({"state": box, "goal": box}),
            "nested": gymnasium.spaces.Dict(
                {"robot": gymnasium.spaces.Dict({"xy": box}), "target": box, "pixels": view}
            ),
            "box": whole,
        }
        self.observation_space = spaces[form]
        self.action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.steps = np.zeros(2), 0
        self.goal = self.np_random.uniform(-1, 1, 2)
        return self._observation(), {}

    def step(self, action):
        Reach.calls += 1
        self.place = np.clip(action + self.noise * self.np_random.normal(size=2), -2, 2)
        self.steps += 1
        distance = np.linalg.norm(self.place - self.goal)
        near = bool(distance < 0.2)
        info = {"distance": distance, "text": "no number"}
        info |= {self.key: near} if self.key else {}
        terminated = (near and self.ends) or bool(abs(self.place).max() >= 2)
        return self._observation(), 1 - distance, terminated, self.steps >= self.limit, info

    def render(self):
        picture = np.zeros((9, 11, 3), np.uint8)
        picture[:, : 1 + self.steps % 10] = 255
        return picture

    def _observation(self):
        place, goal = self.place.astype(np.float32), self.goal.astype(np.float32)
        return {
            "dict": {"state": place, "goal": goal},
            "nested": {"robot": {"xy": place}, "target": goal, "pixels": self.render()},
            "box": np.concatenate([place, goal]).astype(float),
        }[self.form]


def policy(chunk, dims=None, history=2, horizon=4):
    """A policy that is sure of ``chunk(observation, x_t)`` [B, H, D], in data units."""
    dims = dims or {"state": 2, "goal": 2}
    names = {"action": 2, **{f"observation/{name}": width for name, width in dims.items()}}
    maps = [{n: np.full(w, v, np.float32) for n, w in names.items()} for v in (0.0, 1.0)]

    class Model:
        @staticmethod
        def apply(_, x_t, sigma, observation):
            return chunk(observation, x_t)

    normalizer = Normalizer("gaussian", *maps)
    return Policy(Model, None, normalizer, horizon=horizon, history=history, prediction="x0")


class Mlp(nn.Module):
    """A denoiser that compiles in no time."""

    width: int = 16

    @nn.compact
    def __call__(self, x_t, sigma, condition):
        rows = jnp.concatenate([x_t.reshape(len(x_t), -1), sigma[:, None], condition], axis=1)
        hidden = nn.gelu(nn.Dense(self.width)(rows))
        return nn.Dense(x_t[0].size)(hidden).reshape(x_t.shape)


if ENV not in gymnasium.registry:
    gymnasium.register(ENV, entry_point=Reach)
