"""Reads a data set in the common form, as training needs it."""

import dataclasses
import functools
import hashlib
import inspect
import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from absl import logging

from ambient_jax.data import chunk, images, rlds, storage
from ambient_jax.data.dataset import Dataset, FolderDataset
from ambient_jax.data.paths import readable
from ambient_jax.data.rlds_source import RldsSource, last_step_problems
from ambient_jax.data.source import Format, Problem, size_of
from ambient_jax.data.storage.video import Clip
from ambient_jax.open_x import camera_flags, contents, conversion, registry, standardize
from ambient_jax.open_x import spec as spec_lib
from ambient_jax.open_x.common_form import POLICIES, CommonForm

# Modules that shape an episode: a change in them makes cached statistics stale.
_CODE = (
    *("standardize", "spec", "rotations", "grippers", "resample", "camera_flags", "common_form"),
    *("conversion", "contents", "reader", "source"),
)


class OpenXFormat(Format):
    """Sources whose section has ``open_x``, all in the form of ``config.data.open_x``."""

    def __init__(self, config):
        section = config.open_x.to_dict()
        lists = {n: tuple(v) for n, v in section.items() if isinstance(v, list)}
        self.form = CommonForm(**section | lists)
        self.widths, self.steps, self.labels = self.form.widths, self.form.steps, self.form.quality
        self.workers = self.form.workers

    @property
    def marks(self):
        table = self.form.text and self.form.text.table
        return {"data.open_x.embeddings": table.digest} if table else {}

    def open(self, name, path, fields, transform=None):
        if transform is not None:
            raise ValueError(
                f"source {name!r} has open_x and a transform came, expected none: pictures and "
                "instructions would not follow it"
            )
        options = dict(last_step=fields["last_step"], name=name)
        return open_source(path, fields["split"], fields["open_x"], self.form, **options)

    def check(self, config):
        if (delta := config.get("delta")) is not None:
            raise ValueError(
                f"config.data.delta is {delta} and all sources have open_x: expected None, as "
                "their specs define which dimensions of the action are displacements"
            )

    def check_placement(self, config, observed):
        if config.placement == "device" and self.steps:
            raise ValueError(
                "config.data.placement is 'device' and config.data.open_x has cameras or "
                "instructions: set placement to 'stream', or cameras to () and instruction_bytes "
                "to 0"
            )
        if observed and not self.steps and not self.form.state_width:
            raise ValueError(
                "config.data.open_x has no state, cameras or instructions, expected something to "
                "observe"
            )


