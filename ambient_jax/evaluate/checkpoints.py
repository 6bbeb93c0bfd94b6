"""Reports on trained policies with recorded data: one checkpoint, or the best of several."""

import os
import pathlib
from typing import Any, NamedTuple

import ml_collections
import numpy as np
import tqdm
from absl import logging

from ambient_jax import _checks
from ambient_jax.cli import report
from ambient_jax.data import mixture as mixtures
from ambient_jax.evaluate import evaluation
from ambient_jax.policy.checkpoint import check_config, named
from ambient_jax.policy.policy import Policy
from ambient_jax.train import checkpoint

COLUMNS = ("source", "role", "chunks", "loss, all levels", "action error", "of each dimension")
_LOSS = "squared error of x0_hat in normalised units, mean over"


class Report(NamedTuple):
    """The ``table`` and the ``results`` that were written to ``folder``."""

    table: str
    results: dict[str, Any]
    folder: pathlib.Path


def evaluate(
    path: str | os.PathLike[str],
    *,
    split: str = "",
    root: str = "",
    source: str = "",
    samples: int = 4096,
    sampled: int = 512,
) -> Report:
    """Measures losses and action errors of a policy; writes ``<workdir>/evaluation/<split>/``.

    Args:
      path: workdir or checkpoint, see ``checkpoint.find``.
      split, root: split and folder of the sources; "" takes those of the training.
      source: name of the only source to evaluate; "" takes all.
      samples, sampled: chunks of each source for the loss, and for the action error.

    Raises:
      FileNotFoundError: there is no checkpoint, or no data.
      ValueError: the source or split is unknown.
    """
    directory, step = checkpoint.find(path)
    config = _config(directory / str(step))
    if source:
        _checks.one_of("source", source, config.data.sources)
    rows, sources = [], {}
    names = [source] if source else list(config.data.sources)
    for name in tqdm.tqdm(names, desc="evaluate", unit="source"):
        policy = Policy.from_checkpoint(directory / str(step), source=name)
        chunks = _recorded(config, name, policy, split, root, samples)
        loss = evaluation.denoising_loss(policy, *chunks[:3], samples=samples)
        error, ahead = evaluation.action_error(policy, chunks, samples=sampled)
        total = float(np.sqrt(np.nanmean(error**2)))
        cells = [str(len(chunks.action)), f"{loss.mean():.4g}", f"{total:.4g}"]
        dimensions = ", ".join(f"{e:.3g}" for e in error)
        rows.append([name, config.data.sources[name].role, *cells, dimensions])
        sources[name] = {
            "split": split or config.data.sources[name].split,
            "loss": loss,
            "action_error": error,
            "action_error_by_step_ahead": ahead,
        }
    caption = (
        f"Policy of step {step}. Loss: {_LOSS} {len(evaluation.LEVELS)} noise levels. Action "
        "error: root mean squared difference of a sampled chunk from the recorded one, in data "
        f"units (at most {sampled} chunks)."
    )
    folder = directory.parent / "evaluation" / (split or "train").replace("/", "_")
    results = {"levels": evaluation.LEVELS, "sources": sources, "step": step}
    table = report.write(folder, COLUMNS, rows, caption, results)
    _figure(folder, sources)
    return Report(table, results, folder)


def best(
    path: str | os.PathLike[str], *, split: str = "", root: str = "", samples: int = 4096
) -> Report:
    """Records the checkpoint of the lowest denoising loss as the best one.

    Writes ``<workdir>/checkpoints_by_loss/`` and ``<workdir>/best.json``. The loss is the mean over
    all levels and all clean sources (all sources if none is clean), with the same chunks and noise
    for every checkpoint. Checkpoints that training deletes meanwhile are skipped. ``path`` is a
    workdir or its checkpoints folder; for options and errors see ``evaluate``.
    """
    directory, step = checkpoint.find(path)
    if checkpoint.absolute(path) not in (directory, directory.parent):
        raise ValueError(f"{path} is one checkpoint, expected a workdir with several to compare")
    config = _config(directory / str(step))
    sources = config.data.sources
    names = [n for n in sources if sources[n].role == "clean"] or list(sources)
    losses = _losses(config, directory, names, split=split, root=root, samples=samples)
    means = {step: float(np.mean([*by_source.values()])) for step, by_source in losses.items()}
    workdir, split = directory.parent, split or "of the training"
    for step in sorted(means, key=means.__getitem__):
        checkpoint.record_best(workdir, step, loss=means[step], split=split, sources=names)
        if step in checkpoint.steps_in(directory):
            break
    else:
        raise FileNotFoundError(
            f"the training deleted all compared checkpoints of {directory}: repeat the command"
        )
    rows = []
    for compared, by_source in losses.items():
        values = means[compared], *(by_source[name].mean() for name in names)
        label = f"{compared} (best)" if compared == step else str(compared)
        rows.append([label, *(f"{value:.4g}" for value in values)])
    caption = (
        f"Loss: {_LOSS} {len(evaluation.LEVELS)} noise levels and the sources {', '.join(names)}, "
        f"split {split}, at most {samples} chunks of each."
    )
    results = {"levels": evaluation.LEVELS, "losses": losses, "best": step, "split": split}
    folder = workdir / "checkpoints_by_loss"
    table = report.write(folder, ("step", "loss", *names), rows, caption, results)
    return Report(table, results, folder)


def _losses(
    config: ml_collections.ConfigDict, directory: pathlib.Path, names: list[str], **options: Any
) -> dict[int, dict[str, np.ndarray]]:
    """Returns the losses [L] of each source by checkpoint, {step: {source: loss}}."""
    losses: dict[int, dict[str, np.ndarray]] = {s: {} for s in checkpoint.steps_in(directory)}
    with tqdm.tqdm(total=len(names) * len(losses), desc="compare", unit="loss") as bar:
        for name in names:
            if not losses:
                break
            policy = Policy.from_checkpoint(directory / str(max(losses)), source=name)
            chunks = _recorded(config, name, policy, **options)
            for step in list(losses):
                try:
                    params = checkpoint.load_policy_assets(directory / str(step))["params"]
                except (OSError, ValueError):
                    if step in checkpoint.steps_in(directory):
                        raise
                    del losses[step]  # the training deleted it
                    continue
                losses[step][name] = evaluation.denoising_loss(
                    policy, *chunks[:3], samples=options["samples"], params=params
                )
                bar.update()
    return losses


def _config(folder: pathlib.Path) -> ml_collections.ConfigDict:
    config = checkpoint.load_policy_assets(folder)["config"]
    with named(folder / "assets" / "metadata"):
        check_config(config, folder)
    return config


def _recorded(
    config: ml_collections.ConfigDict,
    name: str,
    policy: Policy,
    split: str,
    root: str,
    samples: int,
) -> evaluation.Chunks:
    """Reads chunks of one source as training does."""
    section = config.data.sources[name]
    changes = dict(split=split or section.split, last_step=section.get("last_step", "keep"))
    source = mixtures.open_source(config.data, name, root=root, **changes)
    if missing := mixtures.missing_delta(config.data):  # in the config of an older version
        logging.warning("%s; as in the training, the last action is repeated", missing)
    return evaluation.recorded(source, policy, samples=samples, padding=config.data.padding)


def _figure(folder: pathlib.Path, sources: dict[str, Any]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, results in sources.items():
        left.plot(evaluation.LEVELS, results["loss"], ".-", lw=1, label=name)
        ahead = results["action_error_by_step_ahead"]
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
