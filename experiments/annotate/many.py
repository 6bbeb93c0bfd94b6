"""Compares rules for many sources with the exact sigma_min of the sources of ``known``.

First with linear denoisers (``many_linear``). Then, if asked, with trained networks: two small
policies that see no observation train as one program, one on all sources, one on clean data only.
All rules read their losses and gradients, one pass over a few chunks of each source.
"""

import json
import pathlib
from typing import Any

import ml_collections
import numpy as np

from ambient_jax import mixing
from ambient_jax.annotate import evidence, influence
from ambient_jax.data import mixture as mixtures
from ambient_jax.data.paths import expanded, write_text
from ambient_jax.evaluate import evaluation
from ambient_jax.policy.policy import Policy
from ambient_jax.train import lock, sweep
from experiments.annotate import known, many_linear, many_report, rules

HELD_OUT = "held_out"  # clean episodes that no policy trains on
OF_MIXED = "excess of clean over mixed, nats"


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


@lock.alone
def run(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Writes ``linear/``, and with ``config.task.policies`` also ``policies/report/``, into the
    workdir: tables and figures."""
    folder = pathlib.Path(expanded(workdir))
    many_linear.run(config, folder / "linear")
    if not config.task.policies:
        return
    known.build(config)
    configs, clock = policies(config), many_report.Clock()
    if sweep.train(configs, folder / "policies").signal:
        return
    clock("training")
    _compare(config, configs, folder / "policies", clock, _stored(folder / "policies", clock))


def _stored(folder, clock):
    """Returns the training's processor seconds, those of the first run that completed it."""
    path = folder / "seconds.json"
    if not path.exists():
        write_text(path, json.dumps(clock.parts["training"]))
    return json.loads(path.read_text())


def _compare(config, configs, folder, clock, trained):
    """Writes the report of the rules with trained policies."""
    task, levels = config.task, evidence.grid(config.task.levels)
    mixture = mixtures.open_mixture(configs["mixed"].data, mixing.CoTraining())
    policy, clean_only = (Policy.from_checkpoint(folder / n) for n in configs)
    names = [n for n, s in config.data.sources.items() if s.role == "corrupt"]
    chunks = {n: _chunks(config, mixture, policy, n, task.judged) for n in names}
    first, second = _halves(_chunks(config, mixture, policy, HELD_OUT, task.judged_clean))
    affine = (getattr(policy.normalizer, n)["action"] for n in ("shift", "scale"))
    sizes = task.episode_steps, policy.horizon
    exact_levels, truth = many_report.exact_curves(task, *sizes, *affine)
    exact = known.sigma_min(config, exact_levels, truth)
    clock("chunks and exact answers")
    how: Any = dict(levels=tuple(levels.tolist()))
    slope = influence.gradient(policy, first, **how)
    along = {n: influence.along(policy, slope, c, **how) for n, c in chunks.items()}
    of_clean = influence.along(policy, slope, second, **how)
    ratio = {n: rules.alignment(a.mean(1), of_clean.mean(1)) for n, a in along.items()}
    clock("influence")
    # Losses of all sources in one call.
    pool = _pooled([*chunks.values(), second])
    ends = np.cumsum([len(c.action) for c in (*chunks.values(), second)])[:-1]

    def losses(like, target, params=None):
        rows = evaluation.row_losses(like, pool, target=target, params=params, **how)
        return np.stack([part.mean(1) for part in np.split(rows, ends, axis=1)], axis=1)

    gap = (losses(clean_only, "x0") - losses(policy, "x0")).T[:-1]  # [K, L]
    total = -rules.nats(levels, gap, policy.horizon * known.DIMS)
    curves = {"influence": ratio, OF_MIXED: dict(zip(names, total, strict=True))}
    clock(OF_MIXED)
    reference = losses(clean_only, "eps")
    steps = range(task.dro_every, config.train.steps + 1, task.dro_every)
    stored = [Policy.from_checkpoint(folder / "mixed" / "checkpoints" / str(s)) for s in steps]
    over_time = np.stack([losses(policy, "eps", s.params) for s in stored])  # [T, L, K + 1]
    scale = reference.mean(1, keepdims=True)
    for name, base in {"loss": 0.0, "excess": reference}.items():
        weight = rules.group_dro((over_time - base) / scale, task.dro_rate)
        by_source = zip(names, np.log(weight[:, :-1]).T, strict=True)
        curves[f"group DRO, {name}"] = dict(by_source)
        clock(f"group DRO, {name}")
    found = {}
    for name, value in {"influence": 0.0, OF_MIXED: -4 * task.tau}.items():
        low = rules.crossing(levels, np.stack([curves[name][n] for n in names]), value)
        found[name] = dict(zip(names, low.tolist(), strict=True))
    rng, interval = np.random.default_rng(config.seed), {}
    clean_again = rules.resampled(of_clean, _episode(second), task.resamples, rng)
    for n in names:
        again = rules.resampled(along[n], _episode(chunks[n]), task.resamples, rng)
        low = rules.crossing(levels, rules.alignment(again, clean_again), 0.0)
        interval[n] = np.quantile(low, [0.025, 0.975])
    table, scores = many_report.rows(exact, found, curves, clock.parts, trained)
    held = np.mean([low <= exact[n] <= high for n, (low, high) in interval.items()])
    width = np.mean([high - low for low, high in interval.values()])
    clock.parts["training"] = trained
    caption = (
        f"{len(names)} sources of {task.episodes} episodes, one seed. Two small networks, "
        f"{config.train.steps} steps: on all sources, and on clean data only. {task.judged} chunks "
        f"of each source at {task.levels} levels. The rules are those of the linear table; group "
        f"DRO has an update every {task.dro_every} steps. The 95% interval of influence's "
        f"sigma_min over episodes is {width:.2f} wide on average and holds the exact one of "
        f"{100 * held:.0f}% of the sources. Seconds include the training of both."
    )
    results = dict(scores=scores, levels=levels, exact=exact, found=found, curves=curves)
    results |= dict(interval=interval, clean_influence=of_clean.mean(1))
    many_report.write(config, folder / "report", table, caption, results, clock.parts)


def _chunks(config, mixture, policy, name, samples):
    how = dict(padding=config.data.padding, samples=samples, seed=config.seed)
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
