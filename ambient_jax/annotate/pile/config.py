"""Makes a training config from folders of clean data and of a pile, without a config file."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import ml_collections
import numpy as np

from ambient_jax.data import storage
from ambient_jax.data.dataset import Dataset
from ambient_jax.data.features import Leaf, leaves
from ambient_jax.data.look.command import opened
from ambient_jax.data.paths import expanded
from ambient_jax.train import config as train_config

_WIDEST = 128  # numbers of an observation that is taken unasked: embeddings are wider
_HORIZON = 16


@dataclasses.dataclass(frozen=True)
class Request:
    """What a command line asks for.

    Attributes:
      clean, pile: folders; one may end with a split of its own, as in "data/play:train[20:]".
      workdir: folder of the results; "" for runs/annotate/<name of the first folder of the pile>.
      split: of every other data set.
      action, observation: names under steps, and under steps/observation; empty: found.
      delta: dimensions of the action that are displacements.
      horizon: actions of a chunk; 0: found.
      steps, batch_size: of a candidate's training; 0: the defaults.
      width: channels of the network's first level, a multiple of 8.
      quick: a rough answer, in a tenth of the time.
      seed: of training and bootstrap.
    """

    clean: tuple[str, ...]
    pile: tuple[str, ...]
    workdir: str = ""
    split: str = "train"
    action: str = ""
    observation: tuple[str, ...] = ()
    delta: tuple[int, ...] = ()
    horizon: int = 0
    steps: int = 0
    batch_size: int = 0
    width: int = 64
    quick: bool = False
    seed: int = 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (--help lists the flags)")


def parse(arguments: Sequence[str]) -> Request:
    """Reads a command line. Raises ValueError with one line about a wrong one."""
    made = _Parser(
        prog="python -m ambient_jax.annotate",
        description="Reports what a pile of data is worth beside clean data: which data sets help, "
        "at which noise levels, and which episodes look broken. Writes report.html and a config.",
        epilog="Stopped at any moment, the same command carries on.",
    )
    many: dict[str, Any] = dict(action="append", required=True, metavar="DIR[:SPLIT]")
    made.add_argument("--clean", **many, help="good demonstrations: a folder, any format")
    made.add_argument("--pile", **many, help="data of unknown worth; give it repeatedly")
    made.add_argument("--workdir", default="", help="default: runs/annotate/<name of the pile>")
    made.add_argument("--split", default="train", help="such as train or 'train[:100]'")
    made.add_argument("--action", default="", help="name under steps; default: found")
    made.add_argument("--observation", default="", help="names under observation, by commas")
    made.add_argument("--delta", default="", help="action dimensions that are displacements: 0,1,2")
    made.add_argument("--horizon", type=int, default=0, help=f"actions of a chunk, {_HORIZON}")
    made.add_argument("--steps", type=int, default=0, help="training steps of each candidate")
    made.add_argument("--batch_size", type=int, default=0, help="chunks of a training step")
    made.add_argument("--width", type=int, default=64, help="channels of the network, 8, 16, ...")
    made.add_argument("--quick", action="store_true", help="a rough answer, ten times as fast")
    made.add_argument("--seed", type=int, default=0)
    given = vars(made.parse_args(arguments))
    for name in ("horizon", "steps", "batch_size", "seed"):
        if given[name] < 0:
            raise ValueError(f"--{name} is {given[name]}, expected at least 0")
    if given["width"] < 8 or given["width"] % 8:
        raise ValueError(f"--width is {given['width']}, expected a multiple of 8, such as 64")
    texts = {n: [p.strip() for p in given[n].split(",") if p.strip()] for n in _LISTS}
    if wrong := [p for p in texts["delta"] if not p.isdecimal()]:
        raise ValueError(f"--delta has {wrong[0]!r}, expected numbers of dimensions, such as 0,1,2")
    given |= {"observation": tuple(texts["observation"])}
    given |= {"delta": tuple(map(int, texts["delta"]))}
    return Request(**given | {n: tuple(given[n]) for n in ("clean", "pile")})


_LISTS = ("observation", "delta")


def open_all(request: Request) -> tuple[dict[str, Dataset], tuple[str, ...]]:
    """Opens the data sets; reads no episode.

    Returns:
      The data sets by a short name of their own, the clean ones first, and the clean ones' names.
    """
    found: dict[str, Dataset] = {}
    for given in (*request.clean, *request.pile):
        path, split = _with_split(given, request.split)
        dataset = opened(path, split)
        if not len(dataset):
            raise ValueError(f"{given} has no episode in the split {split!r}, expected at least 1")
        for other in found.values():
            shared = other.directory == dataset.directory
            shared = shared and np.intersect1d(other.episode_ids, dataset.episode_ids).size > 0
            if shared or other.fingerprint == dataset.fingerprint:
                raise ValueError(
                    f"{given} has episodes of {other.directory} that were given before: give every "
                    "episode once, as --clean or as --pile (a part is 'DIR:train[:20]')"
                )
        found[_name(dataset.name, found)] = dataset
    return found, tuple(found)[: len(request.clean)]


def _with_split(given: str, split: str) -> tuple[str, str]:
    """The folder and the split of "DIR" or "DIR:train[:20]"."""
    match = re.fullmatch(r"(?P<path>.+):(?P<split>\w+(\[[^/\]]*\])?)", given)
    if match and not os.path.exists(expanded(given)):
        given, split = match["path"], match["split"]
    return given if "://" in given else os.path.abspath(expanded(given)), split


def _name(name: str, taken: Mapping[str, Dataset]) -> str:
    """A name that is a plain word and no name of a fold (``good_0``) or of a dict's method."""
    word = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_") or "data"
    word = re.sub(r"_(\d+)$", r"\1", word)
    word = f"set_{word}" if word[0].isdigit() or hasattr(ml_collections.ConfigDict, word) else word
    number, unique = 1, word
    while unique in taken:
        number += 1
        unique = f"{word}_no{number}"
    return unique


