"""Decides whether a run may resume with a config: fields that change a number must not differ.

The tables below list the fields that may change; any other field must keep its value.
"""

import fnmatch
import json
from typing import Any

import ml_collections
from absl import logging

from ambient_jax.data import mixture as mixtures
from ambient_jax.data import paths
from ambient_jax.train import config as config_lib

# Training does not read these.
_FREE = (
    *("name", "policy", "task", "rollouts"),
    *("train.wandb", "train.pictures", "train.pictures_split"),
)
# Places of the data, which are compared by fingerprint.
PATHS = ("data.root", "data.sources.*.path")
MAY_CHANGE = (
    *PATHS,
    "data.open_x.embeddings",  # compared by content
    # Speed, and labels that training does not use.
    *("data.prefetch", "data.assemblers", "data.open_x.workers", "data.open_x.quality"),
    "train.fsdp",
    # When the run saves and logs, and which checkpoints it keeps.
    *("train.keep", "train.keep_every", "train.checkpoint_every", "train.log_every"),
    # Used at step 0.
    *("train.init_from", "train.init_maps", "model.encoder.vision.pretrained.weights"),
    "train.extend",  # allows more train.steps; the learning rate is then that of the longer run
)
# Used only if data.placement is "stream"; data.shards may also change to or from None.
_STREAM_ONLY = ("data.shuffle_window", "data.shuffle_memory", "data.shards")
# Used only if no source has open_x.
_PLAIN_ONLY = ("data.observation", "data.action", "data.delta")
# Files, which are compared by content. A source with a file does not use its sigmas.
_BOUNDS = ("data.bounds", "data.sources.*.bounds")
_EMBEDDINGS = "data.open_x.embeddings"  # in assets["data"], beside the names of the sources
_HINT = (
    "free to change are where data, bounds files and embeddings lie, prefetch, assemblers, "
    "workers, fsdp, when the run saves and logs (train.keep, keep_every, checkpoint_every, "
    "log_every, wandb), init_from, name, policy, task"
)


def write_config(config: ml_collections.ConfigDict, workdir: paths.AnyPath) -> None:
    """Writes ``config.json``, whole or not at all."""
    workdir.mkdir(parents=True, exist_ok=True)
    paths.write_text(workdir / "config.json", config.to_json_best_effort(indent=2) + "\n")


def write_problems(mixture: mixtures.Mixture, workdir: paths.AnyPath) -> None:
    """Writes ``data_problems.json``, the accepted problems of the data, if any."""
    problems = {name: counts for name, counts in mixture.problems.items() if counts}
    if problems:
        paths.write_text(workdir / "data_problems.json", json.dumps(problems, indent=2) + "\n")


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Returns a config's fields by dotted name, with tuples as lists, as in JSON."""
    if not isinstance(tree, dict):
        return {prefix[1:]: list(tree) if isinstance(tree, tuple) else tree}
    return {k: v for n, t in tree.items() for k, v in flat(t, f"{prefix}.{n}").items()}


def _matches(name, patterns):
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def is_free(name: str) -> bool:
    """Whether a field (dotted name) does not affect training."""
    return any(name == free or name.startswith(f"{free}.") for free in _FREE)


def is_place(name: str) -> bool:
    """Whether a field (dotted name) is only a place of the data."""
    return _matches(name, PATHS)


def _may_change(name, config, saved, value):
    """Whether a run may resume with another value of a field, by the tables above."""
    common = any(source.get("open_x") for source in config["data"]["sources"].values())
    unused = _PLAIN_ONLY if common else ("data.open_x.*",)
    if config["data"]["placement"] == "device":
        unused += _STREAM_ONLY
    return (
        is_free(name)
        or _matches(name, MAY_CHANGE + unused)
        # With "raise" the run had no such problem.
        or (name.startswith("data.open_x.on_problem.") and "raise" in (saved, value))
        or (_matches(name, _BOUNDS) and bool(saved) == bool(value))
        or (name == "data.shards" and None in (saved, value))  # the feed compares with the stream's
    )


