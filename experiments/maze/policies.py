"""The policies of the table, and what each changes of the base config."""

from __future__ import annotations

import ml_collections

from experiments.maze import chosen
from experiments.table.entries import Entry, of_groups

GROUPS = ("main", "sweep", "chosen", "alpha", "variants", "few", "shortcut")
_WEIGHT = "data.sources.gcs.weight"
_SIGMA_MIN = "data.sources.rrt.sigma_min"


def entries(task: ml_collections.ConfigDict) -> dict[str, Entry]:
    """The policies of the configured groups by name, in the order of the table.

    Raises:
      ValueError: for an unknown group.
    """
    best = task.best
    few = {"data.sources.gcs.split": f"train[:{task.few}]"}
    shortcut = {"data.sources.rrt.path": "maze_shortcut"}
    hard = {"law.name": "ambient"}
    found = {
        "gcs": Entry("GCS only", "main", {"law.name": "filtering"}),
        "rrt": Entry("RRT only", "main", {"law.name": "cotraining", _WEIGHT: 0.0}),
        "cotrain": Entry("co-training, natural", "main", {"law.name": "cotraining"}),
        f"ambient_{best}": Entry(f"ambient, sigma_min {best}", "main", hard | {_SIGMA_MIN: best}),
    }
    for level in task.sigma_min:
        name = f"ambient_{level}"
        entry = Entry(f"ambient, sigma_min {level}", "sweep", hard | {_SIGMA_MIN: level})
        found.setdefault(name, entry)
    units = {"dataset": "data set", "random": "random bucket", "datapoint": "datapoint"}
    for granularity in chosen.GRANULARITIES:
        file = {"data.sources.rrt.bounds": f"{task.bounds}/{granularity}.parquet"}
        label = f"ambient, sigma_min by classifier per {units[granularity]}"
        found[f"chosen_{granularity}"] = Entry(label, "chosen", hard | file)
    divergence = {f"law.{field}": value for field, value in task.ben_david.items()}
    soft = {"law.name": "ben_david"} | divergence
    found["soft_ben_david"] = Entry("soft ambient, Ben-David's alpha", "chosen", soft)
    for alpha in task.alpha:
        law = {"law.name": "reweighted", "law.alpha": alpha}
        found[f"alpha_{alpha}"] = Entry(f"co-training, alpha {alpha}", "alpha", law)
    exclusive = {"law.name": "exclusive", _SIGMA_MIN: best}
    found["exclusive"] = Entry(f"exclusive bands, sigma_min {best}", "variants", exclusive)
    found["soft"] = Entry("soft ambient, linear alpha", "variants", {"law.name": "soft"})
    for target in ("x0", "eps"):
        loss = {"objective.loss": "ambient", "objective.prediction": target, _SIGMA_MIN: best}
        label = f"ambient loss of {target}, sigma_min {best}"
        found[f"loss_{target}"] = Entry(label, "variants", hard | loss)
    for name in ("gcs", "cotrain", f"ambient_{best}"):
        entry = found[name]
        label = f"{entry.label}, {task.few} GCS plans"
        found[f"{name}_few"] = Entry(label, "few", entry.changes | few)
    for name in ("cotrain", f"ambient_{best}"):
        entry = found[name]
        label = f"{entry.label}, shortcut RRT"
        found[f"{name}_shortcut"] = Entry(label, "shortcut", entry.changes | shortcut)
    return of_groups(found, task, GROUPS)
