"""The task of the inputs variant: are the image and the instruction really used?

The held-out loss of the policy, which sees both, is set beside the least that image and state, or
instruction and state, allow (``floors``): on the same chunks of new scenes, with the same noise.
"""

import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np
import tqdm

from ambient_jax import schedules
from ambient_jax.cli import report
from ambient_jax.data.paths import expanded
from ambient_jax.estimates import wilson
from ambient_jax.evaluate import evaluation
from ambient_jax.policy.policy import Policy
from ambient_jax.train import checkpoint, metrics, state
from experiments.open_x import floors, held_out, inputs_figures, scene

_CELLS = 4 * state.BINS  # noise levels, four of each bin of the training's metrics
LEVELS = tuple((np.arange(_CELLS) + 0.5) / _CELLS)
COLUMNS = ("noise level", "policy", "image alone", "instruction alone", "below both by")
COLUMNS += ("95% interval", "images swapped", "instructions swapped")
_Z95 = 1.96


def build(config: ml_collections.ConfigDict) -> None:
    """Writes the two data sets that are absent, or of other counts, jitter or seed."""
    if jax.process_index():
        return
    root, task = pathlib.Path(expanded(config.data.root)), config.task
    data_sets = {
        "steady": ({"train": task.clean, "val": task.val}, 0.0),
        "shaky": ({"train": task.corrupt}, task.jitter),
    }
    for number, (name, (counts, jitter)) in enumerate(data_sets.items()):
        folder = root / config.data.sources[name].path
        seed = 2 * task.data_seed + number
        scene.write_dataset(root, folder.parent.name, counts, jitter=jitter, seed=seed)