def fields(
    datasets: Mapping[str, Dataset], action: str = "", observation: Sequence[str] = ()
) -> tuple[str, tuple[str, ...]]:
    """Returns the names of the action and of the observations that all data sets have.

    Named ones are checked. Unnamed, the action is ``action`` or the only other field with that word
    in its name, and the observations are all vectors of at most 128 numbers.

    Raises:
      ValueError: the data sets do not agree; one line says which and what to do.
    """
    numbers = {name: _numbers(dataset) for name, dataset in datasets.items()}
    acts = {n: {p: s for p, s in own.items() if not _is_observed(p)} for n, own in numbers.items()}
    if not action:
        action = _found_action(acts)
    _same(f"steps/{action}", acts, "--action")
    seen = {
        n: {p.removeprefix("observation/"): s for p, s in own.items() if _is_observed(p)}
        for n, own in numbers.items()
    }
    if not observation:
        first, *others = seen.values()
        same = [p for p in first if all(o.get(p) == first[p] for o in others)]
        observation = sorted(p for p in same if first[p] <= _WIDEST)
        if not observation:
            raise ValueError(
                f"no vector under steps/observation is the same in all data sets ({_listed(seen)}):"
                " bring them to one form (docs/data.md), or give --observation="
            )
    for name in observation:
        _same(f"steps/observation/{name}", seen, "--observation")
    return action, tuple(observation)


def _is_observed(path):
    return path.startswith("observation/")


def _numbers(dataset: Dataset) -> dict[str, int]:
    """Sizes of the fields of a step that are numbers of fixed size, by path under steps."""
    found = {}
    for path, leaf in leaves(dataset.features).items():
        if path.startswith("steps/") and _is_vector(leaf):
            found[path.removeprefix("steps/")] = math.prod(size or 0 for size in leaf.shape)
    return found


