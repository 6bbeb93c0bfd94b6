"""The policies of the table: those of planar pushing, and an upper bound.

upper  target only, with so many target demonstrations as there are source ones
below  the source trains only the noise levels below sigma_max, at its own and at a chosen weight
For the other groups see ``planar_pushing.policies``.
"""

import ml_collections

from experiments.planar_pushing import classifier_bounds
from experiments.planar_pushing import policies as planar
from experiments.table.annotations import Annotations
from experiments.table.policies import PolicyRow, of_groups

GROUPS = (
    *("main", "weighted", "upper", "chosen", "buckets", "observed", "strict", "shared"),
    *("soft", "omni", "few", "below"),
)
UPPER = "target_upper"


def rows(task: ml_collections.ConfigDict, annotations: Annotations) -> dict[str, PolicyRow]:
    """Returns the policies that ``task.groups`` names, by name, in the order of the table. Raises
    ValueError for an unknown group or policy."""
    listed = planar.listed(task, annotations)
    more = {"law.name": "filtering"} | {
        "data.sources.target.split": classifier_bounds.split(task.upper)
    }
    label = f"target only, {task.upper} target demonstrations"
    listed[UPPER] = PolicyRow(label, "upper", more)
    for level in task.below:
        bounds = {"data.sources.source.sigma_min": 1.0, "data.sources.source.sigma_max": level}
        label, changes = f"source below sigma_max {level:g} only", {"law.name": "ambient"} | bounds
        listed[f"below_{level:g}"] = PolicyRow(label, "below", changes)
        name, share = f"below_{level:g}_alpha_{task.best_alpha:g}", {"law.alpha": task.best_alpha}
        label = f"{label}, alpha {task.best_alpha:g}"
        listed[name] = PolicyRow(label, "below", changes | share)
    return of_groups(listed, task, GROUPS)
