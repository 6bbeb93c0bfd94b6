"""Runs episodes of a policy in copies of a gymnasium environment, side by side.

>>> episodes = rollout(policy, MakeEnv("gym_pusht/PushT-v0"), episodes=50)
>>> print(episodes.rate)  # 0.62 [0.4815, 0.7414] (n=50)
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import jax
import numpy as np
import tqdm
from absl import logging

from ambient_jax import _checks, estimates
from ambient_jax.policy.control import RecedingHorizon
from ambient_jax.rollout import environment, observations
from ambient_jax.rollout.environment import SUCCESS, Outcome


@dataclasses.dataclass(frozen=True)
class Episodes:
    """N episodes, in the order of their numbers 0 to N - 1.

    ``success_from`` is the key of the info that decided ``success``, or "terminated".
    """

    seeds: np.ndarray  # [N] of the environment's reset
    success: np.ndarray  # [N] bool
    returns: np.ndarray  # [N] sum of rewards
    best_rewards: np.ndarray  # [N] largest reward of a step
    lengths: np.ndarray  # [N] steps
    terminated: np.ndarray  # [N] bool: ended by the environment, not by a limit on the time
    outside: np.ndarray  # [N] share of the steps whose action was outside of the action space
    infos: dict[str, np.ndarray]  # {name: [N]} numbers of each episode's last info; NaN: not there
    success_from: str

    @property
    def rate(self) -> estimates.Estimate:
        """The success rate with Wilson's interval."""
        return estimates.wilson(int(self.success.sum()), len(self.success))


def rollout(
    policy: Any,
    make_env: Callable[[], gymnasium.Env],
    *,
    episodes: int = 50,
    envs: int = 8,
    execute: int = 8,
    seed: int = 0,
    observation: Mapping[str, str] | None = None,
    constant: Mapping[str, Any] | None = None,
    success: str = "",
    clip: bool = False,
    max_steps: int | None = None,
    batch: int = 8,
    vectorization: str = "sync",
    control: Callable[[Any], Any] | None = None,
    videos: Mapping[int, str | os.PathLike] | None = None,
    done: Mapping[int, Outcome] | None = None,
    on_episode: Callable[[int, Outcome], None] | None = None,
    progress: bool = True,
) -> Episodes:
    """Runs episodes of a policy, planning H actions and executing the first ``execute``.

    Episode e resets its environment with the seed ``seed + e``; its plans use PRNG keys of (seed,
    e, number of the plan). It depends on nothing else: neither on ``envs`` nor on the episodes
    beside it, as the policy is always called with ``batch`` rows.

    An episode is a success if its infos have, at any step, a true "is_success"; if no episode has
    this key, a true "success"; if none has either, if it terminated.

    Args:
      policy: a ``Policy``, or another with its ``check``, ``history``, ``horizon`` and call, which
        gets {name: [batch, T, ...]} and PRNG keys [batch]. It is asked for its observations'
        names by ``chain`` or ``dims``, if it has them.
      make_env: makes an environment, whose observations are a Box or a Dict and whose actions are a
        Box; for instance ``environment.MakeEnv``.
      episodes: N.
      envs: number of episodes that run at once.
      execute: 1 to H.
      seed: of the first episode's reset.
      observation: {policy's name: environment's name}; see ``observations.connect``.
      constant: {policy's name: [d] or a text} of observations that the environment does not have.
      success: the key of the info that says whether an episode was a success, or "terminated".
      clip: clips actions to the action space; else the environment gets them as they are.
      max_steps: ends an episode after so many steps, if the environment has no shorter limit.
      batch: rows in a call of the policy. Another number may round its results differently.
      vectorization: "sync" or "async", see ``environment.vectorised``.
      control: makes the control of N environments from a policy, in place of ``RecedingHorizon``:
        something with its ``observe``, ``reset`` and ``plan``, or with ``act``, which returns an
        action [N, D] a step.
      videos: {episode: path of its video, .mp4}; the environments need the render_mode "rgb_array".
      done: outcomes of episodes that have been run.
      on_episode: called with the number and outcome of each episode when it ends.
      progress: shows a bar.

    Raises:
      ValueError: an argument is impossible, spaces do not fit the policy, ``success`` is no key of
        the info, or a plan is not finite.
    """
    for name, value in (("episodes", episodes), ("envs", envs), ("batch", batch)):
        _checks.number(name, value, 1, whole=True)
    _checks.number("seed", seed, 0, 2**32 - 1 - episodes, whole=True)
    outcomes = {e: outcome for e, outcome in (done or {}).items() if e < episodes}
    todo = [e for e in range(episodes) if e not in outcomes]
    rows = _Rows(policy, batch)
    controls = control(rows) if control else RecedingHorizon(rows, execute)
    if todo:
        count = min(envs, len(todo))
        options = dict(success=success, clip=clip, max_steps=max_steps)
        vector = environment.vectorised(make_env, count, vectorization, **options)
        try:
            reader = observations.connect(
                policy, vector.single_observation_space, observation, constant
            )
            observations.check_actions(policy, vector.single_action_space)
            if videos and vector.render_mode != "rgb_array":
                logging.warning("no videos: the environments have no render_mode 'rgb_array'")
                videos = {}
            shown = dict(desc="rollout", unit="episode", disable=not progress)
            with tqdm.tqdm(total=episodes, initial=len(outcomes), **shown) as bar:
                for e, outcome in _run(vector, controls, rows, reader, todo, seed, videos or {}):
                    outcomes[e] = outcome
                    if on_episode:
                        on_episode(e, outcome)
                    bar.update()
        finally:
            vector.close()
    return gathered(outcomes, seed, success)


