"""What a run leaves in its workdir beside checkpoints, and whether a workdir is that of a run.

A run resumes with the config it was begun with, save for what cannot change a number:

=============================================  ====================================================
field                                          may change
=============================================  ====================================================
name, policy, task, train.wandb                yes: they do not touch the training
data.root, data.sources.*.path                 yes: the data's fingerprint decides
data.bounds, data.sources.*.bounds             from one file to another of the same content
data.open_x.embeddings                         yes: the content decides
data.prefetch, data.open_x.workers,            yes: they change speed, and what is carried along
data.open_x.quality
train.keep, keep_every, checkpoint_every       yes: they say when is saved and what stays
train.log_every                                yes: rows of metrics.jsonl are means over other
                                               windows from there on
train.init_from, init_maps                     yes: they were used at step 0
data.shuffle_window, shuffle_memory, shards    where data.placement is "device", which does not use
                                               them
data.open_x                                    where no source has open_x
data.observation, action, delta                where sources have open_x
data.sources.*.sigma_min, sigma_max            where the source has a bounds file
data.open_x.on_problem                         from or to "raise": with it there was no problem
data.shards                                    to None and back, where the number stays
train.steps                                    to more, with train.extend: the learning rate is
                                               that of the longer run from there on
all others                                     no
=============================================  ====================================================
"""

from __future__ import annotations

import fnmatch
import itertools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections
from absl import logging

from ambient_jax.data import mixture as mixtures
from ambient_jax.data import paths
from ambient_jax.train import config as config_lib

# What does not touch the training.
_FREE = ("name", "policy", "task", "train.wandb")
# Where the data lie.
PATHS = ("data.root", "data.sources.*.path")
# What may differ from the checkpoint's as well when a run resumes, as it cannot change a number.
MAY_CHANGE = (
    *PATHS,
    *("data.open_x.embeddings", "data.open_x.workers", "data.open_x.quality", "data.prefetch"),
    *("train.keep", "train.keep_every", "train.checkpoint_every", "train.log_every"),
    *("train.init_from", "train.init_maps", "train.extend"),
)
_UNUSED_ON_DEVICE = ("data.shuffle_window", "data.shuffle_memory", "data.shards")
_UNUSED_IN_COMMON_FORM = ("data.observation", "data.action", "data.delta")
_BOUNDS = ("data.bounds", "data.sources.*.bounds")
_EMBEDDINGS = "data.open_x.embeddings"  # in assets["data"], beside the names of the sources
_HINT = (
    "free to change are where data, bounds files and embeddings lie, prefetch, workers, what says "
    "when is saved and logged (train.keep, keep_every, checkpoint_every, log_every, wandb), "
    "init_from, name, policy, task"
)


