"""The policies of the table, and their changes of the base config.

The corrupt demonstrations are those of a shaky hand. Above a noise level ``sigma_min`` they look
like those of a steady one. Groups:

main      clean only, co-training, and the sweep of sigma_min
weighted  the sweep at the shares of clean data of re-weighted co-training
shaky     corrupt only
images    clean only, co-training and ambient with images in place of the T's corners
"""

from typing import Any

import ml_collections

from experiments.table.annotations import Annotations
from experiments.table.policies import PolicyRow, of_groups

GROUPS = ("main", "weighted", "shaky", "images")
_HANDS = ("steady", "shaky")
_SIGMA_MIN = "data.sources.shaky.sigma_min"


def rows(task: ml_collections.ConfigDict, annotations: Annotations) -> dict[str, PolicyRow]:
    """Returns the policies of the configured groups by name, in the order of the table. Raises
    ValueError for an unknown group."""
    del annotations  # no policy needs one
    natural: dict[str, Any] = {"law.name": "cotraining"}
    listed = {
        "steady": PolicyRow("clean only", "main", {"law.name": "filtering"}),
        "shaky": PolicyRow("corrupt only", "shaky", natural | {"data.sources.steady.weight": 0.0}),
        "cotrain": PolicyRow("co-training, natural", "main", natural),
    }
    for share in task.alpha:
        law = {"law.name": "reweighted", "law.alpha": share}
        listed[alpha(share)] = PolicyRow(f"co-training, alpha {share:g}", "main", law)
    for level in sorted(task.sigma_min):
        label = f"ambient, sigma_min {level:g}"
        listed[ambient(level)] = PolicyRow(label, "main", _hard(level))
    for share in task.alpha:
        for level in sorted(task.sigma_min):
            label = f"ambient, sigma_min {level:g}, alpha {share:g}"
            row = PolicyRow(label, "weighted", _hard(level) | {"law.alpha": share})
            listed[ambient(level, share)] = row
    for name in image_names(task) if "images" in task.groups else ():
        row = listed[name]
        changes = (row.changes or {}) | seeing(task)
        listed[f"{name}_images"] = PolicyRow(f"{row.label}, images", "images", changes)
    return of_groups(listed, task, GROUPS)


def alpha(share: float) -> str:
    """Returns the name of re-weighted co-training with a share of clean data."""
    return f"alpha_{share:g}"


def ambient(sigma_min: float, share: float = 0.0) -> str:
    """Returns the name of a policy of the sweep; a share of 0 is by number of samples."""
    return f"ambient_{sigma_min:g}" + (f"_{alpha(share)}" if share else "")


def image_names(task: ml_collections.ConfigDict) -> list[str]:
    """Returns the policies that the group ``images`` repeats."""
    share, level = task.image.alpha, task.image.sigma_min
    return ["steady", alpha(share), ambient(level, share)]


def _hard(sigma_min):
    return {"law.name": "ambient", _SIGMA_MIN: sigma_min}


def seeing(task: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns config fields of a policy that sees the pusher and an image."""
    encoder = {"name": "experiments.pusht.network:ImageEncoder", **task.image.encoder.to_dict()}
    changes = {"data.observation": ("agent_pos", "small"), "model.encoder": encoder}
    for name in _HANDS:
        changes[f"data.sources.{name}.path"] = f"pusht_images_{name}"
    changes["data.sources.shaky.split"] = f"train[:{task.image.shaky}]"
    changes["train.steps"] = task.image.steps
    return changes
