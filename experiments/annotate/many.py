"""Compares rules for many sources with the exact sigma_min of the sources of ``known``.

Two small policies that see no observation train as one program: one on all sources, one on clean
data only. All rules read their losses and gradients, one pass over a few chunks of each source.
"""

import pathlib
import resource
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np
import scipy.stats

from ambient_jax import mixing
from ambient_jax.annotate import evidence, influence
from ambient_jax.cli import report
from ambient_jax.data import mixture as mixtures
from ambient_jax.data.paths import expanded
from ambient_jax.evaluate import evaluation
from ambient_jax.policy.policy import Policy
from ambient_jax.train import lock, sweep
from experiments.annotate import known, linear, rules, tau

COLUMNS = ("rule", "sources", "mean error", "largest", "signed", "rank", "interval", "seconds")
HELD_OUT = "held_out"  # clean episodes that no policy trains on
_ALL = 10**6


def policies(config: ml_collections.ConfigDict) -> dict[str, ml_collections.ConfigDict]:
    """Returns the configs of the policies "mixed" and "clean_only", one program.

    All sources have the role "clean", so that their weights alone say who trains.
    """
    found = {}
    for name in ("mixed", "clean_only"):
        one = ml_collections.ConfigDict(config.to_dict())
        one.name = name
        one.law = ml_collections.ConfigDict({"name": "ambient"})
        for source, section in one.data.sources.items():
            corrupt, section.role = section.role == "corrupt", "clean"
            if source == HELD_OUT or (corrupt and name == "clean_only"):
                section.weight = 0.0
        found[name] = one
    return found


