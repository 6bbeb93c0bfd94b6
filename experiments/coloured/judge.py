"""How fast noise of each colour makes the planners alike: by a classifier, and in closed form."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
from typing import Any

import ml_collections
import numpy as np
from absl import logging

from ambient_jax import corruption, schedules
from ambient_jax.analysis import divergence
from ambient_jax.analysis.spectrum import fit_power_law
from ambient_jax.annotate import classifier, evidence, thresholds, training
from ambient_jax.annotate.options import SCHEDULE
from ambient_jax.cli.report import plain
from ambient_jax.data import chunk, device
from experiments.table import cache

LEVELS = evidence.grid(16)
ACTION = 2  # width of the maze's actions


@dataclasses.dataclass(frozen=True)
class Judged:
    """What was found about one colour.

    Attributes:
      exponent: of the noise's spectrum.
      sigma_min: where P(clean) of RRT chunks passes 0.5 - tau.
      probability: P(clean) [L] of RRT chunks at ``LEVELS``.
      total_variation: [3, L], the share that held-out decisions tell apart, with its interval.
      divergence: [L], of Gaussians with the planners' means and covariances (``of_gaussians``).
    """

    exponent: float
    sigma_min: float
    probability: np.ndarray
    total_variation: np.ndarray
    divergence: np.ndarray


def annotate(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
    """Returns what was found about each colour, from ``<workdir>/judged``; makes what is missing,
    except in report_only."""
    folder, task = workdir / "judged", config.task
    names = ("clean", "corrupt", "data_seed", "classifier", "judged")
    about = {name: plain(task.to_dict()[name]) for name in names}
    about = json.loads(json.dumps(about | {"levels": LEVELS.tolist()}))
    spectra = folder / "spectra.npz"
    if cache.is_left_out(spectra, about, task.report_only):
        return {}
    folder.mkdir(parents=True, exist_ok=True)

    @functools.cache
    def data():
        mixture = evidence.open_standing_still(config.data, observed=False)
        return mixture, device.load_device_data(mixture)

    def by_classifier(exponent):
        return judged(*data(), config, exponent)

    sides = cache.kept(spectra, about, lambda: moments(*data(), config))
    found = {}
    for colour in task.colours:
        exponent = data_exponent(sides["power"][0]) if colour == "data" else float(colour)
        path = folder / f"{key(colour)}.npz"
        of_colour = about | {"exponent": exponent}
        if cache.is_left_out(path, of_colour, task.report_only):
            continue
        arrays = cache.kept(path, of_colour, functools.partial(by_classifier, exponent))
        low = float(thresholds.sigma_min(LEVELS, arrays["probability"], tau=task.tau))
        gaussians = of_gaussians(sides["mean"], sides["covariance"], exponent)
        fields = arrays["probability"], arrays["total_variation"], gaussians
        found[key(colour)] = Judged(exponent, low, *fields)
        logging.info("noise f^-%.2f: sigma_min %.3f", exponent, low)
    return found


def key(colour: float | str) -> str:
    """Returns the name of a colour: "white", "data" or "f^-1"."""
    return str(colour) if isinstance(colour, str) else f"f^{-colour:g}" if colour else "white"


def chunks_of(mixture: Any, data: Any, name: str, config: ml_collections.ConfigDict) -> np.ndarray:
    """Returns the positions of at most ``task.judged`` chunks of a source, in order."""
    k = mixture.names.index(name)
    rows = np.arange(data.offset[k], data.offset[k] + data.size[k])
    return np.sort(np.random.default_rng(k).permutation(rows)[: config.task.judged])


def moments(mixture: Any, data: Any, config: ml_collections.ConfigDict) -> dict[str, np.ndarray]:
    """Returns of GCS and RRT chunks the mean [2, HD], the covariance [2, HD, HD] and the power
    [2, H] of each cosine, mean over dimensions."""
    horizon, history = config.data.horizon, config.data.history
    means, covariances, powers = [], [], []
    for name in ("gcs", "rrt"):
        at = chunks_of(mixture, data, name, config)
        within = data.start[at], data.end[at]
        _, x, _ = chunk.gather(data.steps, at, *within, history, horizon, padding="hold")
        x = np.asarray(x, np.float64)
        flat = x.reshape(len(x), -1)
        means.append(flat.mean(0))
        covariances.append(np.cov(flat.T))
        centred = x - x.mean(0)
        powers.append(
            np.mean(np.einsum("kh,nhd->nkd", corruption.cosines(horizon), centred) ** 2, (0, 2))
        )
    return {"mean": np.array(means), "covariance": np.array(covariances), "power": np.array(powers)}


def data_exponent(power: np.ndarray) -> float:
    """Returns the exponent of the power law of chunks with this power [H] of each cosine."""
    k = np.arange(1, len(power))
    return fit_power_law(k / (2 * len(power)), power[1:]).exponent


def of_gaussians(mean: np.ndarray, covariance: np.ndarray, exponent: float) -> np.ndarray:
    """Returns KL(RRT || GCS) [L] in nats at each level, of Gaussians with these moments.

    x_t has mean a m and covariance a^2 S + sigma^2 L^2, the same colour in every dimension.
    """
    dims = mean.shape[1]
    horizon = dims // ACTION
    matrix = np.kron(corruption.colour_matrix(horizon, exponent), np.eye(ACTION))
    noise, found = matrix @ matrix, []
    for sigma in LEVELS:
        a2 = 1 - sigma**2
        p, q = (a2 * s + sigma**2 * noise for s in covariance)
        shift = np.sqrt(a2) * (mean[1] - mean[0])
        inverse = np.linalg.inv(p)
        _, log_p = np.linalg.slogdet(p)
        _, log_q = np.linalg.slogdet(q)
        found.append(0.5 * (np.trace(inverse @ q) + shift @ inverse @ shift - dims + log_p - log_q))
    return np.array(found)


def judged(
    mixture: Any, data: Any, config: ml_collections.ConfigDict, exponent: float
) -> dict[str, Any]:
    """Trains the classifier of one colour; returns P(clean) and the total variation by level."""
    sizes = dict(history=config.data.history, horizon=config.data.horizon)
    options = training.Options(**sizes, **config.task.classifier)
    schedule = schedules.get(**SCHEDULE, colour=exponent)
    fitted = classifier.fit(data, options, schedule=schedule, names=mixture.names)
    sides = [chunks_of(mixture, data, name, config) for name in ("gcs", "rrt")]
    size = min(512, *map(len, sides))
    both = [
        classifier.probabilities(fitted, data, at, LEVELS, pair=0, draws=1, batch_size=size)
        for at in sides
    ]
    tv = [divergence.from_probabilities(*(c[:, i] for c in both)) for i in range(len(LEVELS))]
    ends = np.array([(e.tv, e.low, e.high) for e in tv]).T
    return {"probability": both[1].mean(0), "total_variation": ends}
