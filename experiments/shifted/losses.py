"""The loss on held-out clean demonstrations, by the action's and the observation's noise level."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from ambient_jax import corruption, observations, schedules, targets
from ambient_jax.data import rlds
from ambient_jax.data.paths import expanded
from ambient_jax.data.rlds_source import RldsSource
from ambient_jax.evaluate import evaluation
from ambient_jax.policy.policy import Policy
from experiments.shifted import align, judge
from experiments.table import rollouts
from experiments.table.experiment import Table

RHOS = (0.0, 0.3, 0.6, 0.8, 0.95, 1.0)
SAMPLES = 1024
DATA = "shifted_clean_held_out"


def measure(table: Table, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Returns losses of x0_hat [S, M, L] of the trained seeds of each policy, at ``RHOS`` and
    ``evaluation.LEVELS``; M is 1 for policies without noised observations.

    They are mean squared errors per number, in normalised units, with the same chunks and noise for
    all policies. {} where no demonstration was held out.
    """
    config, names = table.config, list(names)
    if not config.task.held_out or not names:
        return {}
    held_out = rlds.open_dataset(pathlib.Path(expanded(config.data.root)) / DATA)

    @functools.cache
    def chunks(like):
        source = RldsSource(
            held_out, observation=config.data.observation, action="action", delta=()
        )
        return evaluation.recorded(source, like, padding="hold", samples=SAMPLES)

    def of(policy, like):
        rhos = RHOS if policy.model.noised else RHOS[:1]
        seen = chunks(like)
        x0, observed = policy.normalised(seen.action), policy.check(seen.observation, (2,))
        options = like, policy.params, observed, x0, jnp.asarray(rhos)
        return {"loss": np.asarray(plane(*options, jnp.asarray(evaluation.LEVELS)))}

    about = {"data": held_out.fingerprint, "samples": SAMPLES, "rhos": list(RHOS)}
    found = rollouts.kept_measures(table, names, config.task.seeds, about, of)
    return {name: np.stack([one["loss"] for one in ones]) for name, ones in found.items()}


def off(config: ml_collections.ConfigDict, kind: str) -> tuple[float, float]:
    """Returns how far a kind's slider is reported from where it is, in mm and degrees: median over
    the held-out demonstrations of means over steps. Nothing is chosen by it."""
    root = pathlib.Path(expanded(config.data.root))
    paths = DATA, f"shifted_{kind}_held_out"
    pairs = zip(*(map(_states, rlds.open_dataset(root / path)) for path in paths), strict=True)
    distance, angle = np.median([align.apart(*pair) for pair in pairs], 0)
    return float(1000 * distance), float(np.degrees(angle))


def _states(episode):
    observed = episode["steps"]["observation"]
    return np.concatenate([observed[name] for name in judge.OBSERVATION], -1)


@functools.partial(jax.jit, static_argnums=0)
def plane(policy: Policy, params, observation, x0, rhos, levels) -> jax.Array:
    """Returns the mean squared error of x0_hat [M, L] of chunks x0 [N, H, D] in normalised units,
    given observations in data units, at each rho and sigma."""
    inputs = policy.chain.observe(observation, ())
    keys = jax.random.split(jax.random.key(0), len(x0))
    eps = jax.random.normal(jax.random.key(1), x0.shape)
    forms = dict(source=policy.prediction, target="x0", schedule=schedules.vp())

    def at_rho(rho):
        seen = inputs
        if policy.model.noised:
            seen = observations.noised(inputs, judge.NOISED, jnp.full(len(x0), rho), keys)

        def at_sigma(sigma):
            x_t = corruption.add_noise(x0, eps, sigma)
            h = policy.model.apply({"params": params}, x_t, jnp.full(len(x0), sigma), seen)
            return jnp.mean((targets.convert(h, x_t, sigma, **forms) - x0) ** 2)

        return jax.lax.map(at_sigma, levels)

    return jax.lax.map(at_rho, rhos)