def seconds() -> float:
    """Returns the processor seconds that this process has used, of all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class _Clock:
    """Sums processor seconds by part: ``clock(name)`` books the time since the last call."""

    def __init__(self):
        self.parts: dict[str, float] = {}
        self.last = seconds()

    def __call__(self, name: str) -> None:
        now = seconds()
        self.parts[name] = self.parts.get(name, 0.0) + now - self.last
        self.last = now


@lock.alone
def run(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Trains two policies, applies the rules, and writes ``many/`` into the workdir."""
    task, folder, clock = config.task, pathlib.Path(expanded(workdir)), _Clock()
    known.build(config)
    clock("data")
    configs = policies(config)
    if sweep.train(configs, folder / "policies").signal:
        return
    clock("training")
    mixture = mixtures.open_mixture(configs["mixed"].data, mixing.CoTraining())
    policy, clean_only = (Policy.from_checkpoint(folder / "policies" / n) for n in configs)
    levels = evidence.grid(task.levels)
    names = [n for n, s in config.data.sources.items() if s.role == "corrupt"]
    whole = {n: _chunks(config, mixture, policy, n) for n in (*names, "clean", HELD_OUT)}
    chunks = {n: _pooled([whole[n]], slice(task.judged)) for n in names}
    first, second = _halves(_pooled([whole[HELD_OUT]], slice(task.judged_clean)))
    clock("chunks")
    curves = _linear(policy, whole, names, levels, task, clock)
    how: Any = dict(levels=tuple(levels.tolist()))
    slope = influence.gradient(policy, first, **how)
    along = {n: influence.along(policy, slope, c, **how) for n, c in chunks.items()}
    of_clean = influence.along(policy, slope, second, **how)
    clock("influence")
    # Losses of all sources in one call; the reference twice, in eps for bands and in x0 for nats.
    pool = _pooled([*chunks.values(), second])
    ends = np.cumsum([len(c.action) for c in (*chunks.values(), second)])[:-1]

    def losses(like, target, params=None):
        rows = evaluation.row_losses(like, pool, target=target, params=params, **how)
        return np.stack([part.mean(1) for part in np.split(rows, ends, axis=1)], axis=1)

    gap = (losses(clean_only, "x0") - losses(policy, "x0")).T  # [K + 1, L]
    clock("excess, nats")
    reference = losses(clean_only, "eps")
    steps = range(task.dro_every, config.train.steps + 1, task.dro_every)
    stored = [Policy.from_checkpoint(folder / "policies/mixed/checkpoints" / str(s)) for s in steps]
    over_time = np.stack([losses(policy, "eps", s.params) for s in stored])  # [T, L, K + 1]
    clock("group DRO")
    exact_levels, truth = _exact(config, mixture)
    exact = known.sigma_min(config, exact_levels, truth)
    clock("exact answers")

    ratio = {n: rules.alignment(a.mean(1), of_clean.mean(1)) for n, a in along.items()}
    total = rules.nats(levels, gap[:-1], policy.horizon * known.DIMS)
    curves["influence"] = ratio
    curves["excess, nats"] = dict(zip(names, -total, strict=True))
    # Losses of eps are of order 1 at every level; excess is relative to the reference's.
    rate, scale = task.dro_rate, reference.mean(1, keepdims=True)
    weights = {
        "group DRO, loss": rules.group_dro(over_time / scale, rate),
        "group DRO, excess": rules.group_dro((over_time - reference) / scale, rate),
    }
    for name, weight in weights.items():
        curves[name] = dict(zip(names, np.log(weight[:, :-1]).T, strict=True))
    threshold = {n: 0.0 if "influence" in n else -4 * task.tau for n in curves if "DRO" not in n}
    threshold["linear, excess of pair, nats"] = -task.tau
    rng, found, interval = np.random.default_rng(config.seed), {}, {}
    for name, value in threshold.items():
        low = rules.crossing(levels, np.stack([curves[name][n] for n in names]), value)
        found[name] = dict(zip(names, low.tolist(), strict=True))
    clean_again = rules.resampled(of_clean, _episode(second), task.resamples, rng)
    for n in names:
        again = rules.resampled(along[n], _episode(chunks[n]), task.resamples, rng)
        again = rules.alignment(again, clean_again)
        low = rules.crossing(levels, again, threshold["influence"])
        interval[n] = np.quantile(low, [0.025, 0.975])
    clock("intervals")
    judged = slice(None, None, 2)  # every other level, and every fourth source, save time
    paid = tau.costs(
        *(known.laws(task.sources), exact_levels[judged]),
        *({n: truth[n][judged] for n in names[1::4]}, task.clean_sizes),
        **dict(taus=task.taus, horizon=policy.horizon, steps=task.episode_steps),
        corrupt_episodes=task.episodes,
    )
    clock("tau")
    rows, results = _rows(exact, found, curves, clock.parts)
    covered = np.mean([interval[n][0] <= exact[n] <= interval[n][1] for n in names])
    width = np.mean([np.ptp(interval[n]) for n in names])
    row = next(row for row in rows if row[0] == "influence")
    row[6] = f"{width:.2f} wide, holds the exact one of {100 * covered:.0f}%"
    if task.classifier:
        rows.append(_classifier(task.classifier, names, results))
    caption = _caption(task, config, paid, clock.parts)
    results |= dict(levels=levels, curves=curves, exact=exact, found=found, interval=interval)
    results |= dict(clean_curve=of_clean.mean(1), excess_of_clean=gap[-1], seconds=clock.parts)
    results["tau"] = {size: costs._asdict() for size, costs in paid.items()}
    results["config"] = config.to_dict()
    print(report.write(folder / "many", COLUMNS, rows, caption, results))
    figure(levels, curves, found, exact).savefig(folder / "many" / "rules.png", dpi=130)


