"""Compares the estimates of one annotation with the exact sigma_min of 48 corrupt sources.

All motions are Gaussian processes, independent in each of two dimensions: squared-exponential
covariance with a length in time, plus white jitter, around a constant. The clean source is smooth
and slow around 0. A corrupt source differs in one property by some amount: ``offset`` moves the
centre, ``jitter`` has more jitter, ``short`` has a smaller length.

Chunks are Gaussian, of lower rank if they repeat an episode's last action: p_sigma and q_sigma are
mixtures in closed form. The mean of c = p / (p + q) over q is that of 2 c (1 - c) over (p + q) / 2,
which has far less variance over draws.
"""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_collections
import numpy as np
import scipy.special
import scipy.stats
import tqdm

from ambient_jax import mixing
from ambient_jax.annotate import command, evidence, thresholds
from ambient_jax.cli import report
from ambient_jax.data import chunk, write
from ambient_jax.data import mixture as mixtures
from ambient_jax.data.paths import expanded
from ambient_jax.train import config as train_config
from ambient_jax.train import lock

COLUMNS = ("source", "exact", "found", "bounds file", "found - exact")
CHANGES = ("offset", "jitter", "short")
DIMS = 2
_LEVELS = 40  # levels of the exact curve
_DRAWS = 4000  # draws of its average


class Law(NamedTuple):
    """A stationary Gaussian process: mean, std of the white jitter, length in steps."""

    offset: float = 0.0
    jitter: float = 0.02
    length: float = 6.0

    def covariance(self, count: int) -> np.ndarray:
        """Returns the covariance [count, count] of consecutive steps."""
        lag = np.subtract.outer(np.arange(count), np.arange(count))
        return np.exp(-0.5 * (lag / self.length) ** 2) + self.jitter**2 * np.eye(count)


def laws(count: int) -> dict[str, Law]:
    """Returns the laws of the source "clean" and of ``count`` corrupt ones, a multiple of three."""
    steps = count // len(CHANGES)
    changes = {
        "offset": [Law(offset=v) for v in np.geomspace(0.3, 1.3, steps)],
        "jitter": [Law(jitter=v) for v in np.geomspace(0.021, 1, steps)],
        "short": [Law(length=6.0 / v) for v in np.geomspace(1.02, 6, steps)],
    }
    names = [(f"{change}_{i:02d}", change, i) for i in range(steps) for change in CHANGES]
    return {"clean": Law()} | {name: changes[change][i] for name, change, i in names}


def add_sources(config: ml_collections.ConfigDict) -> None:
    """Adds the sources of ``config.task.sources`` laws to the config."""
    for name in laws(config.task.sources):
        role = "clean" if name == "clean" else "corrupt"
        config.data.sources[name] = train_config.source(name, role, last_step="keep")


def build(config: ml_collections.ConfigDict) -> None:
    """Writes the data sets that are absent, or were drawn from other laws, counts or seeds."""
    from experiments import demos  # needs the simulators' packages

    task, root = config.task, pathlib.Path(expanded(config.data.root))
    vector = np.zeros(DIMS, np.float32)
    features = write.rlds_features({"state": vector}, vector)
    for k, (name, law) in enumerate(tqdm.tqdm(laws(task.sources).items(), desc="data sets")):
        rng = np.random.default_rng([config.seed, k])
        count = task.clean_episodes if name == "clean" else task.episodes
        episodes = _episodes(rng, law, count, task.episode_steps)
        key = {"law": law._asdict(), "episodes": count, "steps": task.episode_steps}
        key["seed"] = [config.seed, k]
        demos.write(root, name, "1.0.0", key, features, episodes)


def _episodes(rng, law, count, length):
    from experiments import demos  # needs the simulators' packages

    root = np.linalg.cholesky(law.covariance(length) + 1e-9 * np.eye(length))
    for _ in range(count):
        action = (law.offset + root @ rng.normal(size=(length, DIMS))).astype(np.float32)
        steps = demos.steps({"state": action}, action)
        yield {"steps": steps | {"discount": np.ones(length, np.float32)}}