def write_config(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Writes ``config.json``, whole or not at all."""
    workdir.mkdir(parents=True, exist_ok=True)
    paths.write_text(workdir / "config.json", config.to_json_best_effort(indent=2) + "\n")


def write_problems(mixture: mixtures.Mixture, workdir: pathlib.Path) -> None:
    """Writes ``data_problems.json``, what was wrong with the data and accepted, if anything was."""
    problems = {name: found for name, found in mixture.problems.items() if found}
    if problems:
        paths.write_text(workdir / "data_problems.json", json.dumps(problems, indent=2) + "\n")


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """A config's fields by dotted name, as JSON would give them back."""
    if not isinstance(tree, dict):
        return {prefix[1:]: list(tree) if isinstance(tree, tuple) else tree}
    return {k: v for n, t in tree.items() for k, v in flat(t, f"{prefix}.{n}").items()}


def _matches(name, patterns):
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def is_free(name: str) -> bool:
    """Whether a field (dotted name) does not touch the training at all."""
    return any(name == free or name.startswith(f"{free}.") for free in _FREE)


def is_place(name: str) -> bool:
    """Whether a field (dotted name) says where the data lie, and nothing of what they are."""
    return _matches(name, PATHS)


def may_change(name: str, config: Mapping, saved: Any = None, now: Any = None) -> bool:
    """Whether a run may resume with another value of a field, see the module.

    Args:
      name: dotted, such as "train.keep".
      config: of the run, as a dict; it says which fields are not used.
      saved, now: both values.
    """
    if is_free(name) or _matches(name, MAY_CHANGE):
        return True
    if name.startswith("data.open_x.on_problem.") and "raise" in (saved, now):
        return True  # the data raised nothing, so they have no such problem
    if _matches(name, _BOUNDS):
        return bool(saved) == bool(now)
    if name == "data.shards" and None in (saved, now):
        return True  # the feed compares with the number that the stream had
    sources = config["data"]["sources"].values()
    common = any(source.get("open_x") for source in sources)
    unused = _UNUSED_IN_COMMON_FORM if common else ("data.open_x.*",)
    on_device = config["data"]["placement"] == "device"
    return _matches(name, unused) or on_device and name in _UNUSED_ON_DEVICE


def differences(one: dict, other: dict) -> dict[str, tuple]:
    """Dotted names that differ and may not when a run resumes, with both values.

    A field that is missing is one that has its default: a version that adds an option resumes the
    runs of those before it.
    """
    with_file, with_file_now = _sources_with_file(one), _sources_with_file(other)
    sigmas = itertools.product(with_file & with_file_now, ("sigma_min", "sigma_max"))
    unused = {f"data.sources.{source}.{field}" for source, field in sigmas}
    return {
        name: values
        for name, values in _different(one, other).items()
        if not may_change(name, other, *values)
        and not (with_file == with_file_now and _matches(name, _BOUNDS))
        and name not in unused
    }


def _sources_with_file(config):
    """Names of the sources that have a bounds file, their own or that of all corrupt ones."""
    common = config["data"].get("bounds")
    sources = config["data"]["sources"].items()
    return {n for n, s in sources if s.get("bounds") or (common and s.get("role") == "corrupt")}


def _different(one, other):
    """All dotted names that differ, with both values; None and empty ones are the same."""
    defaults = flat(config_lib.default().to_dict())
    renamed = config_lib.RENAMED
    one, other = (
        {renamed.get(n, n): v for n, v in flat(json.loads(json.dumps(tree))).items()}
        for tree in (one, other)
    )
    different = {}
    for name in sorted(one.keys() | other.keys()):
        # Versions that did not have the field never dropped a last step.
        default = "keep" if name.endswith(".last_step") else defaults.get(name)
        values = tuple(fields.get(name, default) for fields in (one, other))
        first, second = (None if value in ("", []) else value for value in values)
        if first != second:
            different[name] = values
    return different


def marks(mixture: mixtures.Mixture) -> dict[str, str]:
    """Hashes of a run's data: the sources' fingerprints, and that of instruction embeddings."""
    return mixture.fingerprints | dict(mixture.format.marks)


def check_same(
    assets: dict,
    config: ml_collections.ConfigDict,
    mixture: mixtures.Mixture,
    workdir: pathlib.Path,
    step: int | None = None,
) -> None:
    """Raises ValueError unless a run with a checkpoint's assets may go on with this config on these
    data, see the module. Logs what has changed.

    Args:
      assets: of the checkpoint.
      config, mixture: that are to go on.
      workdir: of the run, for messages.
      step: of the checkpoint, where the run is to go on from it.
    """
    check_config(assets["config"], config, workdir, step)
    changed = _different(assets["config"], config.to_dict())
    _check_data(assets["data"], changed, config, mixture, workdir)
    if changed and step is not None and step < config.train.steps:
        fields = ", ".join(f"{n} from {a!r} to {b!r}" for n, (a, b) in changed.items())
        logging.info("%s goes on with other fields: %s", workdir, fields)


def check_config(
    saved: dict, config: ml_collections.ConfigDict, workdir: pathlib.Path, step: int | None = None
) -> None:
    """``check_same`` of configs alone, before data are read."""
    different = differences(saved, config.to_dict())
    total, now = different.get("train.steps", (0, 0))
    if step is not None and now and now < step:
        raise ValueError(
            f"workdir {workdir} holds a run at step {step} with train.steps = {total}, this one "
            f"has {now}, fewer than are done: give another --workdir, or train.steps = {total}"
        )
    if now > total and config.train.extend:
        del different["train.steps"]
    if not different:
        return
    # Where nothing else differs but the number of steps there is one way out more.
    name, *others = sorted(different, key=lambda n: n == "train.steps")
    before, after = different[name]
    also = f" (and {', '.join(others[:4])} differ{'s' * (len(others) == 1)}, too)" if others else ""
    hint = _HINT
    if name == "train.steps" and after > before:
        hint = (
            "the learning rate falls to 0 at the last step, so that going on differs from a run "
            "of so many from the start: --config.train.extend goes on all the same"
        )
    raise ValueError(
        f"workdir {workdir} holds a run with {name} = {before!r}, this one has {after!r}{also}: "
        f"give another --workdir, or the same config to resume; {hint}"
    )


def _check_data(saved, changed, config, mixture, workdir):
    for name, now in marks(mixture).items():
        if name == _EMBEDDINGS:
            # Runs of older versions have no hash of them: the same path must do.
            if saved.get(name, "" if name in changed else now) != now:
                raise ValueError(
                    f"workdir {workdir} was trained with other embeddings than those of "
                    f"config.{name} = {config.data.open_x.embeddings!r}: give another --workdir, "
                    "or the old file"
                )
            continue
        before = saved.get(name, "")
        if before == now:
            continue
        (data, _, bounds), (data_now, _, bounds_now) = before.partition("/"), now.partition("/")
        if data != data_now or bounds == bounds_now:
            raise ValueError(
                f"workdir {workdir} was trained on other data of source {name!r} than lie at "
                f"{mixture.datasets[name].directory}: give another --workdir, or the old data"
            )
        path = config.data.sources[name].get("bounds") or config.data.bounds
        raise ValueError(
            f"workdir {workdir} was trained with {'other bounds' if bounds else 'no bounds file'} "
            f"of source {name!r} than {f'those of {path!r}' if bounds_now else 'none'}: give "
            f"another --workdir, or the old {'file' if bounds else 'config'}"
        )
