"""Compares rules for many sources with the exact sigma_min of the sources of ``known``.

All rules use linear denoisers, of episodes drawn in memory: their cost does not grow with the
combinations of sources, and their answers have closed forms.
"""

import pathlib
from typing import Any

import ml_collections
import numpy as np

from ambient_jax.annotate import evidence
from ambient_jax.data.paths import expanded
from ambient_jax.train import lock
from experiments.annotate import known, linear, many_report, rules, tau

_UPDATES = 30  # of group DRO
_EVERY = 2, 4  # levels and sources that the costs of tau take, to save time


class Chunks:
    """All chunks of episodes of one source, by half of its episodes, normalised later."""

    def __init__(self, law: known.Law, episodes: int, steps: int, horizon: int, seed: list[int]):
        rng = np.random.default_rng(seed)
        root = np.linalg.cholesky(law.covariance(steps) + 1e-9 * np.eye(steps))
        x = law.offset + root @ rng.normal(size=(episodes, steps, known.DIMS))
        x = np.concatenate([x, np.repeat(x[:, -1:], horizon - 1, 1)], 1)  # hold the last action
        self.x0 = np.lib.stride_tricks.sliding_window_view(x, horizon, 1)  # [E, steps, D, H]

    def moments(self, levels, shift, scale, half: int | None = None) -> linear.Moments:
        """Returns the moments of all chunks, or of the even (0) or odd (1) episodes."""
        x0 = self.x0 if half is None else self.x0[half::2]
        x0 = (x0 - shift[:, None]) / scale[:, None]
        return linear.moments(x0.reshape(-1, x0.shape[2] * x0.shape[3]), levels)


