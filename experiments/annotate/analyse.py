"""What a report tells beside the bounds: contraction, spectra, locality, jerk, noise of buckets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.stats

from ambient_jax.analysis import divergence, spectrum
from ambient_jax.annotate import buckets as units
from ambient_jax.annotate import classifier, thresholds
from ambient_jax.annotate import locality as receptive
from ambient_jax.annotate import mismatch as mismatches
from ambient_jax.data import chunk

if TYPE_CHECKING:
    from experiments.annotate.annotate import Job

BUCKETS = (1, 10, 100, 1000, 10_000)
_DRAWS = 4
_DRAWS_OF_ONE = 16  # where chunks are judged one by one
TAUS = (0.02, 0.05, 0.1, 0.2)
_RESAMPLED = 1000  # times that episodes are drawn for an interval


def contraction(job: Job) -> dict[str, dict[str, np.ndarray]]:
    """Total variation of each corrupt source from the clean ones at each level, with intervals.

    From held-out decisions on chunks that do not overlap (at most ``task.compared`` of a side).
    """
    rng = np.random.default_rng(job.config.seed)

    def some(names):
        positions = np.concatenate([_apart(job, name, rng) for name in names])
        return rng.permutation(positions)[: job.config.task.compared]

    clean, names = some(job.role("clean")), job.role("corrupt")
    sides = [side for name in names for side in (clean, some([name]))]
    sizes = [len(side) for side in sides]
    pair = np.repeat(np.arange(len(sides)) // 2, sizes)
    # [N, draws, L]: every draw is a decision of its own. All pairs in one go, as batches are full.
    decisions = np.stack(
        [
            classifier.probabilities(
                *(job.fitted, job.data, np.concatenate(sides), job.levels),
                **dict(pair=pair, draws=1, decisions=True, seed=seed),
            )
            for seed in range(1, 1 + _DRAWS)
        ],
        1,
    )
    parts = np.split(decisions, np.cumsum(sizes)[:-1])
    found = {}
    for name, first, second in zip(names, parts[::2], parts[1::2], strict=True):
        each = [
            divergence.from_probabilities(first[..., i], second[..., i])
            for i in range(len(job.levels))
        ]
        found[name] = dict(zip(("value", "low", "high"), np.transpose(each), strict=True))
    return found


def spectra(job: Job) -> dict[str, Any]:
    """Power spectral density of each source's chunks, its power law, and the bound on TV.

    The bound is that of Gaussian processes with the measured spectra, the corrupt source's against
    the clean ones' mean; it knows nothing of where motions go.
    """
    found: dict[str, Any] = {}
    for name in job.mixture.names:
        frequency, psd = spectrum.power_spectrum(chunks_of(job, name))
        found[name] = {"psd": psd}
        keep = frequency > 0
        if keep.sum() >= 3 and np.all(psd[keep] > 0):
            found[name] |= spectrum.fit_power_law(frequency, psd)._asdict()
    horizon = job.config.data.horizon
    clean = np.mean([found[name]["psd"] for name in job.role("clean")], 0)
    dims = job.mixture.action_dim
    for name in job.role("corrupt"):
        found[name]["bound"] = divergence.spectral_bound(
            clean, found[name]["psd"], horizon, job.levels, dims=dims
        )
    return {"frequency": frequency, "sources": found}


def locality(job: Job) -> dict[str, Any]:
    """Receptive field of each source's denoiser, P(clean) of crops, and sigma_max from both.

    The field that counts is the clean sources': a corrupt crop is good where what the clean
    denoiser sees of it looks clean.
    """
    task, horizon = job.config.task, job.config.data.horizon
    widths = sorted({*range(1, min(8, horizon)), *range(8, horizon, 2), horizon})
    fields, losses = {}, {}
    for name in job.mixture.names:
        own = job.steps(name)
        held_out = job.fitted.fold[own] == 0
        parts = [
            chunks_of(job, name, own[keep], task.field_chunks) for keep in (~held_out, held_out)
        ]
        losses[name] = receptive.denoising_losses(
            *parts, job.levels, widths, steps=task.field_steps, seed=job.config.seed
        )
        fields[name] = receptive.receptive_field(losses[name])
    crops = [*sorted(w for w in task.crops if w < horizon), horizon]
    rng = np.random.default_rng(job.config.seed)
    some = {n: rng.permutation(job.steps(n))[: task.compared] for n in job.role("corrupt")}
    curves: dict[str, list] = {name: [] for name in some}
    for width in crops:
        options, seed = job.options(width), job.config.seed
        known = width == horizon and not task.observed
        fitted = (
            job.fitted
            if known
            else classifier.fit(
                job.data, options, schedule=job.schedule, seed=seed, names=job.mixture.names
            )
        )
        for name, positions in some.items():
            c = classifier.probabilities(fitted, job.data, positions, job.levels, draws=_DRAWS)
            curves[name].append(c.mean(0))
    field = np.max([fields[name] for name in job.role("clean")], 0)
    return {
        "widths": widths,
        "losses": {name: found.loss for name, found in losses.items()},
        "prior": {name: found.prior for name, found in losses.items()},
        "field": fields,
        "crops": crops,
        "curves": curves,
        "sigma_max": {
            name: receptive.sigma_max(job.levels, field, crops, c, tau=task.tau)
            for name, c in curves.items()
        },
    }


def mismatch(job: Job) -> dict[str, Any]:
    """sigma_max by how wrongly each corrupt source denoises clean chunks: ``analysis.mismatch``.

    Of ``task.mismatch`` classifiers with folds of their own, on at most ``task.compared`` clean
    chunks. The intervals are of the mean over classifiers, episodes drawn anew.
    """
    task, seed = job.config.task, job.config.seed
    rng = np.random.default_rng(seed)
    clean = np.concatenate([job.steps(name) for name in job.role("clean")])
    positions = np.sort(rng.permutation(clean)[: task.compared])
    names = dict(names=job.mixture.names)
    fitted = [job.fitted] + [
        classifier.fit(job.data, job.options(), schedule=job.schedule, seed=seed + i, **names)
        for i in range(1, task.mismatch)
    ]
    # Counts of each episode in a draw of as many, as weights of its chunks.
    episode = np.unique(np.asarray(job.data.start)[positions], return_inverse=True)[1]
    count = episode.max() + 1
    drawn = rng.multinomial(count, np.full(count, 1 / count), _RESAMPLED)[:, episode]
    each = {}
    for k, name in enumerate(job.role("corrupt")):
        judged = [
            mismatches.by_classifier(one, job.data, positions, job.levels, pair=k) for one in fitted
        ]
        excess = np.stack([one.excess for one in judged])  # [S, N, L]
        entropy = np.stack([one.logit.mean(0) for one in judged])
        bound = lambda e, tau=task.tau: mismatches.sigma_max(job.levels, e, tau=tau)  # noqa: E731
        mean = excess.mean((0, 1))
        resampled = [bound(weights @ excess.mean(0)) for weights in drawn]
        low, high = np.quantile(resampled, [0.025, 0.975])
        each[name] = {
            "excess": excess.mean(1),
            "relative_entropy": entropy,
            "sigma_max": bound(mean),
            "low": low,
            "high": high,
            "of_seed": [bound(one) for one in excess.mean(1)],
            "by_tau": {f"{tau:g}": bound(mean, tau) for tau in TAUS},
            "by_entropy": bound(mismatches.lost(entropy.mean(0))),
            "chunks": len(positions),
            "held_out": [np.min([row["held_out"] for row in one.history], 0) for one in fitted],
        }
    return {"each": each, "sigma_max": {name: found["sigma_max"] for name, found in each.items()}}


def jerk_correlation(job: Job) -> dict[str, dict[str, float]]:
    """Spearman's rank correlation of each chunk's own jerk with its sigma_min and its P(clean).

    Of at most ``task.compared`` chunks, judged with many noise draws and continued past the end of
    their episode as the classifier sees them: a rest has no jerk. "whole" is of those that are not.
    """
    task, found = job.config.task, {}
    rng = np.random.default_rng(job.config.seed)
    names = chunk.ACTION, chunk.STILL
    steps = {n: np.asarray(job.data.steps[n]) for n in names if n in job.data.steps}
    horizon = job.config.data.horizon
    for name in job.curves:
        some = rng.permutation(job.steps(name))[: task.compared]
        if horizon < 4 or len(some) < 3:
            continue
        within = job.data.start[some], job.data.end[some]
        _, chunks, _ = chunk.gather(steps, some, *within, 1, horizon, np, "hold")
        jerk = np.mean(np.diff(chunks, n=3, axis=1) ** 2, axis=(1, 2))
        c = classifier.probabilities(job.fitted, job.data, some, job.levels, draws=_DRAWS_OF_ONE)
        low = thresholds.sigma_min(job.levels, c, tau=task.tau, rule=task.rule)
        whole = some + horizon <= job.data.end[some]
        rank = lambda x, y: float(scipy.stats.spearmanr(x, y)[0])  # noqa: E731
        found[name] = {
            "sigma_min": rank(jerk, low),
            "clean_probability": rank(jerk, c.mean(1)),
            "sigma_min_whole": rank(jerk[whole], low[whole]) if whole.sum() > 2 else None,
            "chunks": len(some),
        }
    return found


def bucket_noise(job: Job) -> dict[str, dict[str, list]]:
    """Mean and standard deviation of sigma_min over random buckets of several sizes."""
    task, found = job.config.task, {}
    for name, c in job.curves.items():
        sizes = [size for size in BUCKETS if len(c) // size >= 5]
        rows = []
        for size in sizes:
            unit = units.assign("random", np.zeros(len(c), int), size=size, seed=job.config.seed)
            mean = np.clip(units.average(c, unit), 0, 1)
            low = thresholds.sigma_min(job.levels, mean, tau=task.tau, rule=task.rule)
            rows.append([low.mean(), low.std()])
        mean, std = np.transpose(rows) if rows else ([], [])
        found[name] = {"size": sizes, "mean": mean, "std": std}
    return found


def chunks_of(
    job: Job, name: str, positions: np.ndarray | None = None, most: int | None = None
) -> np.ndarray:
    """Normalised chunks [N, H, D] of a source that end within their episode.

    Args:
      job: the job.
      name: of the source.
      positions: where they may begin; default everywhere.
      most: draw so many of them.
    """
    begin = _whole(job, name)
    if positions is not None:
        begin = begin[np.isin(begin, positions)]
    if most is not None and len(begin) > most:
        begin = np.sort(np.random.default_rng(job.config.seed).permutation(begin)[:most])
    action = np.asarray(job.data.steps["action"])
    return action[begin[:, None] + np.arange(job.config.data.horizon)]


def _whole(job, name):
    own = job.steps(name)
    return own[own + job.config.data.horizon <= job.data.end[own]]


def _apart(job, name, rng):
    """Steps of a source whose chunks do not overlap."""
    own, horizon = job.steps(name), job.config.data.horizon
    first = own - job.data.start[own]
    offset = rng.integers(0, horizon)
    found = own[first % horizon == offset]
    return found if len(found) else own[first == 0]