def _linear(policy, whole, names, levels, task, clock):
    """Returns the curves [L] of each source by rule, of linear denoisers."""

    def of(name, rows=slice(None)):
        x0 = np.asarray(policy.normalised(whole[name].action))[rows]
        return linear.moments(x0.reshape(len(x0), -1), levels)

    def odd(name):
        return _episode(whole[name]) % 2 == 1

    sources, clean = linear.stack([of(n) for n in names]), of("clean")
    everything = linear.stack([*(of(n) for n in names), clean])
    size = np.array([len(whole[n].action) for n in (*names, "clean")], float)
    mixed = linear.fit(everything, size / size.sum())
    first, second = (of(HELD_OUT, rows) for rows in (~odd(HELD_OUT), odd(HELD_OUT)))
    found = linear.influence(sources, first, second, mixed)
    curves = {"linear, influence": rules.alignment(found[:-1], found[-1])}
    clock("linear, influence")
    reference = linear.losses(everything, linear.fit(linear.stack([clean]), np.ones(1)))
    for name, base in {"loss": 0 * reference + reference.mean(0), "excess": reference}.items():
        weight = linear.group_dro(everything, base, task.dro_rate, 30)
        curves[f"linear, group DRO, {name}"] = np.log(weight[:, :-1] + 1e-12).T
    clock("linear, group DRO")
    halves = [linear.stack([of(n, odd(n) == half) for n in names]) for half in (True, False)]
    excess = linear.excess_over_own(tuple(halves), clean)
    curves["linear, excess over own, nats"] = -rules.nats(levels, excess, sources.cross.shape[-2])
    clock("linear, excess over own, nats")
    of_half = tuple(of("clean", odd("clean") == half) for half in (True, False))
    excess = linear.excess_of_pair(tuple(halves), of_half)
    curves["linear, excess of pair, nats"] = -rules.nats(levels, excess, sources.cross.shape[-2])
    clock("linear, excess of pair, nats")
    return {rule: dict(zip(names, curve, strict=True)) for rule, curve in curves.items()}


def _chunks(config, mixture, policy, name):
    how = dict(padding=config.data.padding, samples=_ALL, episodes=_ALL, seed=config.seed)
    return evaluation.recorded(mixture.datasets[name], policy, **how)


def _episode(chunks):
    return chunks.origin[:, 0]


def _halves(chunks):
    """Returns the chunks of even and of odd episodes."""
    odd = _episode(chunks) % 2 == 1
    return tuple(_pooled([chunks], rows) for rows in (~odd, odd))


def _pooled(parts, rows=slice(None)):
    join = lambda values: np.concatenate(values)[rows]  # noqa: E731
    observation = {n: join([p.observation[n] for p in parts]) for n in parts[0].observation}
    fields = (join([getattr(p, f) for p in parts]) for f in ("action", "mask", "origin"))
    return evaluation.Chunks(observation, *fields)


def _exact(config, mixture):
    """Returns levels and exact curves, those of the earlier run if there is one."""
    if not config.task.classifier:
        return known.exact_curves(config, mixture)
    stored = report.read(config.task.classifier)
    curves = {name: np.array(curve) for name, curve in stored["exact_curves"].items()}
    return np.array(stored["exact_levels"]), curves


def _rows(exact, found, curves, parts):
    """Returns a row for each rule, and its numbers."""
    rows, scores = [], {}
    for name, by_source in curves.items():
        area = {n: -float(np.mean(c)) for n, c in by_source.items()}
        pairs = [exact[n] for n in exact], [area[n] for n in exact]
        score: dict[str, Any] = {"rank_of_mean": float(scipy.stats.spearmanr(*pairs)[0])}
        part = name if name in parts else name.rpartition(", ")[0]
        used = parts[part] + (0 if "linear" in name else parts["training"])
        if name in found:
            score |= known.errors(found[name], exact)
            cells = [f"{score[k]:+.3f}" for k in ("mean", "largest", "signed", "rank")]
            cells = [cells[0][1:], cells[1][1:], *cells[2:]]
        else:
            cells = ["", "", "", f"{score['rank_of_mean']:+.3f}"]
        scores[name] = score | {"seconds": used}
        rows.append([name, len(exact), *cells, "", f"{used:.0f}"])
    return rows, {"scores": scores}


