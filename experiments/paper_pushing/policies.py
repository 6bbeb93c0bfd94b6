"""The policies of the table: those of planar pushing, and an upper bound.

upper  target only, with so many target demonstrations as there are source ones
For the other groups see ``planar_pushing.policies``.
"""

import ml_collections

from ambient_jax import _checks
from experiments.planar_pushing import classifier_bounds
from experiments.planar_pushing import policies as planar
from experiments.table.annotations import Annotations
from experiments.table.policies import PolicyRow, of_groups

GROUPS = (
    *("main", "weighted", "upper", "chosen", "buckets", "observed", "strict", "shared"),
    *("soft", "omni", "few"),
)
UPPER = "target_upper"


def rows(task: ml_collections.ConfigDict, annotations: Annotations) -> dict[str, PolicyRow]:
    """Returns the policies of the configured groups by name, in the order of the table, or those of
    ``task.policies`` alone. Raises ValueError for an unknown group or policy."""
    listed = planar.listed(task, annotations)
    more = {"law.name": "filtering"} | {
        "data.sources.target.split": classifier_bounds.split(task.upper)
    }
    label = f"target only, {task.upper} target demonstrations"
    listed[UPPER] = PolicyRow(label, "upper", more)
    chosen = of_groups(listed, task, GROUPS)
    for name in task.policies:
        _checks.one_of("config.task.policies", name, chosen)
    return {name: chosen[name] for name in task.policies} or chosen
