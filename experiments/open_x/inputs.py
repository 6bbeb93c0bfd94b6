"""The task of the inputs variant: are the image and the instruction really used?

The held-out loss of the policy, which sees both, is set beside the least that image and state, or
instruction and state, allow (``floors``): on the same chunks of new scenes, with the same noise.
"""

from __future__ import annotations

import pathlib
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
import tqdm

from ambient_jax import schedules
from ambient_jax.cli import report
from ambient_jax.data import mixture as mixtures
from ambient_jax.data import rlds
from ambient_jax.data.paths import below, expanded
from ambient_jax.evaluate import evaluation
from ambient_jax.policy.policy import Policy
from ambient_jax.train import checkpoint, metrics, state
from experiments.estimates import wilson
from experiments.open_x import floors, inputs_figures, scene

_CELLS = 4 * state.BINS  # noise levels, four of each bin of the training's metrics
LEVELS = tuple((np.arange(_CELLS) + 0.5) / _CELLS)
COLUMNS = ("noise level", "policy", "image alone", "instruction alone", "below both by")
COLUMNS += ("95% interval", "images swapped", "instructions swapped")
_Z95 = 1.96


class HeldOut(NamedTuple):
    """E held-out episodes of L steps, a chunk at each, and what the policy is not told.

    Attributes:
      chunks: [E L, ...], by episode and step.
      effector: e [E L, 2], m.
      objects: [E L, n, 2], m.
      colours, shapes: [E L, n], indices of ``scene.COLOURS`` and ``scene.SHAPES``.
      named: [E L], index of the object that the instruction names.
    """

    chunks: evaluation.Chunks
    effector: np.ndarray
    objects: np.ndarray
    colours: np.ndarray
    shapes: np.ndarray
    named: np.ndarray


def build(config: ml_collections.ConfigDict) -> None:
    """Writes the two data sets that are not there yet."""
    if jax.process_index():
        return
    root, task = pathlib.Path(expanded(config.data.root)), config.task
    wanted = {
        "steady": ({"train": task.clean, "val": task.val}, 0.0),
        "shaky": ({"train": task.corrupt}, task.jitter),
    }
    for number, (name, (counts, jitter)) in enumerate(wanted.items()):
        folder = root / config.data.sources[name].path
        if not folder.exists():
            seed = 2 * task.data_seed + number
            scene.write_dataset(root, folder.parent.name, counts, jitter=jitter, seed=seed)