class OpenXSource(RldsSource):
    """One source in the common form; it has all attributes of ``storage.Dataset``.

    An episode's ``steps`` have ``observation/state`` [L, state_width], ``action`` [L,
    action_width] and, if the form has them, ``image_<camera>`` [L] encoded images (b"" where there
    is none) or a video's ``Clip``, ``camera_mask`` by camera [L], ``instruction`` [L] bytes and
    ``quality`` by label [L]. ``action_mask`` [action_width] and ``state_mask`` [state_width] are
    False in padding and for motions that the data set lacks.
    """

    def __init__(self, dataset: Dataset, spec: spec_lib.Spec, form: CommonForm, name: str = ""):
        super().__init__(dataset, name, ("state",) if form.state_width else ())
        self._spec, self.form = spec, form
        self.notes: list[Problem] = []
        action = standardize.action_mask(spec, dataset.features, form.rotation)
        self.action_mask = _padded(self.data.name, "action", action, form.action_width)
        rest = standardize.rest(spec, dataset.features, form.rotation)  # action of no motion
        self._rest = np.pad(rest, (0, form.action_width - len(rest)), constant_values=np.nan)
        self.displacements = ~np.isnan(self._rest)
        self.last_step = spec.last_step or "keep"
        width = standardize.state_width(spec, dataset.features) if form.state_width else 0
        self.state_mask = _padded(self.data.name, "state", np.ones(width, bool), form.state_width)
        masks = {"action": self.action_mask, "observation/state": self.state_mask}
        self.masks = {field: masks[field] for field in form.widths}
        self.bgr = {c: c in spec.bgr for c in form.cameras}
        self._hz = form.hz
        why = standardize.cannot_resample(spec)
        if form.hz not in (None, spec.hz) and why:
            self._hz = None
            self._note("rate", f"{why}: it keeps its own rate ({spec.hz or 'unknown'} Hz)")

    def __getitem__(self, index: int) -> rlds.Episode:
        return self._common(self.data[index])

    def stream(self, shard_index: int, start: int = 0) -> Iterator[tuple[int, rlds.Episode]]:
        """Yields episodes as ``Dataset.stream`` does; ``examine`` must not have refused them."""
        # Variables of a loop would keep an episode in memory until the next.
        common = lambda numbered: (numbered[0], self._common(numbered[1]))  # noqa: E731
        return map(common, self.data.stream(shard_index, start))

    def rest(self, action_dim):
        return self._rest

    def extras(self, episode):
        steps = episode["steps"]
        arrays = {
            f"{chunk.OBSERVATION}image_{c}": self._pictures(c, steps) for c in self.form.cameras
        }
        if self.form.text:
            arrays["instruction"] = steps["instruction"]
        return arrays | {f"quality/{label}": v for label, v in steps["quality"].items()}

    def extra_bytes(self, episode):
        steps, (height, width) = episode["steps"], self.form.image_size
        shown = [
            m for c, m in steps["camera_mask"].items() if isinstance(steps[f"image_{c}"], Clip)
        ]
        pictures = sum(int(mask.sum()) for mask in shown) * height * width * 3
        return size_of(steps) - steps["action"].nbytes + size_of(steps["quality"]) + pictures

    def _pictures(self, camera: str, steps: Mapping[str, Any]) -> np.ndarray:
        """Encoded images [L] as they are; of a video its pictures, decoded in one pass."""
        blobs = steps[f"image_{camera}"]
        if not isinstance(blobs, Clip):
            return blobs
        out, there = np.full(len(blobs), b"", object), np.flatnonzero(steps["camera_mask"][camera])
        try:
            pictures = blobs[there].decode(self.form.image_size) if len(there) else ()
            for step, picture in zip(there, pictures, strict=True):
                out[step] = picture
        except ValueError as error:
            self.damaged_image(f"source {self.name!r}, camera {camera}: {error}")
        return out

    def stated(self):
        return {}  # stored statistics are those of the raw data, not of the common form

    def refuse_images(self, problems):
        image = problems.get("image")
        if image and self.form.policy("image") == "raise":
            index, text = image["examples"][0]
            raise ValueError(
                f"source {self.name!r} has damaged images in {image['episodes']} episodes (episode "
                f"{index}: {text}); mend them, or set config.data.open_x.on_problem.image to "
                "'skip' or 'keep'"
            )

    def damaged_image(self, problem):
        if self.form.policy("image") != "keep":
            raise ValueError(
                f"{problem}; mend the data, or set config.data.open_x.on_problem.image to 'keep', "
                "which masks it, or 'skip', which leaves its episode out"
            )
        logging.log_first_n(logging.WARNING, "%s: it is masked", 100, problem)

    def examine(self, shard_index: int) -> Iterator[tuple[int, rlds.Episode | None, list[Problem]]]:
        """Yields the episodes of a shard with their problems; None for skipped episodes.

        Raises ValueError for a problem whose policy is "raise".
        """
        for index, episode in self._attempts(shard_index):
            if isinstance(episode, str):
                self._apply("shard", index, episode)
                yield index, None, [("shard", episode)]
            else:
                yield index, *self._examined(index, episode)

    def examined(self, position: int) -> tuple[rlds.Episode | None, list[Problem]]:
        """Returns the episode at a position with its problems; see ``examine``."""
        index = int(self.data.episode_ids[position])
        try:
            episode = self.data[position]
        except (ValueError, OSError) as error:
            self._apply("shard", index, str(error))
            return None, [("shard", str(error))]
        episode, problems = self._examined(index, episode)
        for kind, text in problems:
            self._apply(kind, index, text)
        return episode, problems

    def _attempts(self, shard_index) -> Iterator[tuple[int, rlds.Episode | str]]:
        """Yields the stored episodes of a shard, or the error of one that cannot be read."""
        count, position, previous = self.data.shard_lengths[shard_index], 0, ""
        first = int(np.sum(self.data.shard_lengths[:shard_index], dtype=np.int64))
        while position < count:
            try:
                for index, episode in self.data.stream(shard_index, position):
                    position += 1
                    yield index, episode
            except (ValueError, FileNotFoundError) as error:  # other errors are not the data's
                text = str(error)
                # A truncated file has the same error for every record behind the cut.
                unreadable = count - position if text == previous else 1
                previous = text
                for _ in range(unreadable):
                    yield int(self.data.episode_ids[first + position]), text
                    position += 1

    def _examined(self, index, episode):
        try:
            common = self._common(episode)
        except ValueError as error:
            self._apply("episode", index, str(error))
            return None, [("episode", str(error))]
        name = f"{self.data.name}, episode {index}"
        problems = list(contents.problems(self._spec, self.form, name, common["steps"]))
        problems += camera_flags.problems(self._spec, episode, self.form.cameras)
        problems += last_step_problems(episode, dropped=False)
        # A truncated or missing image is an error here. Images that are damaged inside are only
        # counted, as a training on actions does not need them; a stream raises the error.
        later = []
        if self.form.policy("image") == "raise":
            cut = images.NO_IMAGE
            later = [p for p in problems if p[0] == "image" and not any(w in p[1] for w in cut)]
        now = [p for p in problems if p not in later]
        policies = [self._apply(kind, index, text) for kind, text in now]
        return None if "skip" in policies else common, problems

    def _apply(self, kind, index, text) -> str:
        return self._policy(kind, f"{self.data.name}, episode {index}: {text}; mend it, or")

    def _note(self, kind, text):
        self._policy(kind, f"{self.data.name}: {text}; to accept it")
        self.notes.append((kind, text))

    def _policy(self, kind, text):
        """Returns the policy for a problem; raises ValueError if it is "raise"."""
        policy = self.form.policy(kind)
        if policy == "raise":
            choices = " or ".join(repr(p) for p in POLICIES[kind] if p != "raise")
            raise ValueError(f"{text} set config.data.open_x.on_problem.{kind} to {choices}")
        return policy

    def _common(self, episode) -> rlds.Episode:
        return conversion.to_common_form(episode, self._spec, self.form, self._hz)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the data, with the videos that the form shows, and of the settings that shape
        actions and steps."""
        text = f"{self.data.fingerprint} {self._conversion}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def shard_version(self, shard_index: int) -> str:
        return f"{self.data.shard_version(shard_index)} {self._conversion}"

    @functools.cached_property
    def _conversion(self) -> str:
        # A folder's name is no part of its data; that of an RLDS data set or of a row is.
        name = "" if isinstance(self.data, FolderDataset) else self._spec.name
        named = dataclasses.replace(self._spec, name=name)
        return repr((named, self._hz, self.form.rotation, self.form.action_width))

    @functools.cached_property
    def settings(self) -> str:  # type: ignore[override]
        """Hash of the rest of the form and of the code, on which statistics also depend."""
        # Decoded pictures, as of videos, wait in this size; encoded ones in any.
        size = self.form.image_size if isinstance(self.data, FolderDataset) else 0
        form = {**dataclasses.asdict(self.form), "workers": 0, "image_size": size}
        parts = [json.dumps(form, sort_keys=True, default=str)]
        table = self.form.text and self.form.text.table
        parts += sorted(table.text) if table else []
        package = __name__.rpartition(".")[0]
        parts += [inspect.getsource(sys.modules[f"{package}.{name}"]) for name in _CODE]
        parts.append(inspect.getsource(images))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def open_source(
    path: str | os.PathLike[str],
    split: str,
    row_or_spec: str | Mapping[str, Any],
    form: CommonForm,
    *,
    last_step: str = "",
    name: str = "",
) -> OpenXSource:
    """Opens a source in the common form; reads metadata only.

    Args:
      path, split: see ``storage.open_dataset``; with a registry row also the parent of versions.
      row_or_spec: name of a registry row, or the lines of a spec (``spec.parse``).
      form: the common form.
      last_step: "drop" or "keep" the action of a step with is_last. "" takes the spec's rule, or
        else the format's: RLDS defines this action as a filler, which is dropped.
      name: name of the source, for messages; "" for the data set's name.

    Raises:
      FileNotFoundError: there is no such data set, or a shard is missing.
      ValueError: the row is unknown, the spec does not fit the features, or the version differs.
    """
    row = None
    if isinstance(row_or_spec, str):
        row = registry.get(row_or_spec)
        spec = row.spec
        registry.warn_doubts([row.name])
        versioned = readable(path) / (row.version or "none")
        path = versioned if versioned.exists() else path
    else:
        spec = spec_lib.parse(dict(row_or_spec), os.path.basename(os.fspath(path).rstrip("/")))
    options: dict[str, Any] = {"decode_images": False}
    options["allow_missing"] = form.policy("shard") == "skip"
    options["last_step"] = "keep"  # the spec's rule applies later
    try:
        raw = storage.open_dataset(path, split, **options)
    except rlds.MissingShardError as error:
        raise rlds.MissingShardError(
            f"{error}, or set config.data.open_x.on_problem.shard to 'skip'"
        ) from error
    keys = standardize.check(spec, raw.features, cameras=form.cameras)
    raw = storage.open_dataset(path, split, keys=keys, **options)
    last_step = last_step or spec.last_step or ("drop" if raw.ends_in_filler else "keep")
    spec = dataclasses.replace(spec, last_step=last_step, hz=spec.hz or raw.hz)
    if not row:  # the fingerprint needs the name of the data, wherever they are stored
        spec = dataclasses.replace(spec, name=raw.name)
    dataset = OpenXSource(raw, spec, form, name)
    if row and row.version and raw.version != row.version:
        dataset._note(
            "version",
            f"{raw.directory} has version {raw.version}, the registry describes {row.version}, "
            "whose fields may differ",
        )
    return dataset


def _padded(name, field, mask, width):
    if len(mask) > width:
        raise ValueError(
            f"{name} has {field}s of {len(mask)} numbers, config.data.open_x.{field}_width is "
            f"{width}: raise it{', or set it to 0 for none' if field == 'state' else ''}"
        )
    return np.pad(mask, (0, width - len(mask)))