def evaluate(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Writes floors, loss and ablations to ``<workdir>/report``."""
    if jax.process_index():
        return
    directory, step = checkpoint.find(workdir)
    policy = Policy.from_checkpoint(workdir, source="steady")
    held = held_out.read(config, policy)
    key = jax.random.key(config.task.eval_seed)
    seed = config.task.eval_seed

    def loss(chunks, params=None):
        return evaluation.row_losses(policy, chunks, levels=LEVELS, seed=seed, params=params)

    losses = {"policy": loss(held.chunks), **least(policy, held, seed)}
    swaps = {n: held_out.swapped(held.chunks, n) for n in ("image_primary", "instruction")}
    losses |= {f"{name} swapped": loss(chunks) for name, chunks in swaps.items()}
    workdir = pathlib.Path(expanded(workdir))
    by_step, weights = {}, bin_weights(policy.schedule)
    minutes_at = _minutes(metrics.read(workdir / "timing.jsonl"))
    for at in tqdm.tqdm(checkpoint.steps_in(directory), desc="evaluate", unit="checkpoint"):
        params = checkpoint.load_policy_assets(directory / str(at))["params"]
        mean = estimate(weights["all"] @ loss(held.chunks, params))
        by_step[at] = mean | {"minutes": minutes_at(at)}
    heads = heading(policy, held, swaps, key)

    rows, bins = [], {}
    for name, weight in weights.items():
        in_bin = {n: weight @ rows_of_levels for n, rows_of_levels in losses.items()}
        lower = min((in_bin["image"], in_bin["instruction"]), key=np.mean)
        bins[name] = {n: estimate(v) for n, v in in_bin.items()}
        gain = bins[name]["below both by"] = estimate(lower - in_bin["policy"])
        mean, half = gain["mean"], gain["plus_minus"]
        cells = [f"{bins[name][n]['mean']:.4f}" for n in ("policy", "image", "instruction")]
        cells += [f"{mean:.4f}", f"{mean - half:.4f} to {mean + half:.4f}"]
        cells += [f"{bins[name][f'{n} swapped']['mean']:.4f}" for n in swaps]
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
        f"Sampled chunks at the first step of an episode, where they lead: {_text(heads)}"
    )
    results = {
        **{"step": step, "minutes": minutes_at(step), "levels": LEVELS, "bins": bins},
        **{"loss_by_step": by_step, "heading": heads, "config": config.to_dict()},
    }
    folder = workdir / "report"
    print(report.write(folder, COLUMNS, rows, caption, results))
    inputs_figures.losses(folder / "loss.png", bins, by_step, history)
    inputs_figures.chunks(folder / "chunks.png", policy, held, key)


def least(policy: Policy, held: held_out.HeldOut, seed: int) -> dict[str, np.ndarray]:
    """Returns the least loss of v [L, N] that "image" and state, and that "instruction" and state
    allow, with the noise of ``row_losses``."""
    normalizer, horizon = policy.normalizer, policy.horizon
    motion = floors.Motion(
        *(scene.HALF_SIDE, scene.RATE, scene.STEPS, horizon),
        shift=normalizer.shift["action"][:2],
        scale=normalizer.scale["action"][:2],
    )
    x0 = np.asarray(normalizer.normalize("action", held.chunks.action), float)
    eps = evaluation.noise(x0.shape, seed)[..., :2]
    x0 = x0[..., :2]
    weight = held.chunks.mask / (2 * held.chunks.mask.sum(1, keepdims=True))
    best = {
        "image": lambda *x: floors.from_image(motion, held.effector, held.objects, *x),
        "instruction": lambda *x: floors.from_instruction(motion, held.effector, *x),
    }
    losses: dict[str, list[np.ndarray]] = {name: [] for name in best}
    for sigma in LEVELS:
        x_t = np.sqrt(1 - sigma**2) * x0 + sigma * eps
        for name, predict in best.items():
            square = ((predict(x_t, sigma) - x0) ** 2).sum(-1) / sigma**2  # of v, see floors
            losses[name].append((weight * square).sum(1))
    return {name: np.stack(values) for name, values in losses.items()}


def heading(
    policy: Policy, held: held_out.HeldOut, swaps: dict[str, evaluation.Chunks], key: jax.Array
) -> dict[str, Any]:
    """Returns which objects sampled chunks lead to: those nearest to where the arm would rest.

    Returns:
      Shares (with Wilson's 95% interval) that lead to the named object, also with swapped images
      and with swapped instructions, and of the latter those that lead to what the swapped one
      names; and the "distance", the median of where chunks lead from the named object, m.
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
    ends = goals(held.chunks)
    text = nearest(goals(swaps["instruction"]))
    colour = np.roll(held.colours[first, named], 1)
    swapped = (held.colours[first] == colour[:, None]).argmax(1)
    targets = held.objects[first, named]
    hits = {
        "named": nearest(ends) == named,
        "named, images swapped": nearest(goals(swaps["image_primary"])) == named,
        "named, instructions swapped": text == named,
        "what the swapped instruction names": text == swapped,
    }
    shares = {n: wilson(int(h.sum()), len(h)) for n, h in hits.items()}
    return {**shares, "distance": float(np.median(np.hypot(*(ends - targets).T)))}


def bin_weights(schedule: schedules.Schedule) -> dict[str, np.ndarray]:
    """Returns the weights of ``LEVELS``, the training law's probability of the cell around each, in
    the mean over all noise levels and over each bin of the training's metrics."""
    edges = np.asarray(schedule.cdf(np.linspace(0, 1, _CELLS + 1)), float)
    mass = np.diff(edges)
    weights = {"all": mass / mass.sum()}
    bins = np.arange(_CELLS) * state.BINS // _CELLS
    for i in range(state.BINS):
        in_bin = (bins == i) * mass
        weights[f"{i / state.BINS:.1f} to {(i + 1) / state.BINS:.1f}"] = in_bin / in_bin.sum()
    return weights


def estimate(rows: np.ndarray) -> dict[str, float]:
    """Returns the mean over chunks [E L] and half of its 95% interval over independent episodes."""
    episodes = rows.reshape(-1, scene.STEPS).mean(1)
    half = _Z95 * episodes.std(ddof=1) / np.sqrt(len(episodes))
    return {"mean": float(rows.mean()), "plus_minus": float(half)}


def _minutes(timing):
    """Returns minutes of training up to a step, by ``timing.jsonl``: a function of the step."""
    steps = np.array([0, *(row["step"] for row in timing)])
    rates = [row["steps_per_second"] for row in timing]
    minutes = np.concatenate([[0], np.cumsum(np.diff(steps) / rates) / 60])
    return lambda step: float(np.interp(step, steps, minutes))


def _first_below(by_step, floor):
    lowest = min(floor[n]["mean"] - floor[n]["plus_minus"] for n in ("image", "instruction"))
    for step, loss in by_step.items():
        if loss["mean"] + loss["plus_minus"] < lowest:
            return f", below both floors at step {step} ({loss['minutes']:.1f} minutes) already"
    return ", its loss nowhere below both floors"


def _text(heads):
    shares = [
        f"{name} {100 * e.value:.1f}% ({100 * e.low:.1f} to {100 * e.high:.1f})"
        for name, e in heads.items()
        if name != "distance"
    ]
    return (
        f"to the object that is {'; '.join(shares)}. By chance {100 / scene.OBJECTS:.1f}%. Median "
        f"distance from the named one {1000 * heads['distance']:.1f} mm."
    )