class Chunks:
    """The law of a source's normalised chunks of ``horizon`` steps at a random step of an episode.

    The last action is held past the end: the last m = 0, 1, ... steps of a chunk repeat it.
    """

    def __init__(self, law: Law, horizon: int, steps: int, shift: np.ndarray, scale: np.ndarray):
        self.mean, self.scale = (law.offset - shift) / scale, scale
        held = np.arange(min(horizon, steps))
        weight = np.full(len(held), 1.0 / steps)
        weight[0] = (steps - len(held) + 1) / steps
        self.log_weight = np.log(weight)
        covariance = law.covariance(horizon)
        self.index = np.minimum(np.arange(horizon), horizon - 1 - held[:, None])
        rows, columns = self.index[:, :, None], self.index[:, None, :]
        values, self.vectors = np.linalg.eigh(covariance[rows, columns])
        self.values = np.maximum(values, 0)
        self.root = np.linalg.cholesky(covariance + 1e-12 * np.eye(horizon))

    def draw(self, rng, count: int) -> np.ndarray:
        """Draws x0 [count, H, D]."""
        whole = self.root @ rng.normal(size=(count, len(self.root), len(self.mean)))
        part = rng.choice(len(self.index), count, p=np.exp(self.log_weight))
        x0 = np.take_along_axis(whole, self.index[part][:, :, None], axis=1)
        return self.mean + x0 / self.scale

    def log_density(self, x_t: np.ndarray, sigma: float) -> np.ndarray:
        """Returns the log density [N] of noised chunks x_t [N, H, D] at level sigma."""
        alpha2 = 1 - sigma**2
        centred = np.moveaxis(x_t - np.sqrt(alpha2) * self.mean, 1, 2)  # [N, D, H]
        # For each dimension, held length and eigenvector: [D, M H].
        variance = alpha2 * self.values.ravel() / self.scale[:, None] ** 2 + sigma**2
        z = centred @ np.moveaxis(self.vectors, 0, 1).reshape(centred.shape[2], -1)
        shape = (len(x_t), len(variance), *self.values.shape)
        square = np.sum((z**2 / variance).reshape(shape), (1, 3))
        size = np.log(variance).reshape(shape[1:]).sum((0, 2))
        return scipy.special.logsumexp(self.log_weight - 0.5 * (square + size), axis=1)


