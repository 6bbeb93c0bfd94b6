"""Gathers the evidence for bounds: a mixture, its noise classifier and P(clean) of its chunks."""

import dataclasses
import time
from typing import Any

import ml_collections
import numpy as np
from absl import logging

from ambient_jax import mixing, schedules
from ambient_jax.annotate import classifier, thresholds
from ambient_jax.annotate.options import Options
from ambient_jax.data import device
from ambient_jax.data import mixture as mixtures


@dataclasses.dataclass(frozen=True, eq=False)
class Evidence:
    """The sources, the fitted classifier and its predictions; see ``annotation.annotate``."""

    options: Options
    seed: int
    schedule: schedules.Schedule
    mixture: mixtures.Mixture
    data: device.DeviceData  # all steps of all sources
    fitted: classifier.Fitted  # on whole chunks
    levels: np.ndarray  # [L] at which chunks are judged
    judged: dict[str, np.ndarray]  # [M] positions of the judged chunks of each corrupt source
    curves: dict[str, np.ndarray]  # P(clean) [M, L] of these chunks
    chunks_per_second: float  # speed of judging

    @property
    def horizon(self) -> int:
        return self.mixture.config.horizon

    @property
    def clean(self) -> list[str]:
        return _names(self.mixture, clean=True)

    @property
    def corrupt(self) -> list[str]:
        return _names(self.mixture, clean=False)

    def steps(self, name: str) -> np.ndarray:
        """Returns the positions of the steps of a source."""
        return _steps(self.mixture, self.data, name)

    def sigma_min(self, curve: np.ndarray, lot: np.ndarray | None = None) -> np.ndarray:
        """Returns sigma_min [...] of curves [..., L] of P(clean), by rejection if lots [...] are
        given (``thresholds.rejection_tau``)."""
        options = self.options
        tau = options.tau if lot is None else thresholds.rejection_tau(lot, options.tau)
        return thresholds.sigma_min(self.levels, curve, tau=tau, rule=options.rule)

    def fit(self, crop: int = 0, seed: int | None = None) -> classifier.Fitted:
        """Fits another classifier: of crops, or with another seed."""
        options = classifier_options(self.options, self.mixture.config.history, self.horizon, crop)
        how: Any = dict(schedule=self.schedule, names=self.mixture.names)
        return classifier.fit(self.data, options, seed=self.seed if seed is None else seed, **how)


def classifier_options(
    options: Options, history: int, horizon: int, crop: int = 0
) -> classifier.Options:
    """Returns the options of the classifier of whole chunks, or of their first ``crop`` actions."""
    names = ["folds", "batch_size", "evaluate_every", "features", "patience", "learning_rate"]
    names += ["encoder", "blur"]
    return classifier.Options(
        *(history, horizon, crop, options.observed and not crop),
        steps=options.crop_steps if crop else options.steps,
        **{name: getattr(options, name) for name in names},
    )


def grid(count: int) -> np.ndarray:
    """Returns noise levels [count], equidistant in log(sigma / alpha) from 0.004 to 16."""
    s = np.geomspace(0.004, 16, count)
    return s / np.hypot(1, s)


def open_standing_still(
    data: ml_collections.ConfigDict | mixtures.Mixture, observed: bool
) -> mixtures.Mixture:
    """Opens the mixture of a data section, or takes an open one, with padding "hold".

    A mask would show the classifier where an episode ends. Observations are read if ``observed``.

    Raises:
      ValueError: a source that has bounds already; see ``mixture.open_mixture``.
    """
    config = data.config if isinstance(data, mixtures.Mixture) else data
    for name, source in config.sources.items():
        if config.bounds or source.bounds:
            raise ValueError(
                f"source {name!r} has a bounds file, expected none: annotation makes the bounds"
            )
    if problem := mixtures.missing_delta(config):
        raise ValueError(problem)
    config = config.copy_and_resolve_references()
    config.padding = "hold"
    if mixtures.missing_delta(config):
        logging.warning(
            "chunks repeat the last action past an episode's end: if dimensions of the action are "
            "displacements, name them in config.data.delta, such as (0, 1, 2); () says that none is"
        )
        config.delta = ()
    if isinstance(data, mixtures.Mixture):
        return dataclasses.replace(data, config=config)
    return mixtures.open_mixture(config, mixing.CoTraining(), observed=observed)


def gather(
    mixture: mixtures.Mixture,
    options: Options,
    *,
    schedule: schedules.Schedule,
    seed: int = 0,
    progress: bool = True,
) -> Evidence:
    """Fits the classifier and judges chunks of every corrupt source of ``open_standing_still``."""
    data = device.load_device_data(mixture)
    sizes = mixture.config.history, mixture.config.horizon
    how: dict[str, Any] = dict(schedule=schedule, seed=seed, progress=progress)
    fitted = classifier.fit(data, classifier_options(options, *sizes), names=mixture.names, **how)
    rng, judged = np.random.default_rng(seed), {}
    for name in _names(mixture, clean=False):
        rows = _steps(mixture, data, name)
        if options.judged and len(rows) > options.judged:
            rows = np.sort(rng.permutation(rows)[: options.judged])
        judged[name] = rows
    levels = grid(options.levels)
    # All sources in one call, so that batches are full.
    positions, begin = np.concatenate(list(judged.values())), time.perf_counter()
    c = classifier.probabilities(
        fitted, data, positions, levels, draws=options.draws, progress=progress
    )
    speed = len(positions) / (time.perf_counter() - begin)
    ends = np.cumsum([len(rows) for rows in judged.values()])
    curves = dict(zip(judged, np.split(c, ends[:-1]), strict=True))
    return Evidence(options, seed, schedule, mixture, data, fitted, levels, judged, curves, speed)


def _names(mixture, clean):
    roles = zip(mixture.names, mixture.sources.clean, strict=True)
    return [name for name, is_clean in roles if bool(is_clean) == clean]


def _steps(mixture, data, name):
    k = mixture.names.index(name)
    return np.arange(data.offset[k], data.offset[k] + data.size[k])
