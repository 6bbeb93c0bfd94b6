"""Evaluates a trained policy on recorded data, outside of the training process.

python -m experiments.evaluate --checkpoint=runs/open_x/mine --split=val
python -m experiments.evaluate --checkpoint=runs/open_x/mine --split=val --best

The first leaves ``<workdir>/evaluation/<split>/``: denoising loss of every source at each noise
level, and how far sampled chunks are from the recorded ones. The second compares the checkpoints
that are there, leaves ``<workdir>/checkpoints_by_loss/`` and records the best, which then stays:
``--checkpoint=<workdir>/best`` is it. Give it again as training goes on.
"""

from __future__ import annotations

import os
import pathlib

import numpy as np
import tqdm
from absl import flags, logging

from ambient_jax import _checks
from ambient_jax.cli import console, report
from ambient_jax.data import mixture as mixtures
from ambient_jax.evaluate import evaluation
from ambient_jax.policy.policy import Policy, check_config, named
from ambient_jax.train import checkpoint, layout

_CHECKPOINT = flags.DEFINE_string("checkpoint", "", "workdir or checkpoint of the policy")
_SPLIT = flags.DEFINE_string("split", "", "such as val or train[90%:]; default: the training's own")
_ROOT = flags.DEFINE_string("root", "", "folder of the sources; default: the training's data.root")
_SOURCE = flags.DEFINE_string("source", "", "this one alone, where others lack the split")
_SAMPLES = flags.DEFINE_integer("samples", 4096, "chunks of each source", lower_bound=1)
_SAMPLED = flags.DEFINE_integer("sampled", 512, "of which so many are sampled", lower_bound=1)
_BEST = flags.DEFINE_bool("best", False, "compare the workdir's checkpoints, record the best one")
COLUMNS = ("source", "role", "chunks", "loss, all levels", "action error", "of each dimension")


def evaluate(
    path: str | os.PathLike[str],
    *,
    split: str = "",
    root: str = "",
    source: str = "",
    samples: int = 4096,
    sampled: int = 512,
) -> str:
    """Writes the report beside the checkpoint; returns its table.

    Args:
      path: see ``checkpoint.find``.
      split: of every source; "" takes each source's training split.
      root: where the sources lie; "" takes the training's.
      source: name of the one to evaluate; "" takes all.
      samples, sampled: chunks of each source for the loss, and for the action error.

    Raises:
      FileNotFoundError: no checkpoint, or no data.
      ValueError: an unknown source or split.
    """
    directory, step = checkpoint.find(path)
    path = directory / str(step)
    config = _config(path)
    if source:
        _checks.one_of("source", source, config.data.sources)
    rows, results = [], {}
    names = [source] if source else list(config.data.sources)
    for name in tqdm.tqdm(names, desc="evaluate", unit="source"):
        policy = Policy.from_checkpoint(path, source=name)
        chunks = _recorded(config, name, policy, split, root, samples)
        loss = evaluation.denoising_loss(policy, *chunks[:3], samples=samples)
        error, ahead = evaluation.action_error(policy, chunks, samples=sampled)
        total = float(np.sqrt(np.nanmean(error**2)))
        dimensions = ", ".join(f"{e:.3g}" for e in error)
        count = str(len(chunks.action))
        role = config.data.sources[name].role
        rows.append([name, role, count, f"{loss.mean():.4g}", f"{total:.4g}", dimensions])
        results[name] = {
            "split": split or config.data.sources[name].split,
            "loss": loss,
            "action_error": error,
            "action_error_by_step_ahead": ahead,
        }
    caption = (
        f"Policy of step {step}. Loss: squared error of x0_hat in normalised units, mean over "
        f"{len(evaluation.LEVELS)} noise levels. Action error: root mean squared difference of a "
        f"sampled chunk from the recorded one, in data units ({sampled} chunks)."
    )
    folder = directory.parent / "evaluation" / (split or "train").replace("/", "_")
    content = {"levels": evaluation.LEVELS, "sources": results, "step": step}
    table = report.write(folder, COLUMNS, rows, caption, content)
    _figure(folder, results)
    return table


