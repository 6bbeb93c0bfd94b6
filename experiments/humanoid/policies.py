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
# What the classifiers of each annotation see; without posture, chunks are centred (``data``).
ANNOTATIONS = {
    "actions": "actions without posture",
    "observed": "actions without posture, given states",
    "raw": "actions",
}


def rows(task: ml_collections.ConfigDict, annotations: Annotations = {}) -> dict[str, PolicyRow]:  # noqa: B006
    """The policies of the configured groups by name, in the order of the table; raises ValueError
    for an unknown group."""
    law = lambda name, **options: {"law.name": name} | {f"law.{n}": v for n, v in options.items()}  # noqa: E731
    levels = {name: _levels(annotations.get(name)) for name in ANNOTATIONS}
    hard = law("ambient")
    listed = {
        "clean": PolicyRow("clean only", "main", law("filtering")),
        "cotrain": PolicyRow("co-training, natural", "main", law("cotraining")),
    }
    for name, words in ANNOTATIONS.items():
        group = "variants" if name == "raw" else "main"
        listed[f"ambient_{name}"] = PolicyRow(
            f"ambient, from {words}", group, _with(hard, levels[name])
        )
    for alpha in task.alpha:
        words = f"co-training, clean share {alpha:g}"
        changes = law("reweighted", alpha=alpha)
        listed[f"alpha_{alpha:g}"] = PolicyRow(words, "variants", changes)
        listed[f"ambient_observed_alpha_{alpha:g}"] = PolicyRow(
            f"ambient, from {ANNOTATIONS['observed']}, clean share {alpha:g}",
            "variants",
            _with(law("ambient", alpha=alpha), levels["observed"]),
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
    """The ``ANNOTATIONS`` in ``<workdir>/annotation_<name>``, made where they are absent.

    "observed" compares p(A | O) with q(A | O), the others p(A) with q(A).
    """
    made: dict[str, Annotation] = {}
    for name in ANNOTATIONS:
        options = annotate_config.get_config("rlds")
        options.data = config.data.copy_and_resolve_references()
        if name != "raw":
            options.data.normalization = "none"  # they are written in normalised units
            for source in options.data.sources.values():
                source.path = source.path.replace("humanoid_", "humanoid_centred_")
        options.task.update(config.task[f"annotate_{name}"])
        folder = workdir / f"annotation_{name}"
        # No law here needs the sizes of Ben-David's bound.
        given = options, folder, "", (0, 0)
        found = annotations_lib.run(*given, report_only=config.task.report_only)
        made |= {name: found} if found else {}
    return made
