"""Runs policies in many episodes of the paper's pushing at once, from state or pictures."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ambient_jax.transforms.augment import MASK
from experiments import simulate
from experiments.paper_pushing import cameras
from experiments.paper_pushing.env import TARGET, PaperPushingEnv, PaperScene
from experiments.planar_pushing import rollout
from experiments.planar_pushing.scene import Physics


@dataclasses.dataclass(frozen=True)
class Rollouts(rollout.Rollouts):
    """N episodes; success also asks for the pusher at its place."""

    back: np.ndarray  # [N] distance [m] of the pusher from its place at the end


class Simulator(simulate.Simulator):
    """Rollouts of a planning function in given physics, see ``simulate.Simulator``.

    ``inputs`` are shapes of a row of what it sees, ``Chain.inputs``: "state", or the pusher's place
    and pictures, which are drawn inside the compiled call, and masks of what is there.
    ``see(states)`` [N, T, 12] replaces the states by what is seen of them.
    """

    def __init__(
        self,
        plan: simulate.Plan,
        *,
        inputs: Mapping[str, Any] = {"state": None},  # noqa: B006
        see: Callable[[jax.Array], jax.Array] = lambda states: states,
        scene: PaperScene = PaperScene(),  # noqa: B008
        physics: Physics = TARGET,
        **options: Any,
    ):
        def seeing(params, observation, keys):
            rest = {n: v for n, v in observation.items() if n != "state"}
            return plan(params, rest | observe(see(observation["state"]), inputs, scene), keys)

        super().__init__(seeing, lambda: PaperPushingEnv(scene, physics), **options)

    def __call__(self, *args: Any, **options: Any) -> Rollouts:
        """Runs one episode per seed; see ``simulate.Simulator.episodes``."""
        e = self.episodes(*args, **options)
        error, back = e.infos["error"], e.infos["back"]
        return Rollouts(e.seeds, e.lengths, e.terminated, error, e.qpos, back)


def observe(
    states: jax.Array, inputs: Mapping[str, Any], scene: PaperScene
) -> dict[str, jax.Array]:
    """Returns the ``inputs`` (see ``Simulator``) of states [N, T, 12]. With pictures "state" is
    what the library's loader calls so in ``data.SPEC``: the pusher's place."""
    if not set(cameras.WIDTHS) & set(inputs):
        return {"state": states}
    draw = functools.partial(cameras.draw, scene=scene)
    present = {
        name: jnp.ones((len(states), *shape.shape), shape.dtype)
        for name, shape in inputs.items()
        if name.endswith(MASK)
    }
    return {"state": states[..., :2], **jax.vmap(jax.vmap(draw))(states), **present}
