"""What a run leaves in its workdir beside checkpoints, and whether a workdir is that of a run."""

from __future__ import annotations

import json
import os
import pathlib

import ml_collections

from ambient_jax.data import sources
from ambient_jax.train import config as config_lib

# What may differ from the checkpoint's when a run resumes: it does not touch the training.
_FREE = ("name", "policy", "task", "train.wandb")


def write_config(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Writes ``config.json``, whole or not at all."""
    workdir.mkdir(parents=True, exist_ok=True)
    temporary = workdir / "config.tmp"
    temporary.write_text(config.to_json_best_effort(indent=2) + "\n")
    os.replace(temporary, workdir / "config.json")


def write_problems(prepared: sources.Prepared, workdir: pathlib.Path) -> None:
    """Writes ``data_problems.json``, what was wrong with the data and accepted, if anything was."""
    found = {
        name: sources.problems_of(dataset, prepared.statistics[name])
        for name, dataset in prepared.datasets.items()
    }
    found = {name: problems for name, problems in found.items() if problems}
    if found:
        text = json.dumps(found, indent=2)
        (workdir / "data_problems.json").write_text(text + "\n", encoding="utf-8")


def flat(tree: dict, prefix: str = "") -> dict:
    """A config's fields by dotted name, as JSON would give them back."""
    if not isinstance(tree, dict):
        return {prefix[1:]: list(tree) if isinstance(tree, tuple) else tree}
    return {k: v for n, t in tree.items() for k, v in flat(t, f"{prefix}.{n}").items()}


def is_free(name: str) -> bool:
    """Whether a field (dotted name) may change when a run resumes."""
    return any(name == free or name.startswith(f"{free}.") for free in _FREE)


def differences(one: dict, other: dict) -> dict[str, tuple]:
    """Dotted names that differ where the training is concerned, with both values.

    A field that is missing is one that has its default: a version that adds an option resumes the
    runs of those before it.
    """
    defaults = flat(config_lib.default().to_dict())
    one, other = flat(one), flat(json.loads(json.dumps(other)))
    return {
        name: (_given(one, name), _given(other, name))
        for name in sorted(one.keys() | other.keys())
        if not is_free(name) and _value(one, name, defaults) != _value(other, name, defaults)
    }


def _value(fields, name, defaults):
    value = _given(fields, name)
    value = defaults.get(name) if value is None else value
    return None if value in ("", []) else value


def _given(fields, name):
    before = "keep" if name.endswith(".last_step") else None  # versions that never dropped it
    return fields.get(name, before)


def check_same(
    assets: dict,
    config: ml_collections.ConfigDict,
    prepared: sources.Prepared,
    workdir: pathlib.Path,
) -> None:
    """Raises ValueError unless a checkpoint's assets are of this config and of these data."""
    for name, (saved, now) in differences(assets["config"], config.to_dict()).items():
        raise ValueError(
            f"workdir {workdir} holds a run with {name} = {saved!r}, this one has "
            f"{now!r}: give another --workdir, or the same config to resume"
        )
    for name, now in prepared.fingerprints.items():
        if assets["data"].get(name) != now:
            raise ValueError(
                f"workdir {workdir} was trained on other data of source {name!r} than lie at "
                f"{prepared.datasets[name].directory}: give another --workdir, or the old data"
            )