@lock.alone
def run(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Writes ``report/`` into the workdir: table, figure and ``results.json``."""
    many_report.check(config)
    folder = pathlib.Path(expanded(workdir)) / "report"
    task, clock = config.task, many_report.Clock()
    laws, levels = known.laws(task.sources), evidence.grid(task.levels)
    names = [name for name in laws if name != "clean"]
    size = task.episode_steps, config.data.horizon
    corrupt_episodes, clean_episodes = task.episodes, task.clean_episodes
    drawn = {
        n: Chunks(law, clean_episodes if n == "clean" else corrupt_episodes, *size, [1, k])
        for k, (n, law) in enumerate(laws.items())
    }
    held_out = Chunks(laws["clean"], clean_episodes // 4, *size, [2])
    actions = np.concatenate([c.x0[..., 0].reshape(-1, known.DIMS) for c in drawn.values()])
    affine = levels, actions.mean(0), actions.std(0)
    truth = many_report.exact_curves(task, *size, *affine[1:])
    exact = known.sigma_min(config, *truth)
    clock("data and exact answers")
    curves = _curves(drawn, held_out, names, affine, task, clock)
    thresholds = {name: 0.0 if "influence" in name else -4 * task.tau for name in curves}
    thresholds |= {name: -task.tau for name in thresholds if "pair" in name}
    found = {}
    for name, value in thresholds.items():
        if "DRO" not in name:
            low = rules.crossing(levels, np.stack([curves[name][n] for n in names]), value)
            found[name] = dict(zip(names, low.tolist(), strict=True))
    some, every = names[1 :: _EVERY[1]], slice(None, None, _EVERY[0])
    paid = tau.costs(
        *(laws, truth[0][every], {n: truth[1][n][every] for n in some}, task.clean_sizes),
        **dict(taus=task.taus, horizon=size[1], steps=size[0], corrupt_episodes=corrupt_episodes),
    )
    clock("tau")
    table, scores = many_report.rows(exact, found, curves, clock.parts)
    if task.classifier:
        table.append(many_report.classifier(task.classifier, names, scores))
    results: dict[str, Any] = dict(scores=scores, levels=levels, exact=exact, found=found)
    results |= dict(tau={n: p._asdict() for n, p in paid.items()}, curves=curves)
    caption = f"{_caption(task)}\n{_of_tau(task, paid)}"
    many_report.write(config, folder, table, caption, results, clock.parts)


def _curves(drawn, held_out, names, affine, task, clock):
    """Returns the curves [L] of each source by rule."""
    levels = affine[0]
    sources = linear.stack([drawn[n].moments(*affine) for n in names])
    clean = drawn["clean"].moments(*affine)
    size = np.array([len(drawn[n].x0) for n in (*names, "clean")], float)
    everything = linear.stack([*(drawn[n].moments(*affine) for n in names), clean])
    mixed = linear.fit(everything, size / size.sum())
    clock("moments")
    halves = (held_out.moments(*affine, half) for half in (0, 1))
    found = linear.influence(sources, *halves, mixed)
    curves = {"influence": rules.alignment(found[:-1], found[-1])}
    clock("influence")
    reference = linear.losses(everything, linear.fit(linear.stack([clean]), np.ones(1)))
    equal = np.broadcast_to(reference.mean(0), reference.shape)
    numbers = sources.cross.shape[-2]
    excess = reference - linear.losses(everything, mixed)
    curves["excess of clean over mixed, nats"] = -rules.nats(levels, excess[:-1], numbers)
    clock("excess of clean over mixed, nats")
    zero = np.zeros_like(equal)
    for name, base in {"loss": zero, "excess": reference}.items():
        weight = linear.group_dro(everything, base, task.dro_rate, _UPDATES, equal[0])
        curves[f"group DRO, {name}"] = np.log(weight[:, :-1] + 1e-12).T
        clock(f"group DRO, {name}")
    parts = [linear.stack([drawn[n].moments(*affine, half) for n in names]) for half in (0, 1)]
    excess = linear.excess_over_own((parts[0], parts[1]), clean)
    curves["excess over own, nats"] = -rules.nats(levels, excess, numbers)
    clock("excess over own, nats")
    both = drawn["clean"].moments(*affine, 0), drawn["clean"].moments(*affine, 1)
    excess = linear.excess_of_pair((parts[0], parts[1]), both)
    curves["excess of pair, nats"] = -rules.nats(levels, excess, numbers)
    clock("excess of pair, nats")
    return {rule: dict(zip(names, curve, strict=True)) for rule, curve in curves.items()}


def _caption(task):
    return (
        f"{task.sources} sources of {task.episodes} episodes, {task.clean_episodes} "
        "clean ones, "
        f"one seed. A linear denoiser for each of {task.levels} levels, from the moments of all "
        "chunks. Influence: sigma_min is where the increasing fit to a source's influence, divided "
        "by that of held-out clean chunks, passes 0. Excess, nats: a difference of losses, "
        "integrated over snr. Of clean over mixed: loss of the clean denoiser less that of the one "
        f"of all data, below 4 tau = {4 * task.tau:g}; over own: less that of the source's own; of "
        "pair: one denoiser of clean data and the source in equal parts, less their own two, below "
        f"tau. Group DRO fits anew to the weights, {_UPDATES} times, on each source's loss or on "
        "its excess over the clean denoiser; it gives no bound. Rank: Spearman's correlation of "
        "sigma_min with the exact one, for group DRO of the negative mean log weight. Seconds: "
        "processor time, without drawing episodes. The classifier's row is from "
        "experiments/annotate/results/mixture, with its own draw of the same laws."
    )


def _of_tau(task, paid):
    best = lambda nats: f"{task.taus[int(np.argmin(nats))]:g} ({np.min(nats):.4f})"  # noqa: E731
    by_size = [
        f"{size} episodes: none admitted {p.alone[0]:.4f}, one source {best(p.alone)}, all "
        f"{best(p.together)}, rule {p.rule:.4f}"
        for size, p in paid.items()
    ]
    return (
        f"Best tau of {tuple(task.taus)} by clean data, and its cost in nats on the clean law "
        f"(exact P(clean), every fourth source): {'; '.join(by_size)}."
    )
