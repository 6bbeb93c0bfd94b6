"""The policies of the table, and what each changes of the base config."""

import pathlib
from typing import Any

import ml_collections

from experiments.annotate import config as annotate_config
from experiments.humanoid.corruptions import KINDS
from experiments.table import annotations as annotations_lib
from experiments.table.annotations import Annotation, Annotations
from experiments.table.policies import PolicyRow, of_groups

GROUPS = ("main", "variants", "more")


def rows(task: ml_collections.ConfigDict, annotations: Annotations = {}) -> dict[str, PolicyRow]:  # noqa: B006
    """The policies of the configured groups by name, in the order of the table; raises ValueError
    for an unknown group."""
    law = lambda name, **options: {"law.name": name} | {f"law.{n}": v for n, v in options.items()}  # noqa: E731
    actions, observed = annotations.get("actions"), annotations.get("observed")
    by_actions, by_both = _levels(actions), _levels(observed)
    file = f"{actions.bounds}/episode.parquet" if actions else ""
    hard = law("ambient")
    listed = {
        "clean": PolicyRow("clean only", "main", law("filtering")),
        "cotrain": PolicyRow("co-training, natural", "main", law("cotraining")),
        "ambient": PolicyRow(
            "ambient, sigma_min of each kind from actions", "main", _with(hard, by_actions)
        ),
        "ambient_observed": PolicyRow(
            "ambient, sigma_min of each kind from actions given states",
            "main",
            _with(hard, by_both),
        ),
        "ambient_episode": PolicyRow(
            "ambient, sigma_min of each episode from actions",
            "variants",
            hard | {f"data.sources.{kind}.bounds": file for kind in KINDS} if file else None,
        ),
    }
    for alpha in task.alpha:
        words = f"co-training, clean share {alpha:g}"
        changes = law("reweighted", alpha=alpha)
        listed[f"alpha_{alpha:g}"] = PolicyRow(words, "variants", changes)
        listed[f"ambient_observed_alpha_{alpha:g}"] = PolicyRow(
            f"ambient, from actions given states, clean share {alpha:g}",
            "variants",
            _with(law("ambient", alpha=alpha), by_both),
        )
    whole = law("filtering") | {"data.sources.clean.path": "humanoid_uncorrupted"}
    listed["uncorrupted"] = PolicyRow("all episodes, none corrupted", "more", whole)
    return of_groups(listed, task, GROUPS)


def sigma_min(annotation: Annotation) -> dict[str, float]:
    """The bound of each kind."""
    found = annotation.results["sigma_min"]
    return {kind: found[f"{kind}, dataset"]["mean"] for kind in KINDS}


def _levels(annotation):
    """Config fields of the bounds of all kinds; None without an annotation."""
    if annotation is None:
        return None
    return {f"data.sources.{kind}.sigma_min": v for kind, v in sigma_min(annotation).items()}


def _with(changes: dict[str, Any], levels: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if levels is None else changes | levels


def annotate(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> Annotations:
    """The annotations in ``<workdir>/annotation_<name>``, which are made where they are absent:
    "actions" compares p(A) with q(A), "observed" p(A | O) with q(A | O)."""
    made: dict[str, Annotation] = {}
    for name, section in (("actions", "annotate"), ("observed", "annotate_observed")):
        options = annotate_config.get_config("rlds")
        options.data = config.data
        options.task.update(config.task[section])
        folder = workdir / f"annotation_{name}"
        # No law here needs the sizes of Ben-David's bound.
        given = options, folder, "", (0, 0)
        found = annotations_lib.run(*given, report_only=config.task.report_only)
        made |= {name: found} if found else {}
    return made