def evaluate(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Leaves the floors, the loss and its ablations in ``<workdir>/report``."""
    if jax.process_index():
        return
    directory, step = checkpoint.find(workdir)
    policy = Policy.from_checkpoint(workdir, source="steady")
    held = held_out(config, policy)
    key = jax.random.key(config.task.eval_seed)
    seed = config.task.eval_seed

    def loss(chunks, params=None):
        return evaluation.row_losses(policy, chunks, levels=LEVELS, seed=seed, params=params)

    found = {"policy": loss(held.chunks), **least(policy, held, seed)}
    swaps = {n: swapped(held.chunks, n) for n in ("image_primary", "instruction")}
    found |= {f"{name} swapped": loss(chunks) for name, chunks in swaps.items()}
    workdir = pathlib.Path(expanded(workdir))
    by_step, bins_of = {}, bin_weights(policy.schedule)
    minutes_at = _minutes(metrics.read(workdir / "timing.jsonl"))
    for at in tqdm.tqdm(checkpoint.steps_in(directory), desc="evaluate", unit="checkpoint"):
        params = checkpoint.load_policy_assets(directory / str(at))["params"]
        by_step[at] = *estimate(bins_of["all"] @ loss(held.chunks, params)), minutes_at(at)
    heads = heading(policy, held, swaps, key)

    rows, bins = [], {}
    for name, weight in bins_of.items():
        losses = {n: weight @ v for n, v in found.items()}
        means = {n: estimate(v) for n, v in losses.items()}
        lower = min((losses["image"], losses["instruction"]), key=np.mean)
        gain = estimate(lower - losses["policy"])
        bins[name] = {**means, "below both by": gain}
        cells = [f"{means[n][0]:.4f}" for n in ("policy", "image", "instruction")]
        cells += [f"{gain[0]:.4f}", f"{gain[0] - gain[1]:.4f} to {gain[0] + gain[1]:.4f}"]
        cells += [f"{means[f'{n} swapped'][0]:.4f}" for n in swaps]
        rows.append([name, *cells])
    history = metrics.read(workdir / "metrics.jsonl")
    first = _first_below(by_step, bins["all"])
    caption = (
        f"Step {step}, {minutes_at(step):.1f} minutes of training{first}. Held-out loss of "
        f"{config.objective.prediction} as the training reports it, {len(held.named)} chunks of "
        f"{len(held.named) // scene.STEPS} new scenes; image alone and instruction alone: the "
        "least loss that any predictor of these and the state can reach, on the same chunks and "
        "noise. With both the least is 0. At low noise x_t itself shows which of the places in the "
        "image is meant, so that image alone allows 0 and no predictor is below it. Intervals of "
        "paired differences, by scenes. Swapped: the same policy with images or instructions of "
        "another scene.\n\n"
        f"Sampled chunks at the first step of an episode, where they lead: {_told(heads)}"
    )
    results = {
        "step": step,
        "minutes": minutes_at(step),
        "levels": LEVELS,
        "bins": {n: {k: dict(zip(("mean", "plus_minus"), v, strict=True)) for k, v in b.items()}
                 for n, b in bins.items()},
        "loss_by_step": {k: dict(zip(("mean", "plus_minus", "minutes"), v, strict=True))
                         for k, v in by_step.items()},
        "heading": heads,
        "config": config.to_dict(),
    }  # fmt: skip
    folder = workdir / "report"
    print(report.write(folder, COLUMNS, rows, caption, results))
    inputs_figures.losses(folder / "loss.png", bins, by_step, history)
    inputs_figures.chunks(folder / "chunks.png", policy, held, key)


def held_out(config: ml_collections.ConfigDict, policy: Policy) -> HeldOut:
    """All chunks of the clean source's split val, and the truth about their scenes."""
    source = config.data.sources.steady
    folder = below(config.data.root, source.path)
    dataset = mixtures.open_source(config.data, "steady", split="val")
    everything = dict(episodes=len(dataset), samples=len(dataset) * scene.STEPS)
    chunks = evaluation.recorded(dataset, policy, padding=config.data.padding, **everything)
    order = np.lexsort(chunks.origin.T[::-1])
    chunks = jax.tree.map(lambda a: a[order], chunks)
    truth = rlds.open_dataset(folder, "val", keys=("episode_metadata",))
    truth = [truth[i]["episode_metadata"] for i in range(len(truth))]
    each = {
        name: np.stack([t[name] for t in truth])[chunks.origin[:, 0]]
        for name in ("objects", "colours", "shapes", "named")
    }
    return HeldOut(chunks, chunks.observation["state"][:, -1], **each)


def least(policy: Policy, held: HeldOut, seed: int) -> dict[str, np.ndarray]:
    """The least losses [L, N] of v "image" and state, "instruction" and state allow, for the noise
    of ``row_losses``."""
    normalizer, horizon = policy.normalizer, policy.horizon
    motion = floors.Motion(
        half_side=scene.HALF_SIDE,
        rate=scene.RATE,
        steps=scene.STEPS,
        horizon=horizon,
        shift=normalizer.shift["action"][:2],
        scale=normalizer.scale["action"][:2],
    )
    x0 = np.asarray(normalizer.normalize("action", held.chunks.action), float)
    eps = evaluation.noise(x0.shape, seed)[..., :2]
    x0 = x0[..., :2]
    weight = held.chunks.mask / (2 * held.chunks.mask.sum(1, keepdims=True))
    found = {"image": [], "instruction": []}
    for sigma in LEVELS:
        x_t = np.sqrt(1 - sigma**2) * x0 + sigma * eps
        best = {
            "image": floors.from_image(motion, held.effector, held.objects, x_t, sigma),
            "instruction": floors.from_instruction(motion, held.effector, x_t, sigma),
        }
        for name, h in best.items():
            square = ((h - x0) ** 2).sum(-1) / sigma**2  # of v, see floors
            found[name].append((weight * square).sum(1))
    return {name: np.stack(values) for name, values in found.items()}


def swapped(chunks: evaluation.Chunks, name: str) -> evaluation.Chunks:
    """The same chunks with one observation taken from the next scene, at the same step."""
    observation = dict(chunks.observation)
    observation[name] = np.roll(observation[name], scene.STEPS, axis=0)
    return chunks._replace(observation=observation)


def heading(
    policy: Policy, held: HeldOut, swaps: dict[str, evaluation.Chunks], key: jax.Array
) -> dict[str, Any]:
    """Which object sampled chunks lead to: the one nearest to where the arm would come to rest.

    Returns:
      Shares (with Wilson's 95% interval) that lead to the named object; with swapped images; with
      swapped instructions; and of the latter those that lead to what the swapped one names. And
      the median distance of where the chunk leads from the named object, m.
    """
    first = np.arange(0, len(held.named), scene.STEPS)
    share = 1 - (1 - scene.RATE) ** policy.horizon  # of the way that a chunk goes

    def goals(chunks):
        observation = {n: v[first] for n, v in chunks.observation.items()}
        moved = np.asarray(policy(observation, key))[..., :2].sum(1)
        return held.effector[first] + moved / share

    def nearest(places):
        return np.hypot(*(held.objects[first] - places[:, None]).T).T.argmin(1)

    named = held.named[first]
    own = goals(held.chunks)
    text = nearest(goals(swaps["instruction"]))
    colour = np.roll(held.colours[first, named], 1)
    asked = (held.colours[first] == colour[:, None]).argmax(1)
    there = held.objects[first, named]
    hits = {
        "named": nearest(own) == named,
        "named, images swapped": nearest(goals(swaps["image_primary"])) == named,
        "named, instructions swapped": text == named,
        "what the swapped instruction names": text == asked,
    }
    found: dict[str, Any] = {n: wilson(int(h.sum()), len(h)) for n, h in hits.items()}
    return {**found, "distance": float(np.median(np.hypot(*(own - there).T)))}


def bin_weights(schedule: schedules.Schedule) -> dict[str, np.ndarray]:
    """Of ``LEVELS`` in the mean over all noise levels, and over each bin of the training's metrics,
    when sigma has the training's law: the probability of the cell around each level."""
    edges = np.asarray(schedule.cdf(np.linspace(0, 1, _CELLS + 1)), float)
    mass = np.diff(edges)
    found = {"all": mass / mass.sum()}
    for i, cells in enumerate(np.split(np.arange(_CELLS), state.BINS)):
        part = np.isin(np.arange(_CELLS), cells) * mass
        found[f"{i / state.BINS:.1f} to {(i + 1) / state.BINS:.1f}"] = part / part.sum()
    return found


def estimate(rows: np.ndarray) -> tuple[float, float]:
    """Mean over chunks [E L], and half of its 95% interval, episodes being independent."""
    episodes = rows.reshape(-1, scene.STEPS).mean(1)
    return float(rows.mean()), float(_Z95 * episodes.std(ddof=1) / np.sqrt(len(episodes)))


def _minutes(timing):
    """Minutes of training up to a step, by ``timing.jsonl``: a function of the step."""
    steps = np.array([0, *(row["step"] for row in timing)])
    rates = [row["steps_per_second"] for row in timing]
    minutes = np.concatenate([[0], np.cumsum(np.diff(steps) / rates) / 60])
    return lambda step: float(np.interp(step, steps, minutes))


def _first_below(by_step, floor):
    lowest = min(floor[n][0] - floor[n][1] for n in ("image", "instruction"))
    below = [(step, m) for step, (mean, error, m) in by_step.items() if mean + error < lowest]
    if not below:
        return ", its loss nowhere below both floors"
    return f", below both floors at step {below[0][0]} ({below[0][1]:.1f} minutes) already"


def _told(heads):
    shares = [
        f"{name} {100 * e.value:.1f}% ({100 * e.low:.1f} to {100 * e.high:.1f})"
        for name, e in heads.items()
        if name != "distance"
    ]
    return (
        f"to the object that is {'; '.join(shares)}. By chance {100 / scene.OBJECTS:.1f}%. Median "
        f"distance from the named one {1000 * heads['distance']:.1f} mm."
    )