def _classifier(path, names, results):
    """Returns the row of an earlier run of ``known``, on the same laws."""
    stored = report.read(path)
    pair = {f: {n: stored[f][n] for n in names if n in stored[f]} for f in ("found", "exact")}
    error = known.errors(pair["found"], pair["exact"])
    results["scores"]["classifier"] = error
    cells = [f"{error['mean']:.3f}", f"{error['largest']:.3f}"]
    cells += [f"{error['signed']:+.3f}", f"{error['rank']:+.3f}"]
    return ["classifier", len(pair["exact"]), *cells, "", "see caption"]


def _caption(task, config, paid, parts):
    best = lambda nats: f"{task.taus[int(np.argmin(nats))]:g} ({np.min(nats):.4f})"  # noqa: E731
    by_size = [
        f"{size} episodes: {best(p.alone)} for one source, {best(p.together)} for all, none "
        f"admitted ({p.alone[0]:.4f}), rule {p.rule:.4f}"
        for size, p in paid.items()
    ]
    return (
        f"{task.sources} sources, one seed. Influence: sigma_min is where the increasing fit to a "
        "source's influence, divided by that of held-out clean chunks, passes 0. Excess, nats: "
        "where the loss of the clean-only policy less that of the policy of all data, integrated "
        f"over snr, falls below 4 tau = {4 * task.tau:g}. Group DRO gives no bound; its rank is "
        "that of the mean log weight over the levels. Linear: the same with the best linear "
        "denoiser of each level, from the moments of all chunks; group DRO then fits it anew to "
        "the weights, 30 times; over own: less the loss of the source's own linear denoiser; of "
        "pair: clean data and the source with one denoiser, less with two, below tau. Rank: "
        "Spearman's correlation with the exact sigma_min. Interval: 95% over episodes. Seconds: "
        "processor time, with the training of both policies where they are used "
        f"({config.train.steps} steps, {task.judged} chunks of each source, {task.levels} levels), "
        "without reading the data. The classifier's row and the exact answers are of "
        "experiments/annotate/results/mixture: the same laws, more episodes.\n"
        "Best tau by clean data, and its cost in nats (linear denoisers, exact P(clean), every "
        f"fourth source, tau of {tuple(task.taus)}): {'; '.join(by_size)}.\n"
        f"Processor seconds: {', '.join(f'{n} {s:.0f}' for n, s in parts.items())}."
    )


def figure(
    levels: np.ndarray,
    curves: Mapping[str, Mapping[str, np.ndarray]],
    found: Mapping[str, Mapping[str, float]],
    exact: Mapping[str, float],
) -> Any:
    """Plots each rule's curves, coloured by the exact sigma_min, and found against exact."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    plot = Figure(figsize=(3.4 * len(curves), 6), layout="constrained")
    axes = plot.subplots(2, len(curves), squeeze=False)
    for (upper, lower), (name, by_source) in zip(axes.T, curves.items(), strict=True):
        for n, curve in by_source.items():
            upper.plot(levels, curve, color=colormaps["viridis"](exact[n]), lw=0.8)
        upper.set(xscale="logit", title=name, xlabel=r"$\sigma$")
        upper.set_yscale("symlog", linthresh=1.0)
        upper.minorticks_off()
        if name in found:
            y, label = found[name], r"$\sigma_{min}$ found"
            lower.plot([0, 1], [0, 1], color="0.6", lw=0.8, ls="--")
        else:
            y, label = {n: -float(np.mean(c)) for n, c in by_source.items()}, "- mean log weight"
        for change, marker in zip(sorted(known.CHANGES), "os^", strict=True):
            some = [n for n in exact if n.startswith(change)]
            x = [exact[n] for n in some]
            lower.plot(x, [y[n] for n in some], marker, ms=4, alpha=0.8, label=change)
        lower.set(xlabel=r"$\sigma_{min}$ exact", ylabel=label)
    axes[1, 0].legend(fontsize=7)
    return plot