def best(
    path: str | os.PathLike[str], *, split: str = "", root: str = "", samples: int = 4096
) -> str:
    """Records the checkpoint of the lowest denoising loss as the best; returns the table of all.

    The loss is that on the clean sources (on all where none is clean), all levels and sources
    counting alike, with the same chunks and noise for every checkpoint. Training may go on
    meanwhile; what it deletes is left out.

    Args:
      path: workdir, or its checkpoints folder.
      split, root, samples: see ``evaluate``.

    Raises:
      FileNotFoundError: no checkpoint, or no data.
      ValueError: an unknown split, or the path of one checkpoint.
    """
    directory, step = checkpoint.find(path)
    if layout.absolute(path) not in (directory, directory.parent):
        raise ValueError(f"{path} is one checkpoint, expected a workdir with several to compare")
    config = _config(directory / str(step))
    sources = config.data.sources
    names = [n for n in sources if sources[n].role == "clean"] or list(sources)
    losses = {step: {} for step in checkpoint.steps_in(directory)}
    with tqdm.tqdm(total=len(names) * len(losses), desc="compare", unit="loss") as bar:
        for name in names:
            if not losses:
                break
            policy = Policy.from_checkpoint(directory / str(max(losses)), source=name)
            chunks = _recorded(config, name, policy, split, root, samples)
            for step in list(losses):
                try:
                    params = checkpoint.load_policy_assets(directory / str(step))["params"]
                except (OSError, ValueError):
                    if step in checkpoint.steps_in(directory):
                        raise
                    del losses[step]  # by the training
                    continue
                loss = evaluation.denoising_loss(
                    policy, *chunks[:3], samples=samples, params=params
                )
                losses[step][name] = loss
                bar.update()
    total = {s: float(np.mean([*each.values()])) for s, each in losses.items()}
    workdir, split = directory.parent, split or "of the training"
    for step in sorted(total, key=total.get):
        checkpoint.record_best(workdir, step, loss=total[step], split=split, sources=names)
        if step in checkpoint.steps_in(directory):
            break
    else:
        raise FileNotFoundError(f"the training has deleted what was compared in {directory}: again")
    rows = []
    for each, of_source in losses.items():
        values = total[each], *(of_source[name].mean() for name in names)
        label = f"{each} (best)" if each == step else str(each)
        rows.append([label, *(f"{value:.4g}" for value in values)])
    caption = (
        f"Loss: squared error of x0_hat in normalised units, mean over {len(evaluation.LEVELS)} "
        f"noise levels and the sources {', '.join(names)}, split {split}, at most {samples} chunks "
        "of each."
    )
    content = {"levels": evaluation.LEVELS, "losses": losses, "best": step, "split": split}
    columns = ("step", "loss", *names)
    return report.write(workdir / "checkpoints_by_loss", columns, rows, caption, content)


def _config(folder):
    config = checkpoint.load_policy_assets(folder)["config"]
    with named(folder / "assets" / "metadata"):
        check_config(config, folder)
    return config


def _recorded(config, name, policy, split, root, samples):
    own = config.data.sources[name]
    changes = dict(split=split or own.split, last_step=own.get("last_step", "keep"))
    source = mixtures.open_source(config.data, name, root=root, **changes)
    if missing := mixtures.missing_delta(config.data):  # of a version that did not ask
        logging.warning("%s; as in the training, the last action is repeated", missing)
    return evaluation.recorded(source, policy, samples=samples, padding=config.data.padding)


def _figure(folder: pathlib.Path, results: dict) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, found in results.items():
        left.plot(evaluation.LEVELS, found["loss"], ".-", lw=1, label=name)
        ahead = found["action_error_by_step_ahead"]
        right.plot(np.arange(1, len(ahead) + 1), ahead, ".-", lw=1, label=name)
    left.set(xscale="logit", yscale="log", xlabel=r"noise level $\sigma$")
    left.set_xticks([0.005, 0.05, 0.5, 0.95], ["0.005", "0.05", "0.5", "0.95"])
    left.minorticks_off()
    left.set_ylabel(r"squared error of $\hat{x}_0$ (normalised)")
    right.set(xlabel="step ahead", ylabel="action error (data units)")
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.legend(fontsize=7)
    figure.savefig(folder / "evaluation.png", dpi=160)


def main(_: list[str]) -> None:
    console.setup()
    with console.one_line_errors():
        if not _CHECKPOINT.value:
            raise ValueError("expected --checkpoint=<workdir of a trained policy>")
        options = dict(split=_SPLIT.value, root=_ROOT.value, samples=_SAMPLES.value)
        if _BEST.value:
            print(best(_CHECKPOINT.value, **options))
        else:
            options |= dict(source=_SOURCE.value, sampled=_SAMPLED.value)
            print(evaluate(_CHECKPOINT.value, **options))


if __name__ == "__main__":
    console.run(main)
