"""Baselines of the field: how else to use corrupt data, one policy each, in the group "baselines".

rejection    each corrupt chunk trains a level with probability min(1, P(clean) / P(corrupt)), see
             ``annotate.thresholds.rejection_tau``
told         co-training with an input that states which data are clean
excess_loss  the better half of the corrupt episodes, by the loss of a policy trained on all data
             less that of one trained on clean data (RHO-loss, Mindermann et al. 2022; DoReMi, Xie
             et al. 2023; Re-Mix, Hejna et al. 2024)
influence    the better half by ``annotate.influence`` on the clean data's loss (TracIn, Pruthi et
             al. 2020; LESS, Xia et al. 2024; CUPID, Agia et al. 2025)

The two selections need policies of the table, of the first seed. So the table trains all other
policies first, and then ``annotate`` makes the bounds of these. Chosen episodes are admitted at
every level, the others at none. Scores are means over an episode's chunks and the levels.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np
from absl import logging

from ambient_jax.annotate.influence import influence
from ambient_jax.data import bounds
from ambient_jax.data import mixture as mixtures
from ambient_jax.evaluate import evaluation
from ambient_jax.policy.policy import Policy
from ambient_jax.transforms.steps import IS_CLEAN
from experiments.annotate import config as annotate_config
from experiments.table import annotations, cache
from experiments.table.annotations import Annotation, Annotations
from experiments.table.experiment import Table
from experiments.table.policies import PolicyRow

GROUP = "baselines"
REJECTION, SELECTION = "rejection", "selection"  # names of annotations
_HALVES = {"excess_loss": "excess loss", "influence": "influence"}
_LEVELS = evaluation.LEVELS[::3]  # 7, from sigma 0.004 to 0.998
_MOST = {"chunks": 8, "clean": 4096}  # chunks of each corrupt episode, and of all clean ones


@dataclasses.dataclass(frozen=True)
class Setting:
    """What the baselines compare with in one table: names of two of its policies, of the clean and
    the corrupt source, and the variant of ``experiments.annotate`` with its classifier."""

    clean_policy: str
    mixed_policy: str
    clean: str
    corrupt: str
    variant: str

    def annotate(self, table: Table) -> Annotations:
        """Returns the annotations of the rows; makes what is missing, except in ``report_only``."""
        folder, report_only = table.workdir / GROUP, table.config.task.report_only
        found: dict[str, Annotation] = {}
        options = _classifier(self, table.config)
        arguments = options, folder / REJECTION, self.corrupt, (0, 0)
        if rejection := annotations.run(*arguments, report_only=report_only):
            found[REJECTION] = rejection
        files = [folder / SELECTION / f"{name}.parquet" for name in _HALVES]
        if not report_only:
            _select(self, table, folder / SELECTION)
        if all(file.exists() for file in files):
            found[SELECTION] = Annotation(str(folder / SELECTION), {}, self.corrupt, 0, 0)
        return found


def rows(
    annotated: Annotations,
    observation: tuple[str, ...],
    mixed: Mapping[str, Any],
    weights: Mapping[str, Any] = {},  # noqa: B006
    *,
    told: bool = True,
) -> dict[str, PolicyRow]:
    """Returns the policies of the group by name.

    Args:
      annotated: of ``Setting.annotate``; policies whose bounds have not been made cannot train.
      observation: the names that the table's policies observe.
      mixed: config fields of co-training.
      weights: config fields that the policies with bounds need, such as weights of sources.
      told: whether there is a policy that is told which data are clean.
    """
    listed = {}

    def add(name, label, annotation):
        made = annotated.get(annotation)
        changes = made and made.hard_law(name) | dict(weights)
        listed[f"baseline_{name}"] = PolicyRow(label, GROUP, changes)

    add(REJECTION, "rejection by classifier", REJECTION)
    if told:
        changes = dict(mixed) | {"data.observation": (*observation, IS_CLEAN)}
        label = "co-training, told which data are clean"
        listed["baseline_told"] = PolicyRow(label, GROUP, changes)
    for name, words in _HALVES.items():
        add(name, f"better half of corrupt episodes by {words}", SELECTION)
    return listed


def _classifier(setting, config):
    """Returns the config of the annotation by rejection."""
    options = annotate_config.get_config(setting.variant)
    options.name, options.data = REJECTION, ml_collections.ConfigDict(config.data.to_dict())
    for name in set(options.data.sources) - {setting.clean, setting.corrupt}:
        del options.data.sources[name]
    # The table has built the data; every chunk is judged, and nothing else is reported.
    every = dict(build="", granularity=(REJECTION,), judged=0, crops=(), analyses=(), mismatch=0)
    options.task.update(config.task.annotate)
    options.task.update(every)
    return options


def _select(setting, table, folder):
    """Writes ``<folder>/<name>.parquet``, the bounds of each selection, unless they are current."""
    seed = table.config.task.seeds[0]
    names = setting.clean_policy, setting.mixed_policy
    if missing := [name for name in names if name not in table.rows]:
        raise ValueError(
            f"the group {GROUP!r} compares with the policies {', '.join(names)}, but "
            f"config.task.groups {tuple(table.config.task.groups)} leaves out {', '.join(missing)}:"
            " add their group"
        )
    data = table.config_of(setting.mixed_policy, seed).data
    sources = [mixtures.open_source(data, n) for n in (setting.clean, setting.corrupt)]
    about = {
        "policies": {n: [cache.step(table.folder(n, seed)), seed] for n in names},
        "clean": sources[0].fingerprint,
        **{"levels": list(_LEVELS), "most": _MOST, "padding": data.padding},
    }
    missing = [name for name in _HALVES if not _is_current(folder / f"{name}.parquet", about)]
    if not missing:
        return
    clean_policy, policy = (Policy.from_checkpoint(table.folder(n, seed)) for n in names)
    every = dict(padding=data.padding, episodes=10**9, samples=10**9)
    clean, pile = (evaluation.recorded(source, policy, **every) for source in sources)
    clean, judged = _rows(clean, _thinned(clean)), _rows(pile, _spread(pile.origin))
    for name in missing:
        if name == "influence":
            scores = influence(policy, clean, judged, levels=_LEVELS)
        else:
            losses = [
                evaluation.row_losses(p, judged, levels=_LEVELS) for p in (policy, clean_policy)
            ]
            scores = losses[0] - losses[1]
        kept = better_half(judged.origin[:, 0], scores.mean(0))
        logging.info("%s keeps %d of %d corrupt episodes", name, kept.sum(), len(kept))
        _write(folder / f"{name}.parquet", setting.corrupt, sources[1], pile.origin, kept, about)


def better_half(episode: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Returns which episodes are kept, [E] bool by position up to the largest.

    They are the half (rounded up) of those with chunks whose mean score is largest; ties go to the
    earlier one. ``episode`` [N] is the position of each chunk's episode, ``score`` [N] its score.
    """
    count = np.bincount(episode)
    mean = np.bincount(episode, score) / np.maximum(count, 1)
    mean[count == 0] = -np.inf
    kept = np.zeros(len(count), bool)
    kept[np.argsort(-mean, kind="stable")[: -(-np.count_nonzero(count) // 2)]] = True
    return kept


def _rows(chunks, at):
    arrays = {name: value[at] for name, value in chunks.observation.items()}
    return evaluation.Chunks(arrays, *(values[at] for values in chunks[1:]))


def _thinned(chunks):
    """Returns rows of at most ``_MOST["clean"]`` chunks, which ``recorded`` has shuffled."""
    return np.arange(min(len(chunks.action), _MOST["clean"]))


def _spread(origin):
    """Returns rows of at most ``_MOST["chunks"]`` chunks of each episode, evenly spread in time."""
    order = np.lexsort(origin.T[::-1])
    chosen = []
    for rows_of_episode in np.split(order, np.flatnonzero(np.diff(origin[order, 0])) + 1):
        count = min(len(rows_of_episode), _MOST["chunks"])
        middles = (np.arange(count) + 0.5) / count * len(rows_of_episode)
        chosen.append(rows_of_episode[middles.astype(int)])
    return np.concatenate(chosen)


def _write(path: pathlib.Path, name, source, origin, kept, about):
    episode, step = np.asarray(source.episode_ids)[origin[:, 0]], origin[:, 1]
    low = np.where(kept[origin[:, 0]], 0.0, 1.0)
    columns = name, source.fingerprint, episode, step, low, 1 - low
    bounds.write(path, bounds.for_source(*columns, method=path.stem, how={"about": about}))


def _is_current(path, about):
    try:
        return bounds.read(path).how.get("about") == about
    except (FileNotFoundError, ValueError):
        return False