def _run(vector, control, rows, reader, todo, seed, videos):
    """Yields (number, outcome) of each episode as it ends.

    All environments plan at the same steps: an episode that ends between two plans leaves its
    environment idle up to the next one, which begins the next episode there.
    """
    count, space = vector.num_envs, vector.single_action_space
    waiting = collections.deque(todo)
    episode, plans = np.full(count, -1), np.zeros(count, int)
    key, observation = jax.random.key(seed), None
    while True:
        seeds: list[int | None] = [None] * count
        paths = {}
        for i in np.flatnonzero(episode < 0)[: len(waiting)].tolist():
            episode[i], plans[i] = waiting.popleft(), 0
            seeds[i] = seed + int(episode[i])
            if path := videos.get(int(episode[i])):
                paths[i] = os.fspath(path)
        live = episode >= 0
        if not live.any():
            return
        begun = np.array([s is not None for s in seeds])
        if begun.any():
            observation, _ = vector.reset(seed=seeds, options={"videos": paths})
            control.reset(begun)
        control.observe(reader(observation))
        rows.live, rows.episode = live, episode
        keys = _keys(key, episode, plans)
        acts = hasattr(control, "act")  # an action a step
        actions = np.asarray(control.act(keys)[:, None] if acts else control.plan(keys))
        observations.check_width(actions.shape[-1], space)
        plans += 1
        for k in range(actions.shape[1]):
            action = actions[:, k].astype(space.dtype).reshape(count, *space.shape)
            observation, *_, infos = vector.step(action)
            ended = infos.get("outcome", ())
            for i, outcome in enumerate(ended):
                if outcome is not None:
                    yield int(episode[i]), outcome
                    episode[i] = -1
            if (episode < 0).all():
                break
            if k < actions.shape[1] - 1:
                control.observe(reader(observation))


@jax.jit
def _keys(key, episode, plan):
    one = lambda e, p: jax.random.fold_in(jax.random.fold_in(key, e), p)  # noqa: E731
    return jax.vmap(one)(episode.astype("uint32"), plan)


class _Rows:
    """A policy that is always called with ``batch`` rows, for rows of ``live`` environments only.

    So it is compiled once, and a row's numbers do not depend on how many there are.
    """

    def __init__(self, policy: Any, batch: int):
        self._policy, self._batch = policy, batch
        self.history, self.horizon = policy.history, policy.horizon
        self.most_known = getattr(policy, "most_known", policy.horizon)
        self.live = self.episode = np.zeros(0)

    def check(self, observation: Any, between: tuple[int, ...]) -> Any:
        return self._policy.check(observation, between)

    def __call__(self, observation: Mapping[str, Any], keys: jax.Array, **given: Any) -> np.ndarray:
        chunks = None
        live = np.flatnonzero(self.live)
        for first in range(0, len(live), self._batch):
            part = live[first : first + self._batch]
            padded = np.resize(part, self._batch)
            rows = {name: np.asarray(value)[padded] for name, value in observation.items()}
            others = {n: None if v is None else np.asarray(v)[padded] for n, v in given.items()}
            chunk = np.asarray(self._policy(rows, keys[padded], **others))[: len(part)]
            bad = ~np.isfinite(chunk).all(axis=(1, 2))
            if bad.any():
                raise ValueError(
                    f"the plan of episode {self.episode[part[np.argmax(bad)]]} is not finite: look "
                    "at the policy's output and the environment's observations"
                )
            if chunks is None:
                chunks = np.zeros((len(self.live), *chunk.shape[1:]), chunk.dtype)
            chunks[part] = chunk
        assert chunks is not None
        return chunks


def gathered(outcomes: Mapping[int, Outcome], seed: int, success: str = "") -> Episodes:
    """Joins the outcomes of episodes, by number; see ``rollout`` for what success is."""
    numbers = sorted(outcomes)
    ended = [outcomes[e] for e in numbers]
    keys = [key for key in SUCCESS if any(key in o.flags for o in ended)]
    if success not in ("", "terminated") and not any(success in o.flags for o in ended):
        have = ", ".join(sorted({name for o in ended for name in o.infos})) or "no numbers"
        raise ValueError(f"success is {success!r}, which no info has; the last infos have {have}")
    key = success or (keys[0] if keys else "terminated")
    won = [o.terminated if key == "terminated" else o.flags.get(key, False) for o in ended]
    names = sorted({name for o in ended for name in o.infos})
    column = functools.partial(np.array, dtype=float)
    return Episodes(
        seeds=np.array([seed + e for e in numbers]),
        success=np.array(won, bool),
        returns=column([o.reward for o in ended]),
        best_rewards=column([o.best_reward for o in ended]),
        lengths=np.array([o.length for o in ended], int),
        terminated=np.array([o.terminated for o in ended], bool),
        outside=column([o.outside / o.length for o in ended]),
        infos={n: column([o.infos.get(n, np.nan) for o in ended]) for n in names},
        success_from=key,
    )
