"""Metrics of the paper's pushing: those of planar pushing, and the parts of success."""

import dataclasses
from typing import Any

import numpy as np

from ambient_jax.estimates import Estimate, wilson
from experiments.paper_pushing.env import PaperScene
from experiments.planar_pushing import metrics

LOST = 0.1  # m, of the slider from its goal


@dataclasses.dataclass(frozen=True)
class Summary(metrics.Summary):
    """The metrics of one policy."""

    placed: Estimate  # rate of episodes that end with the slider within its tolerance
    back: Estimate  # the same of the pusher
    lost: Estimate  # rate of episodes that end with the slider farther than ``LOST``


def summarise(rollouts: Any, scene: PaperScene) -> Summary:
    """Computes the metrics of rollouts; raises ValueError for wrong shapes or no episode."""
    known = metrics.summarise(rollouts.success, rollouts.error, rollouts.lengths)
    placed = (np.asarray(rollouts.error) < (scene.position, scene.angle)).all(1)
    back = np.asarray(rollouts.back) < scene.back
    lost = np.asarray(rollouts.error)[:, 0] > LOST
    rates = {"placed": placed, "back": back, "lost": lost}
    counted = {name: wilson(int(rate.sum()), len(rate)) for name, rate in rates.items()}
    fields = {f.name: getattr(known, f.name) for f in dataclasses.fields(known)}
    return Summary(**fields, **counted)
