"""The policies of the table, and their changes of the base config."""

import ml_collections

from experiments.table.annotations import Annotations
from experiments.table.policies import PolicyRow, of_groups

GROUPS = ("main", "sweep", "alpha")
_SIGMA_MIN = "data.sources.rrt.sigma_min"


def rows(task: ml_collections.ConfigDict, annotations: Annotations) -> dict[str, PolicyRow]:
    """Returns the policies of the configured groups by name, in the order of the table; there are
    no annotations.

    Raises:
      ValueError: for an unknown group.
    """
    del annotations
    natural = {"law.name": "cotraining"}
    listed = {
        "smooth": PolicyRow("smooth plans only", "main", {"law.name": "filtering"}),
        "rrt": PolicyRow("RRT-Connect only", "main", natural | {"data.sources.smooth.weight": 0.0}),
        "cotrain": PolicyRow("co-training, natural", "main", natural),
    }
    for alpha in (task.share, *task.alpha):
        group = "main" if alpha == task.share else "alpha"
        law = {"law.name": "reweighted", "law.alpha": alpha}
        row = PolicyRow(f"co-training, alpha {alpha}", group, law)
        listed.setdefault(f"alpha_{alpha}", row)
    for level in (task.best, *task.sigma_min):
        group = "main" if level == task.best else "sweep"
        law = {"law.name": "ambient", _SIGMA_MIN: level}
        row = PolicyRow(f"ambient, sigma_min {level}", group, law)
        listed.setdefault(f"ambient_{level}", row)
    return of_groups(listed, task, GROUPS)
