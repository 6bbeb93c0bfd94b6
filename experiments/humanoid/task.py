"""The task: checks its config, builds its data, measures policies on held-out episodes."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np

from ambient_jax.data import rlds
from ambient_jax.data.paths import below
from ambient_jax.data.rlds_source import RldsSource
from ambient_jax.evaluate import evaluation
from ambient_jax.policy.policy import Policy
from experiments import checks
from experiments.humanoid import data
from experiments.table.data import build_once
from experiments.table.experiment import Table


@dataclasses.dataclass(frozen=True)
class Measures:
    """A policy on N held-out chunks, as they were recorded."""

    loss: np.ndarray  # [N, L] of x0_hat in normalised units, at ``evaluation.LEVELS``
    square: np.ndarray  # [N, D] squared difference of a sampled chunk, data units, mean over steps
    episode: np.ndarray  # [N]


def check(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError for a wrong value of ``config.task``; ``policies.rows`` checks groups."""
    rules = [
        ("clean held_out samples generated", checks.whole(1)),
        ("data_seed eval_seed seeds together workers", checks.whole(0)),
        ("alpha", checks.SHARE),
    ]
    checks.fields(config.task, rules, filled=["seeds"])
    data.strengths(config.task)


def build(config: ml_collections.ConfigDict) -> None:
    """Writes the data sets below data.root where they are absent."""
    build_once("humanoid", lambda: data.build(config))


def held_out(config: ml_collections.ConfigDict) -> str:
    """The folder of the held-out episodes."""
    return below(config.data.root, "humanoid_held_out")


@functools.lru_cache(maxsize=1)
def _fingerprint(folder):
    return rlds.open_dataset(folder).fingerprint


def files(table: Table, key: str, config: ml_collections.ConfigDict) -> dict[str, dict[str, Any]]:
    """``Experiment.files``: what a policy's measures depend on, beside its parameters."""
    base = table.config
    about = {
        "steps": config.train.steps,
        "solver": [base.policy[name] for name in ("solver", "steps", "clip")],
        "chunks": [base.task.samples, base.task.eval_seed],
        "data": _fingerprint(held_out(base)),
    }
    return {"measures.npz": about}


def simulator(policy: Policy, config: ml_collections.ConfigDict) -> Callable[[Any], Measures]:
    """``measure(params)`` of policies that differ from this one in their parameters only.

    All policies are measured on the same chunks with the same noise.
    """
    dataset, seed = rlds.open_dataset(held_out(config), last_step="keep"), config.task.eval_seed
    fields = dict(observation=tuple(policy.dims), action=config.data.action, delta=())
    options = dict(samples=config.task.samples, seed=seed, padding=config.data.padding)
    chunks = evaluation.recorded(RldsSource(dataset, **fields), policy, **options)
    draw = jax.jit(lambda params, keys: policy.chunk(params, chunks.observation, keys))
    keys = jax.random.split(jax.random.key(seed), len(chunks.action))

    def measure(params):
        loss = evaluation.row_losses(policy, chunks, target="x0", seed=seed, params=params)
        gap = np.asarray(draw(params, keys), np.float64) - chunks.action
        return Measures(loss.T, np.mean(gap**2, 1), chunks.origin[:, 0])

    return measure