def _is_vector(leaf: Leaf) -> bool:
    fixed = leaf.kind in ("tensor", "packed") and not leaf.rows and None not in leaf.shape
    return fixed and np.dtype(leaf.dtype).kind in "fiu"


def _found_action(acts: Mapping[str, Mapping[str, int]]) -> str:
    everywhere = [p for p in next(iter(acts.values())) if all(p in own for own in acts.values())]
    likely = sorted(p for p in everywhere if "action" in p.lower())
    if "action" in likely:
        return "action"
    if len(likely) == 1:
        return likely[0]
    if likely:
        raise ValueError(f"the action may be any of {', '.join(likely)}: name it by --action=")
    raise ValueError(
        f"the data sets share no field that is called action ({_listed(acts)}): name one by "
        "--action=, or bring them to one form (docs/data.md)"
    )


def _same(path: str, sizes: Mapping[str, Mapping[str, int]], flag: str) -> None:
    """Raises ValueError unless all data sets have the field, in one size."""
    field = path.removeprefix("steps/").removeprefix("observation/")
    (first, own), *others = sizes.items()
    for name, fields_of in sizes.items():
        if field not in fields_of:
            raise ValueError(
                f"data set {name!r} has no numbers {path}, it has {', '.join(fields_of) or 'none'}:"
                f" name a field that all have by {flag}="
            )
    for name, fields_of in others:
        if fields_of[field] != own[field]:
            raise ValueError(
                f"{path} has {own[field]} numbers in data set {first!r} and {fields_of[field]} in "
                f"{name!r}: choose another by {flag}=, or bring them to one form (docs/data.md)"
            )


def _listed(sizes: Mapping[str, Mapping[str, int]]) -> str:
    parts = []
    for name, own in sizes.items():
        parts.append(f"{name}: {', '.join(f'{p} [{s}]' for p, s in own.items()) or 'none'}")
    return "; ".join(parts)


def make(
    request: Request, datasets: Mapping[str, Dataset], clean: Sequence[str]
) -> ml_collections.ConfigDict:
    """Returns the config of a training run on clean data and pile, a small network's.

    Raises:
      ValueError: the data sets do not agree, or a value that no training run can have.
    """
    action, observation = fields(datasets, request.action, request.observation)
    config = train_config.default()
    config.name, config.seed = "pile", request.seed
    for name, dataset in datasets.items():
        role = "clean" if name in clean else "corrupt"
        config.data.sources[name] = train_config.source(
            dataset.directory, role, split=dataset.split
        )
    config.data.action, config.data.observation = action, observation
    config.data.delta = request.delta
    config.data.horizon = request.horizon or _HORIZON
    config.policy.execute = min(config.policy.execute, config.data.horizon)
    config.model = ml_collections.ConfigDict(
        {
            "name": "unet",
            "features": (request.width, 2 * request.width),
            "blocks": 1,
            "embed_dim": 2 * request.width,
            "encoder": {"frequencies": 0, "width": 2 * request.width, "depth": 2},
        }
    )
    config.objective.prediction = "v"
    # Low noise levels matter, too: it is there that data of less quality differ.
    config.schedule = ml_collections.ConfigDict({"name": "edm", "p_mean": -0.6, "p_std": 1.6})
    steps = request.steps or (400 if request.quick else 4000)
    config.train.update(dict(steps=steps, batch_size=request.batch_size or 64))
    config.train.update(
        dict(warmup=min(100, steps // 10), learning_rate=2e-3, log_every=min(100, steps))
    )
    config.train.checkpoint_every = max(1, min(1000, steps // 4))
    config.policy.solver, config.policy.steps = "ddim", 16
    train_config.check(config)
    return config


def is_lerobot(dataset: Dataset) -> bool:
    """Whether LeRobot itself reads the data set."""
    return isinstance(dataset, storage.lerobot.LeRobotDataset)