def differences(saved: dict, config: dict) -> dict[str, tuple]:
    """Returns both values of fields (dotted names) whose difference keeps a run from resuming. A
    missing field has its default, so that a version that adds an option resumes older runs."""
    with_file, with_file_now = _sources_with_file(saved), _sources_with_file(config)
    shared = with_file & with_file_now
    unused = {f"data.sources.{s}.{sigma}" for s in shared for sigma in ("sigma_min", "sigma_max")}
    return {
        name: values
        for name, values in _different(saved, config).items()
        if name not in unused
        and not _may_change(name, config, *values)
        and not (with_file == with_file_now and _matches(name, _BOUNDS))
    }


def _sources_with_file(config):
    """Returns names of the sources that have a bounds file, their own or a common one."""
    common = config["data"].get("bounds")
    sources = config["data"]["sources"].items()
    return {n for n, s in sources if s.get("bounds") or (common and s.get("role") == "corrupt")}


def _different(saved, config):
    """Returns both values of all dotted names that differ; None and empty values are equal."""
    defaults = flat(config_lib.default().to_dict())
    renamed = config_lib.RENAMED
    configs = [
        {renamed.get(n, n): v for n, v in flat(json.loads(json.dumps(tree))).items()}
        for tree in (saved, config)
    ]
    different = {}
    for name in sorted(configs[0].keys() | configs[1].keys()):
        # Versions without the field never dropped a last step.
        default = "keep" if name.endswith(".last_step") else defaults.get(name)
        values = tuple(fields.get(name, default) for fields in configs)
        first, second = (None if value in ("", []) else value for value in values)
        if first != second:
            different[name] = values
    return different


def marks(mixture: mixtures.Mixture) -> dict[str, str]:
    """Returns hashes of a run's data: the sources' fingerprints and instruction embeddings."""
    return mixture.fingerprints | dict(mixture.format.marks)


def check_same(
    assets: dict,
    config: ml_collections.ConfigDict,
    mixture: mixtures.Mixture,
    workdir: paths.AnyPath,
    step: int | None = None,
) -> None:
    """Raises ValueError unless a run may resume from assets with this config and data. Logs the
    changes. ``step`` is the checkpoint's, if the run resumes from it."""
    check_config(assets["config"], config, workdir, step)
    changed = _different(assets["config"], config.to_dict())
    _check_data(assets["data"], changed, config, mixture, workdir)
    if changed and step is not None and step < config.train.steps:
        fields = ", ".join(f"{n} from {a!r} to {b!r}" for n, (a, b) in changed.items())
        logging.info("%s goes on with other fields: %s", workdir, fields)


def check_config(
    saved: dict, config: ml_collections.ConfigDict, workdir: paths.AnyPath, step: int | None = None
) -> None:
    """Raises ValueError as ``check_same``, for the configs only, before reading data."""
    different = differences(saved, config.to_dict())
    total, new_total = different.get("train.steps", (0, 0))
    if step is not None and new_total and new_total < step:
        raise ValueError(
            f"workdir {workdir} holds a run at step {step} with train.steps = {total}, this one "
            f"has {new_total}, fewer than are done: give another --workdir, or train.steps = "
            f"{total}"
        )
    if new_total > total and config.train.extend:
        del different["train.steps"]
    if not different:
        return
    # train.steps comes last: if only it differs, train.extend is another remedy.
    name, *more = sorted(different, key=lambda n: n == "train.steps")
    before, after = different[name]
    also = f" (and {', '.join(more[:4])} differ{'s' * (len(more) == 1)}, too)" if more else ""
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
    for name, mark in marks(mixture).items():
        if name == _EMBEDDINGS:
            # Runs of older versions have no hash of them: compare the path.
            if saved.get(name, "" if name in changed else mark) != mark:
                raise ValueError(
                    f"workdir {workdir} was trained with other embeddings than those of "
                    f"config.{name} = {config.data.open_x.embeddings!r}: give another --workdir, "
                    "or the old file"
                )
            continue
        before = saved.get(name, "")
        (data, _, bounds), (data_now, _, bounds_now) = before.partition("/"), mark.partition("/")
        if before == mark:
            continue
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
