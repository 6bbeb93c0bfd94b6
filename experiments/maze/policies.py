"""The policies of the table, and their changes of the base config."""

import pathlib

import ml_collections

from experiments.annotate import config as annotate_config
from experiments.table import annotations as annotations_lib
from experiments.table import baselines
from experiments.table.annotations import Annotations
from experiments.table.policies import PolicyRow, of_groups

GROUPS = ("main", "sweep", "chosen", "alpha", "variants", "few", "shortcut", "baselines")
BASELINES = baselines.Setting("gcs", "cotrain", "gcs", "rrt", "maze")
# Of the annotation of the RRT data.
_GRANULARITIES = {"dataset": "data set", "random": "random bucket", "datapoint": "datapoint"}
_SIGMA_MIN = "data.sources.rrt.sigma_min"


def rows(task: ml_collections.ConfigDict, annotations: Annotations) -> dict[str, PolicyRow]:
    """Returns the policies of the configured groups by name, in the order of the table.

    Raises:
      ValueError: for an unknown group.
    """
    best = f"ambient_{task.best}"
    natural, hard = {"law.name": "cotraining"}, {"law.name": "ambient"}
    listed = {
        "gcs": PolicyRow("GCS only", "main", {"law.name": "filtering"}),
        "rrt": PolicyRow("RRT only", "main", natural | {"data.sources.gcs.weight": 0.0}),
        "cotrain": PolicyRow("co-training, natural", "main", natural),
    }
    for level in (task.best, *task.sigma_min):
        group, changes = "main" if level == task.best else "sweep", hard | {_SIGMA_MIN: level}
        row = PolicyRow(f"ambient, sigma_min {level}", group, changes)
        listed.setdefault(f"ambient_{level}", row)
    chosen = annotations.get("rrt")
    for granularity, units in _GRANULARITIES.items():
        label = f"ambient, sigma_min by classifier per {units}"
        changes = chosen and chosen.hard_law(granularity)
        listed[f"chosen_{granularity}"] = PolicyRow(label, "chosen", changes)
    soft = PolicyRow("soft ambient, Ben-David's alpha", "chosen", chosen and chosen.soft_law())
    listed["soft_ben_david"] = soft
    for alpha in task.alpha:
        law = {"law.name": "reweighted", "law.alpha": alpha}
        listed[f"alpha_{alpha}"] = PolicyRow(f"co-training, alpha {alpha}", "alpha", law)
    level = {_SIGMA_MIN: task.best}
    exclusive = f"exclusive bands, sigma_min {task.best}"
    listed["exclusive"] = PolicyRow(exclusive, "variants", {"law.name": "exclusive"} | level)
    listed["soft"] = PolicyRow("soft ambient, linear alpha", "variants", {"law.name": "soft"})
    for target in ("x0", "eps"):
        loss = {"objective.loss": "ambient", "objective.prediction": target}
        label = f"ambient loss of {target}, sigma_min {task.best}"
        listed[f"loss_{target}"] = PolicyRow(label, "variants", hard | loss | level)
    listed |= baselines.rows(annotations, ("state", "goal"), natural)
    few = {"data.sources.gcs.split": f"train[:{task.few}]"}
    shortcut = {"data.sources.rrt.path": "maze_shortcut"}
    for group, names, words, data in (
        ("few", ("gcs", "cotrain", best), f"{task.few} GCS plans", few),
        ("shortcut", ("cotrain", best), "shortcut RRT", shortcut),
    ):
        for name in names:
            label, _, changes = listed[name]
            listed[f"{name}_{group}"] = PolicyRow(f"{label}, {words}", group, changes | data)
    return of_groups(listed, task, GROUPS)


def annotate(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> Annotations:
    """Returns the annotation in ``<workdir>/annotation``, made if the group ``chosen`` needs it."""
    if "chosen" not in config.task.groups:
        return {}
    options = annotate_config.get_config("maze")
    options.data = config.data
    options.task.update(config.task.annotate)
    # The table has built the data, and no policy of it uses sigma_max.
    options.task.update({"build": "", "granularity": tuple(_GRANULARITIES), "crops": ()})
    sizes = config.task.ben_david.n_clean, config.task.ben_david.n_corrupt
    arguments = options, workdir / "annotation", "rrt", sizes
    annotation = annotations_lib.run(*arguments, report_only=config.task.report_only)
    return {"rrt": annotation} if annotation else {}
