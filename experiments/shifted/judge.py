"""Chooses the levels of each kind of shift by a classifier, without rollouts.

It compares p(A | O) of the clean and of the shifted demonstrations at noise levels sigma of the
action and rho of the observation (``annotate.plane``).
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
from typing import Any

import ml_collections
import numpy as np
from absl import logging

from ambient_jax import schedules
from ambient_jax.annotate import classifier, evidence, plane, training
from ambient_jax.annotate.options import SCHEDULE
from ambient_jax.cli.report import plain
from ambient_jax.data import device
from experiments.table import cache

OBSERVATION = ("pusher", "slider")
NOISED = ("slider",)  # the pusher knows where it is
SIGMAS = evidence.grid(13)
RHOS = np.append(np.linspace(0, 0.9, 10), (0.95, 0.98, 1.0))
# Of 50 demonstrations a network memorises the observations if it is large or sees them sharply.
_OPTIONS = dict(observed=True, encoder=(0, 64, 1), learning_rate=1e-3, patience=4)


@dataclasses.dataclass(frozen=True)
class Judged:
    """What the classifier found about one kind of shift.

    Attributes:
      probability: P(clean) [M, L] of the shifted demonstrations at ``RHOS`` and ``SIGMAS``.
      sigma_min: noise level of the actions above which the pair is admissible as it is.
      border: least admissible rho at each of ``SIGMAS``, [L].
    """

    probability: np.ndarray
    sigma_min: float
    border: np.ndarray

    @property
    def curve(self) -> tuple[tuple[float, float], ...]:
        """The border as pairs (sigma, rho), for ``observation_min``."""
        return tuple(
            (round(float(s), 6), float(r)) for s, r in zip(SIGMAS, self.border, strict=True)
        )

    def dropped(self, low: float) -> tuple[tuple[float, float], ...]:
        """Returns pairs (sigma, rho) that show the observation up to ``low`` and above sigma_min,
        and drop it between."""
        high = max(low, self.sigma_min)
        return ((low, 0.0), (low, 1.0), (high, 1.0), (high, 0.0))


def source_of(kind: str) -> dict[str, str]:
    """Returns the config fields of a kind's demonstrations."""
    return {"data.sources.source.path": f"shifted_{kind}"}


def annotate(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
    """Returns what was found about each kind, from ``<workdir>/judged/<kind>.npz``; makes what is
    missing, except in report_only."""
    found = {}
    for kind in config.task.kinds:
        options = config.copy_and_resolve_references()
        options.data.sources.source.path = f"shifted_{kind}"
        names = ("clean", "source", "data_seed", "scene", "classifier", "judged")
        about = {name: plain(config.task.to_dict()[name]) for name in names}
        about |= {"sigmas": SIGMAS.tolist(), "rhos": RHOS.tolist(), "kind": kind}
        about = json.loads(json.dumps(about))
        path = workdir / "judged" / f"{kind}.npz"
        if cache.is_left_out(path, about, config.task.report_only):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = cache.kept(path, about, functools.partial(_made, options))
        found[kind] = choose(arrays["probability"], config.task.tau)
        levels = found[kind].sigma_min, found[kind].border.max()
        logging.info("%s: sigma_min %.3f, rho at most %.3f", kind, *levels)
    return found


def _made(options):
    return {"probability": judged(options)}


def choose(probability: np.ndarray, tau: float, rhos: np.ndarray = RHOS) -> Judged:
    """Returns the levels chosen from P(clean) [M, L] at ``rhos`` and ``SIGMAS``."""
    border = plane.border(rhos, probability, tau=tau)
    return Judged(probability, plane.sigma_min(SIGMAS, probability[0], tau=tau), border)


def judged(config: ml_collections.ConfigDict) -> np.ndarray:
    """Trains the classifier of one kind and returns P(clean) [M, L], mean over chunks."""
    mixture = evidence.open_standing_still(config.data, observed=True)
    data = device.load_device_data(mixture)
    fields = {**_OPTIONS, "noised": NOISED, **config.task.classifier}
    sizes = dict(history=config.data.history, horizon=config.data.horizon)
    options = training.Options(**sizes, **fields)
    schedule = schedules.get(**SCHEDULE)
    fitted = classifier.fit(data, options, schedule=schedule, names=mixture.names)
    k = mixture.names.index("source")
    rows = np.arange(data.offset[k], data.offset[k] + data.size[k])
    chosen = np.sort(np.random.default_rng(0).permutation(rows)[: config.task.judged])
    size = min(512, len(chosen))
    found = plane.probabilities(fitted, data, chosen, SIGMAS, RHOS, draws=1, batch_size=size)
    return found.mean(0)
