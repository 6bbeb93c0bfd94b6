"""Options of an annotation; the command's section ``config.task`` has the same fields."""

from __future__ import annotations

import dataclasses
from typing import Any

import ml_collections

from ambient_jax import _checks
from ambient_jax.annotate import buckets

# The classifier's noise levels: a wide law, so that it also learns details visible at low noise.
SCHEDULE: dict[str, Any] = {"name": "edm", "p_mean": -1.5, "p_std": 2.2}
ANALYSES = ("spectrum", "jerk", "bucket_noise")


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of an annotation.

    Attributes:
      granularity: which chunks share one bound, see ``buckets``. Every entry makes a set of bounds,
        such as "dataset", "random" or "random:1000", whose buckets have 1000 chunks.
      bucket: chunks in a bucket, if the granularity has no size.
      tau: sigma_min is where P(clean) passes 0.5 - tau.
      rule: "isotonic" or "last", see ``thresholds.sigma_min``.
      levels: number of noise levels that P(clean) is measured at.
      distinct: number of levels that bounds are rounded up to.
      draws: noise draws of each chunk at each level.
      judged: number of chunks of each source that are judged; 0: all, which granularities finer
        than "dataset" need.
      head_start: whether the classifier of actions alone adds its logit to that of Gaussians with
        the means and covariances of both sides (``gaussian``). As many clean chunks are then judged
        as corrupt ones, to centre P(clean), see ``calibration.centred``.
      observed, encoder, blur, patience, learning_rate, folds, steps, batch_size, features,
        evaluate_every: options of the classifier, see ``training.Options``.
      analyses: parts of the report, from ``ANALYSES``.
      compared: most chunks of each side that the total variation, mismatch, crops and jerk use.
      crops: widths in actions for sigma_max by locality; () leaves sigma_max at 0.
      mismatch: number of classifiers, each with its own seed, for sigma_max by the denoising of
        clean chunks (``annotate.mismatch``); 0: none, and locality sets sigma_max.
      crop_steps: training steps of the classifiers of crops.
      field_chunks, field_steps: most chunks and training steps of the receptive field's denoiser.
    """

    granularity: tuple[str, ...] = ("dataset", "random", "datapoint")
    bucket: int = 100
    tau: float = 0.05
    rule: str = "isotonic"
    levels: int = 16
    distinct: int = 64
    draws: int = 2
    judged: int = 0
    observed: bool = False
    head_start: bool = False
    encoder: tuple[int, int, int] = (4, 256, 2)
    blur: float = 0.0
    patience: int = 8
    learning_rate: float = 2e-3
    folds: int = 4
    steps: int = 2000
    batch_size: int = 256
    features: tuple[int, ...] = (32, 64)
    evaluate_every: int = 100
    analyses: tuple[str, ...] = ANALYSES
    compared: int = 4000
    crops: tuple[int, ...] = (1, 2, 4, 8)
    mismatch: int = 0
    crop_steps: int = 1000
    field_chunks: int = 20_000
    field_steps: int = 3000

    def __post_init__(self):
        for name in self.granularity:
            _checks.one_of("granularity", name.partition(":")[0], buckets.GRANULARITIES)
        for name in self.analyses:
            _checks.one_of("analyses", name, ANALYSES)
        if self.judged and set(self.granularity) != {"dataset"}:
            raise ValueError(
                f"judged is {self.judged} and granularity {tuple(self.granularity)}: bounds finer "
                "than by data set need every chunk judged; set judged to 0 (all), or granularity "
                "to ('dataset',)"
            )

    @classmethod
    def from_config(cls, task: ml_collections.ConfigDict) -> Options:
        """Reads options from a section that has these fields, and maybe others."""
        fields: dict[str, Any] = {field.name: task[field.name] for field in dataclasses.fields(cls)}
        try:
            return cls(**fields)
        except ValueError as error:
            raise ValueError(f"config.task.{error}") from error
