"""Sets bounds from labels in the data (success, intervention, ...), without a classifier."""

import math

import numpy as np
import tqdm

from ambient_jax import admission
from ambient_jax.data import bounds
from ambient_jax.data import mixture as mixtures


def sigma_min(
    label, *, threshold: float, at_least: float, below: float, unlabelled: float
) -> np.ndarray:
    """Returns sigma_min [N] of steps with a label [N], such as 1 for success and 0 for failure.

    Args:
      label: [N] numbers; NaN means no label.
      threshold: value of the label that ``at_least`` and ``below`` refer to.
      at_least: sigma_min where the label is the threshold or more; 0 trains every noise level.
      below: sigma_min where it is below; 1 trains none.
      unlabelled: sigma_min where there is no label.

    Raises:
      ValueError: a threshold that is not finite, bounds outside of [0, 1], labels that are not [N].
    """
    label = np.asarray(label, float)
    if label.ndim != 1 or not math.isfinite(threshold):
        raise ValueError(
            f"label has shape {label.shape} and the threshold is {threshold}, expected [N] and a "
            "finite number"
        )
    for name, value in (("at_least", at_least), ("below", below), ("unlabelled", unlabelled)):
        admission.check_bounds(value, None, [name])
    with np.errstate(invalid="ignore"):
        low = np.where(label >= threshold, at_least, below)
    return np.where(np.isnan(label), unlabelled, low)


def annotate(
    mixture: mixtures.Mixture, label: str, **rule: float
) -> tuple[bounds.BoundsTable, dict[str, np.ndarray]]:
    """Returns bounds of all corrupt sources from a quality label, and the labels by source.

    ``config.data.open_x.quality`` of the mixture names the label; ``rule`` are the keywords of
    ``sigma_min``.

    Raises:
      ValueError: no corrupt source, or none that has the label.
    """
    corrupt = [n for n, c in zip(mixture.names, mixture.sources.clean, strict=True) if not c]
    if not corrupt:
        raise ValueError("all sources are clean: expected a corrupt one, whose labels set bounds")
    parts, by_source, how = [], {}, {"label": label, **rule}
    for name in corrupt:
        dataset = mixture.datasets[name]
        episode, step, by_source[name] = _read(dataset, label, name)
        low = sigma_min(by_source[name], **rule)
        columns = name, dataset.fingerprint, episode, step, low
        parts.append(bounds.for_source(*columns, method="labels", how=how))
    if not any(np.isfinite(values).any() for values in by_source.values()):
        raise ValueError(
            f"no step of {', '.join(corrupt)} has the label {label!r}: see the column quality "
            "of ambient_jax/open_x/standardization.csv, or give a source of your own one"
        )
    return bounds.concatenate(parts), by_source


def _read(dataset, label, name):
    """Reads episode, step and label of every step of a source, three arrays [N]."""
    columns = []
    with tqdm.tqdm(total=len(dataset), desc=name, unit="episode") as bar:
        for shard in range(len(dataset.shard_lengths)):
            for index, episode in dataset.stream(shard):
                value = np.asarray(episode["steps"]["quality"][label], float)
                columns.append((np.full(len(value), index), np.arange(len(value)), value))
                bar.update()
    return [np.concatenate(column) for column in zip(*columns, strict=True)]
