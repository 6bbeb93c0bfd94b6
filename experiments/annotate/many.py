"""Compares rules for many sources with the exact sigma_min of the sources of ``known``.

Two small policies that see no observation train as one program: one on all sources, one on clean
data only. All rules read their losses and gradients, one pass over a few chunks of each source.
"""

import pathlib
import resource
from typing import Any

import ml_collections
import numpy as np

from ambient_jax import mixing
from ambient_jax.annotate import evidence, influence
from ambient_jax.cli import report
from ambient_jax.data import mixture as mixtures
from ambient_jax.data.paths import expanded
from ambient_jax.evaluate import evaluation
from ambient_jax.policy.policy import Policy
from ambient_jax.train import lock, sweep
from experiments.annotate import known, linear, many_report, rules, tau

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
    clock("training")  # little, where an earlier run has trained them
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
    threshold |= {n: -task.tau for n in threshold if "pair" in n}
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
    rows, results = many_report.rows(exact, found, curves, clock.parts)
    covered = np.mean([interval[n][0] <= exact[n] <= interval[n][1] for n in names])
    width = np.mean([np.ptp(interval[n]) for n in names])
    row = next(row for row in rows if row[0] == "influence")
    row[6] = f"{width:.2f} wide, holds the exact one of {100 * covered:.0f}%"
    if task.classifier:
        rows.append(many_report.classifier(task.classifier, names, results))
    caption = many_report.caption(task, config, paid, clock.parts)
    results |= dict(levels=levels, curves=curves, exact=exact, found=found, interval=interval)
    results |= dict(clean_curve=of_clean.mean(1), excess_of_clean=gap[-1], seconds=clock.parts)
    results["tau"] = {size: costs._asdict() for size, costs in paid.items()}
    results["config"] = config.to_dict()
    print(report.write(folder / "many", many_report.COLUMNS, rows, caption, results))
    many_report.figure(levels, curves, found, exact).savefig(folder / "many" / "rules.png", dpi=130)


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
    if task.more_episodes:
        pair = _pair_of_more(policy, names, levels, task)
        curves["linear, excess of pair, nats, more episodes"] = -pair
        clock("linear, excess of pair, nats, more episodes")
    return {rule: dict(zip(names, curve, strict=True)) for rule, curve in curves.items()}


def _pair_of_more(policy, names, levels, task):
    """Returns the nats [K, L] of ``excess_of_pair`` of as many episodes as the classifier has."""
    affine = (getattr(policy.normalizer, name)["action"] for name in ("shift", "scale"))
    shift, scale = affine
    laws, rng = known.laws(task.sources), np.random.default_rng(1)

    def halves(name):
        law, count = laws[name], task.more_episodes * (5 if name == "clean" else 1)
        root = np.linalg.cholesky(law.covariance(task.episode_steps))
        x = law.offset + root @ rng.normal(size=(count, task.episode_steps, known.DIMS))
        x = np.concatenate([x, np.repeat(x[:, -1:], policy.horizon - 1, 1)], 1)
        x = (x - shift) / scale
        x0 = np.lib.stride_tricks.sliding_window_view(x, policy.horizon, 1)
        parts = (x0[k::2].reshape(-1, policy.horizon * known.DIMS) for k in (0, 1))
        return [linear.moments(part, levels) for part in parts]

    clean = tuple(halves("clean"))
    first, second = zip(*(halves(n) for n in names), strict=True)
    excess = linear.excess_of_pair((linear.stack(first), linear.stack(second)), clean)
    return rules.nats(levels, excess, policy.horizon * known.DIMS)


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
