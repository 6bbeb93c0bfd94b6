"""Analyses evidence: total variation, sigma_max, spectra, jerk, bucket noise."""

import functools
from typing import Any

import numpy as np
import scipy.stats

from ambient_jax.analysis import divergence, spectrum
from ambient_jax.annotate import buckets, classifier
from ambient_jax.annotate import locality as receptive
from ambient_jax.annotate import mismatch as mismatches
from ambient_jax.annotate.evidence import Evidence
from ambient_jax.data import chunk

BUCKETS = (1, 10, 100, 1000, 10_000)
TAUS = (0.02, 0.05, 0.1, 0.2)
_DRAWS = 4
_DRAWS_PER_CHUNK = 16  # where every chunk gets its own sigma_min
_RESAMPLED = 1000  # draws of episodes for an interval


def total_variation(evidence: Evidence) -> dict[str, dict[str, np.ndarray]]:
    """Returns the total variation of each corrupt source from the clean ones.

    {source: {"value", "low", "high": [L]}}: the estimate and its 95% interval, from held-out
    decisions on at most ``compared`` chunks of each side that do not overlap.
    """
    rng, names = np.random.default_rng(evidence.seed), evidence.corrupt

    def some(names):
        positions = np.concatenate([_disjoint(evidence, name, rng) for name in names])
        return rng.permutation(positions)[: evidence.options.compared]

    clean = some(evidence.clean)
    sides = [side for name in names for side in (clean, some([name]))]
    sizes = [len(side) for side in sides]
    pair = np.repeat(np.arange(len(sides)) // 2, sizes)
    # [N, draws, L] decisions. All pairs in one call, so that batches are full.
    chunks = evidence.fitted, evidence.data, np.concatenate(sides), evidence.levels
    ask = functools.partial(classifier.probabilities, *chunks, pair=pair, draws=1, decisions=True)
    decisions = np.stack([ask(seed=seed) for seed in range(1, 1 + _DRAWS)], 1)
    parts = np.split(decisions, np.cumsum(sizes)[:-1])
    estimates = {}
    for name, first, second in zip(names, parts[::2], parts[1::2], strict=True):
        levels = zip(np.moveaxis(first, -1, 0), np.moveaxis(second, -1, 0), strict=True)
        by_level = [divergence.from_probabilities(*level) for level in levels]
        estimates[name] = dict(zip(("value", "low", "high"), np.transpose(by_level), strict=True))
    return estimates


def _disjoint(evidence, name, rng):
    """Returns steps of a source whose chunks do not overlap."""
    rows, horizon = evidence.steps(name), evidence.horizon
    step = rows - evidence.data.start[rows]
    disjoint = rows[step % horizon == rng.integers(0, horizon)]
    return disjoint if len(disjoint) else rows[step == 0]


def locality(evidence: Evidence) -> dict[str, Any]:
    """Returns the receptive field of each source's denoiser, P(clean) of crops, and sigma_max.

    sigma_max uses the widest receptive field of the clean sources.
    """
    options, horizon, levels = evidence.options, evidence.horizon, evidence.levels
    widths = sorted({*range(1, min(8, horizon)), *range(8, horizon, 2), horizon})
    losses = {}
    how: Any = dict(steps=options.field_steps, seed=evidence.seed)
    for name in evidence.mixture.names:
        rows = evidence.steps(name)
        held_out = evidence.fitted.fold[rows] == 0
        folds = rows[~held_out], rows[held_out]
        x0, tested = (chunks_of(evidence, fold, options.field_chunks) for fold in folds)
        losses[name] = receptive.denoising_losses(x0, tested, levels, widths, **how)
    fields = {name: receptive.receptive_field(loss) for name, loss in losses.items()}
    crops = [*sorted(w for w in options.crops if w < horizon), horizon]
    rng = np.random.default_rng(evidence.seed)
    some = {n: rng.permutation(evidence.steps(n))[: options.compared] for n in evidence.corrupt}
    curves: dict[str, list] = {name: [] for name in some}
    for width in crops:
        fitted = evidence.fitted
        if width != horizon or options.observed:
            fitted = evidence.fit(crop=width)
        for name, positions in some.items():
            c = classifier.probabilities(fitted, evidence.data, positions, levels, draws=_DRAWS)
            curves[name].append(c.mean(0))
    field = np.max([fields[name] for name in evidence.clean], 0)
    bound = lambda curve: receptive.sigma_max(levels, field, crops, curve, tau=options.tau)  # noqa: E731
    return {
        "widths": widths,
        "losses": {name: loss.loss for name, loss in losses.items()},
        "prior": {name: loss.prior for name, loss in losses.items()},
        "field": fields,
        "crops": crops,
        "curves": curves,
        "sigma_max": {name: bound(c) for name, c in curves.items()},
    }


def mismatch(evidence: Evidence) -> dict[str, Any]:
    """Returns sigma_max by how wrongly each corrupt source denoises clean chunks.

    ``options.mismatch`` classifiers, each with its own folds, judge at most ``compared`` clean
    chunks. The intervals of their mean come from a bootstrap over episodes. See ``mismatch``.
    """
    options, seed, levels = evidence.options, evidence.seed, evidence.levels
    rng = np.random.default_rng(seed)
    clean = np.concatenate([evidence.steps(name) for name in evidence.clean])
    positions = np.sort(rng.permutation(clean)[: options.compared])
    fitted = [evidence.fitted, *(evidence.fit(seed=seed + i) for i in range(1, options.mismatch))]
    # Bootstrap weights [_RESAMPLED, N]: how often a resample has the episode of each chunk.
    episode = np.unique(np.asarray(evidence.data.start)[positions], return_inverse=True)[1]
    count = episode.max() + 1
    resamples = rng.multinomial(count, np.full(count, 1 / count), _RESAMPLED)[:, episode]

    def bound(excess, tau=options.tau):
        return mismatches.sigma_max(levels, excess, tau=tau)

    by_source = {}
    for k, name in enumerate(evidence.corrupt):
        chunks = evidence.data, positions, levels
        judged = [mismatches.by_classifier(member, *chunks, pair=k) for member in fitted]
        excess = np.stack([member.excess for member in judged])  # [S, N, L]
        entropy = np.stack([member.logit.mean(0) for member in judged])
        mean = excess.mean((0, 1))
        resampled = [bound(weights @ excess.mean(0)) for weights in resamples]
        low, high = np.quantile(resampled, [0.025, 0.975])
        by_source[name] = {
            "excess": excess.mean(1),
            "relative_entropy": entropy,
            "sigma_max": bound(mean),
            "low": low,
            "high": high,
            "of_seed": [bound(curve) for curve in excess.mean(1)],
            "by_tau": {f"{tau:g}": bound(mean, tau) for tau in TAUS},
            "by_entropy": bound(mismatches.lost(entropy.mean(0))),
            "chunks": len(positions),
            "held_out": [
                np.min([row["held_out"] for row in member.trained.history], 0) for member in fitted
            ],
        }
    return {"each": by_source, "sigma_max": {n: f["sigma_max"] for n, f in by_source.items()}}


def spectra(evidence: Evidence) -> dict[str, Any]:
    """Returns the power spectral density of each source's chunks, its power law, and a bound on TV.

    The bound holds for Gaussian processes with the measured spectra: that of the corrupt source and
    the mean of the clean ones. It ignores where motions go.
    """
    sources: dict[str, Any] = {}
    for name in evidence.mixture.names:
        frequency, psd = spectrum.power_spectrum(chunks_of(evidence, evidence.steps(name)))
        sources[name] = {"psd": psd}
        keep = frequency > 0
        if keep.sum() >= 3 and np.all(psd[keep] > 0):
            sources[name] |= spectrum.fit_power_law(frequency, psd)._asdict()
    clean = np.mean([sources[name]["psd"] for name in evidence.clean], 0)
    bound = functools.partial(divergence.spectral_bound, dims=evidence.mixture.action_dim)
    for name in evidence.corrupt:
        psd = sources[name]["psd"]
        sources[name]["bound"] = bound(clean, psd, evidence.horizon, evidence.levels)
    return {"frequency": frequency, "sources": sources}


def jerk_correlation(evidence: Evidence) -> dict[str, dict[str, Any]]:
    """Returns Spearman's rank correlation of a chunk's jerk with its sigma_min and its P(clean). It
    uses at most ``compared`` chunks with many noise draws. Chunks that pass the end of their
    episode are padded as the classifier sees them, and standing still has no jerk;
    "sigma_min_whole" excludes these chunks."""
    data, horizon, correlations = evidence.data, evidence.horizon, {}
    rng = np.random.default_rng(evidence.seed)
    fields = [name for name in (chunk.ACTION, chunk.STILL) if name in data.steps]
    steps = {name: np.asarray(data.steps[name]) for name in fields}
    rank = lambda x, y: float(scipy.stats.spearmanr(x, y)[0])  # noqa: E731
    for name in evidence.curves:
        some = rng.permutation(evidence.steps(name))[: evidence.options.compared]
        if horizon < 4 or len(some) < 3:
            continue
        within = data.start[some], data.end[some]
        _, chunks, _ = chunk.gather(steps, some, *within, 1, horizon, np, "hold")
        jerk = np.mean(np.diff(chunks, n=3, axis=1) ** 2, axis=(1, 2))
        ask = functools.partial(classifier.probabilities, evidence.fitted, data, some)
        c = ask(evidence.levels, draws=_DRAWS_PER_CHUNK)
        low = evidence.sigma_min(c)
        whole = some + horizon <= data.end[some]
        correlations[name] = {
            "sigma_min": rank(jerk, low),
            "clean_probability": rank(jerk, c.mean(1)),
            "sigma_min_whole": rank(jerk[whole], low[whole]) if whole.sum() > 2 else None,
            "chunks": len(some),
        }
    return correlations


def bucket_noise(evidence: Evidence) -> dict[str, dict[str, Any]]:
    """Returns mean and standard deviation of sigma_min over random buckets of several sizes."""
    noise = {}
    for name, c in evidence.curves.items():
        sizes, rows = [size for size in BUCKETS if len(c) // size >= 5], []
        for size in sizes:
            bucket = buckets.assign("random", np.zeros(len(c), int), size=size, seed=evidence.seed)
            low = evidence.sigma_min(np.clip(buckets.average(c, bucket), 0, 1))
            rows.append([low.mean(), low.std()])
        mean, std = np.transpose(rows) if rows else ([], [])
        noise[name] = {"size": sizes, "mean": mean, "std": std}
    return noise


def chunks_of(evidence: Evidence, positions: np.ndarray, most: int | None = None) -> np.ndarray:
    """Returns normalised chunks [N, H, D] at ``positions`` that end within their episode. More than
    ``most`` chunks are subsampled."""
    begin = positions[positions + evidence.horizon <= evidence.data.end[positions]]
    if most is not None and len(begin) > most:
        begin = np.sort(np.random.default_rng(evidence.seed).permutation(begin)[:most])
    action = np.asarray(evidence.data.steps[chunk.ACTION])
    return action[begin[:, None] + np.arange(evidence.horizon)]