def exact_curve(
    clean: Chunks, corrupt: Chunks, levels: np.ndarray, *, draws: int = _DRAWS, seed: int = 0
) -> np.ndarray:
    """Returns the best classifier's P(clean) [L], averaged over the corrupt source."""
    rng = np.random.default_rng(seed)
    x0 = np.concatenate([law.draw(rng, draws // 2) for law in (clean, corrupt)])
    eps = rng.normal(size=x0.shape)
    curve = []
    for sigma in levels:
        x_t = np.sqrt(1 - sigma**2) * x0 + sigma * eps
        logit = clean.log_density(x_t, sigma) - corrupt.log_density(x_t, sigma)
        curve.append(2 * np.mean(scipy.special.expit(logit) * scipy.special.expit(-logit)))
    return np.array(curve)


def exact_curves(
    config: ml_collections.ConfigDict, mixture: mixtures.Mixture
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Returns levels [L], and the exact curve [L] of each corrupt source's normalised chunks."""
    task, levels = config.task, evidence.grid(_LEVELS)
    affine = (getattr(mixture.normalizer, name)[chunk.ACTION] for name in ("shift", "scale"))
    sizes = config.data.horizon, task.episode_steps, *affine
    chunks = {name: Chunks(law, *sizes) for name, law in laws(task.sources).items()}
    clean = chunks.pop("clean")
    bar = tqdm.tqdm(chunks.items(), desc="exact")
    return levels, {name: exact_curve(clean, corrupt, levels) for name, corrupt in bar}


def sigma_min(config: ml_collections.ConfigDict, levels, curves) -> dict[str, float]:
    """Returns sigma_min of each source's curve [L]."""
    rule = dict(tau=config.task.tau, rule=config.task.rule)
    return {n: float(thresholds.sigma_min(levels, c, **rule)) for n, c in curves.items()}


def errors(estimates: Mapping[str, float], exact: Mapping[str, float]) -> dict[str, float]:
    """Returns mean, largest and signed mean error of sigma_min, and Spearman's correlation."""
    x, y = (np.array([values[name] for name in exact]) for values in (estimates, exact))
    gap = x - y
    rank, size = float(scipy.stats.spearmanr(x, y)[0]), np.abs(gap)
    return {"mean": size.mean(), "largest": size.max(), "signed": gap.mean(), "rank": rank}


@lock.alone
def run(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Annotates as any mixture, then writes ``known/`` into the workdir: table, curves, figures."""
    build(config)
    stored = command.by_classifier(config, workdir)
    folder, task = pathlib.Path(expanded(workdir)) / "known", config.task
    mixture = mixtures.open_mixture(config.data, mixing.CoTraining(), observed=False)
    exact_levels, truth = exact_curves(config, mixture)
    exact = sigma_min(config, exact_levels, truth)
    curves = {name: np.asarray(c) for name, c in stored["curves"].items()}
    estimates = sigma_min(config, stored["levels"], curves)
    in_file = {name: stored["sigma_min"][f"{name}, dataset"]["mean"] for name in exact}
    rows = []
    for n in sorted(exact, key=exact.__getitem__):
        cells = [f"{v:.3f}" for v in (exact[n], estimates[n], in_file[n])]
        rows.append([n, *cells, f"{estimates[n] - exact[n]:+.3f}"])
    error = errors(estimates, exact)
    caption = (
        f"{len(exact)} sources in one run; mean error of sigma_min {error['mean']:.3f}, largest "
        f"{error['largest']:.3f}, signed mean {error['signed']:+.3f}, rank correlation "
        f"{error['rank']:.3f}. Exact: where the best classifier's P(clean), averaged over "
        f"the source (from {_DRAWS} draws), passes {0.5 - task.tau:g}, at {_LEVELS} levels. "
        f"Found: at {task.levels} levels, from {task.episodes} episodes of each source and "
        f"{task.clean_episodes} clean ones; the bounds file rounds up to one of {task.distinct}."
    )
    results = dict(exact=exact, found=estimates, in_bounds_file=in_file, errors=error)
    results |= dict(exact_levels=exact_levels, exact_curves=truth)
    results |= dict(levels=stored["levels"], curves=curves, config=config.to_dict())
    print(report.write(folder, COLUMNS, rows, caption, results))
    from ambient_jax.annotate import figures  # needs matplotlib

    levels = np.asarray(stored["levels"])
    at_levels = {name: np.interp(levels, exact_levels, curve) for name, curve in truth.items()}
    page = figures.page(levels, curves, task.tau, task.rule, at_levels)
    page.savefig(folder / "curves.png", dpi=160)
    figure(estimates, exact).savefig(folder / "found.png", dpi=160)


def figure(estimates: Mapping[str, float], exact: Mapping[str, float]) -> Any:
    """Plots sigma_min against the exact one."""
    from matplotlib.figure import Figure

    from ambient_jax.annotate.figures import GREY, TICKS

    plot = Figure(figsize=(4.4, 4.2), layout="constrained")
    axes, ends = plot.subplots(), (2e-3, 0.998)
    axes.plot(ends, ends, color=GREY, lw=0.8, ls="--")
    for change, marker in zip(sorted(CHANGES), "os^", strict=True):
        names = [name for name in exact if name.startswith(change)]
        x, y = (np.clip([values[n] for n in names], *ends) for values in (exact, estimates))
        axes.plot(x, y, marker, ms=4.5, alpha=0.8, label=change)
    label = r"$\sigma_{min}$, %s (0 and 1 at the ends)"
    axes.set(xscale="logit", yscale="logit", xlabel=label % "exact", ylabel=label % "found")
    axes.set_xticks(*TICKS)
    axes.set_yticks(*TICKS)
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    return plot
