"""A data set in the common form, as training reads it: an RLDS folder and how to read it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import PIL.Image
from absl import logging
from etils import epath

from ambient_jax.data import chunk, images, rlds
from ambient_jax.data.paths import expanded
from ambient_jax.data.rlds_source import RldsSource, last_step_problems
from ambient_jax.data.source import Format, Problem, size_of
from ambient_jax.open_x import camera_flags, registry, standardize
from ambient_jax.open_x import spec as spec_lib
from ambient_jax.open_x.common_form import POLICIES, CommonForm

# What shapes an episode: a change there makes cached statistics stale.
_CODE = (
    *("standardize", "spec", "rotations", "grippers", "resample", "camera_flags", "common_form"),
    *("reader", "source"),
)


class OpenXFormat(Format):
    """Sources whose section has ``open_x``, all in the form of ``config.data.open_x``."""

    def __init__(self, config):
        section = config.open_x.to_dict()
        for name in ("cameras", "quality"):
            if isinstance(section[name], list):
                section[name] = tuple(section[name])
        self.form = CommonForm(**section)
        self.widths, self.steps, self.labels = self.form.widths, self.form.steps, self.form.quality
        self.workers = self.form.workers

    @property
    def marks(self):
        table = self.form.text and self.form.text.table
        return {"data.open_x.embeddings": table.digest} if table else {}

    def open(self, name, path, fields, transform=None):
        given, last = fields["open_x"], fields["last_step"]
        source = open_source(path, fields["split"], given, self.form, last_step=last, name=name)
        source.transform = transform
        return source

    def check(self, config):
        if (delta := config.get("delta")) is not None:
            raise ValueError(
                f"config.data.delta is {delta} and all sources have open_x: expected None, as the "
                "actions of their specs say themselves what is a displacement"
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
    """One source in the common form; has all that ``rlds.RldsDataset`` has.

    An episode's ``steps`` have ``observation/state`` [L, state_width], ``action`` [L,
    action_width] and, as loaders need them, ``image_<camera>`` [L] encoded images (b"" where there
    is none), ``instruction`` [L] bytes and ``quality`` by label [L].

    Attributes:
      form: the common form.
      action_mask: [action_width] bool, False: padding, or a motion that the data set does not have.
      state_mask: [state_width] bool.
    """

    def __init__(
        self, dataset: rlds.RldsDataset, spec: spec_lib.Spec, form: CommonForm, name: str = ""
    ):
        super().__init__(dataset, name, ("state",) if form.state_width else ())
        self._spec, self.form = spec, form
        self.notes: list[Problem] = []
        action = standardize.action_mask(spec, dataset.features, form.rotation)
        self.action_mask = _padded(self.data.name, "action", action, form.action_width)
        rest = standardize.rest(spec, dataset.features, form.rotation)
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
        """See ``RldsDataset.stream``; of episodes that ``examine`` did not refuse."""
        return map(self._numbered_common, self.data.stream(shard_index, start))

    def rest(self, action_dim):
        return self._rest

    def extras(self, episode):
        steps = episode["steps"]
        arrays = {f"{chunk.OBSERVATION}image_{c}": steps[f"image_{c}"] for c in self.form.cameras}
        if self.form.text:
            arrays["instruction"] = steps["instruction"]
        return arrays | {f"quality/{label}": v for label, v in steps["quality"].items()}

    def extra_bytes(self, episode):
        return size_of(episode["steps"])

    def refuse_images(self, problems):
        found = problems.get("image")
        if found and self.form.policy("image") == "raise":
            index, text = found["examples"][0]
            raise ValueError(
                f"source {self.name!r} has damaged images in {found['episodes']} episodes (episode "
                f"{index}: {text}); mend them, or set config.data.open_x.on_problem.image to "
                "'skip' or 'keep'"
            )

    def damaged_image(self, what):
        if self.form.policy("image") != "keep":
            raise ValueError(
                f"{what}; mend the data, or set config.data.open_x.on_problem.image to 'keep', "
                "which masks it, or 'skip', which leaves its episode out"
            )
        logging.log_first_n(logging.WARNING, "%s: it is masked", 100, what)

    def _numbered_common(self, numbered):
        index, episode = numbered
        return index, self._common(episode)

    def examine(self, shard_index: int) -> Iterator[tuple[int, rlds.Episode | None, list[Problem]]]:
        """Episodes of one shard with their problems; None for those that policies leave out.

        Raises:
          ValueError: a problem whose policy is "raise".
        """
        for index, episode in self._attempts(shard_index):
            if isinstance(episode, str):
                self._apply("shard", index, episode)
                yield index, None, [("shard", episode)]
            else:
                yield index, *self._examined(index, episode)

    def examined(self, position: int) -> tuple[rlds.Episode | None, list[Problem]]:
        """The episode at a position with its problems; None if policies leave it out.

        Raises:
          ValueError: a problem whose policy is "raise".
        """
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
        """Episodes of one shard as stored; in place of one that cannot be read, the reason."""
        count, position, previous = self.data.shard_lengths[shard_index], 0, ""
        first = int(np.sum(self.data.shard_lengths[:shard_index], dtype=np.int64))
        while position < count:
            try:
                for index, episode in self.data.stream(shard_index, position):
                    position += 1
                    yield index, episode
            except (ValueError, FileNotFoundError) as error:  # other faults are the machine's
                text = str(error)
                # A truncated file says the same of every record behind the cut.
                rest = count - position if text == previous else 1
                previous = text
                for _ in range(rest):
                    yield int(self.data.episode_ids[first + position]), text
                    position += 1

    def _examined(self, index, episode):
        try:
            common = self._common(episode)
        except ValueError as error:
            self._apply("episode", index, str(error))
            return None, [("episode", str(error))]
        steps, problems = common["steps"], []
        skips = self.form.policy("image") == "skip"
        look = images.cannot_be_decoded if skips else images.looks_whole
        for camera in self.form.cameras:
            blobs = steps[f"image_{camera}"]
            absent = sum(not blob for blob in blobs)
            if camera in self._spec.cameras and absent:
                problems.append(("camera", f"{camera} is absent in {absent} of {len(blobs)} steps"))
            for step, blob in enumerate(blobs):
                if why := look(blob):
                    problems.append(("image", f"{camera} at step {step}: {why}"))
                    break
        if self.form.text:
            problems += self._instructions(index, steps["instruction"])
        problems += camera_flags.problems(self._spec, episode, self.form.cameras)
        problems += last_step_problems(episode, dropped=False)
        # What is cut or no image is fatal here. Images that are damaged inside are counted to the
        # last, for whom actions alone will do, and are fatal when a stream begins (``pipeline``).
        later = [p for p in problems if p[0] == "image" and not _cut(p[1])]
        later = later if self.form.policy("image") == "raise" else []
        now = [p for p in problems if p not in later]
        dropped = [self._apply(kind, index, text) == "skip" for kind, text in now]
        return None if any(dropped) else common, problems

    def _instructions(self, index, texts):
        empty = sum(not text.strip() for text in texts)
        if empty:
            yield "instruction", f"empty in {empty} of {len(texts)} steps"
        for text in set(texts):
            if self.form.text.table:
                try:
                    self.form.text.table.look_up([text])
                except ValueError as error:
                    if self.form.policy("instruction") != "skip":
                        raise ValueError(f"{self.data.name}, episode {index}: {error}") from error
                    yield "instruction", str(error)
            elif len(text) > self.form.instruction_bytes:
                length = self.form.instruction_bytes
                yield "instruction", f"{text!r} has {len(text)} bytes, over {length}: it is cut"

    def _apply(self, kind, index, text) -> str:
        policy = self.form.policy(kind)
        if policy == "raise":
            others = " or ".join(repr(p) for p in POLICIES[kind] if p != "raise")
            raise ValueError(
                f"{self.data.name}, episode {index}: {text}; mend it, or set "
                f"config.data.open_x.on_problem.{kind} to {others}"
            )
        return policy

    def _note(self, kind, text):
        if self.form.policy(kind) == "raise":
            raise ValueError(
                f"{self.data.name}: {text}; to accept it set "
                f"config.data.open_x.on_problem.{kind} to 'keep'"
            )
        self.notes.append((kind, text))

    def _common(self, episode) -> rlds.Episode:
        form = self.form
        found = standardize.standardise(
            self._spec, episode, hz=self._hz, rotation=form.rotation, cameras=form.cameras
        )["steps"]
        length = len(found["action"])
        steps = {
            "action": _widened(found["action"], form.action_width),
            "observation": {},
            "quality": {
                label: found["quality"].get(label, np.full(length, np.nan, np.float32))
                for label in form.quality
            },
        }
        if form.state_width:
            state = found["observation"].get("state", np.zeros((length, 0), np.float32))
            steps["observation"]["state"] = _widened(state, form.state_width)
        if form.text:
            steps["instruction"] = found["language_instruction"]
        for camera in form.cameras:
            there = found["camera_mask"][camera]
            blobs = found["observation"].get(f"image_{camera}", there)
            steps[f"image_{camera}"] = _encoded(blobs, there, self.bgr[camera])
        return {"steps": steps}

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the data and of what makes their actions and steps; see ``RldsDataset``."""
        spec = repr((self._spec, self._hz, self.form.rotation, self.form.action_width))
        return hashlib.sha256(f"{self.data.fingerprint} {spec}".encode()).hexdigest()[:32]

    @functools.cached_property
    def settings(self) -> str:  # type: ignore[override]
        """Hash of what else statistics depend on: the rest of the form, and the code."""
        form = {**dataclasses.asdict(self.form), "workers": 0, "image_size": 0}
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
    given: str | Mapping[str, Any],
    form: CommonForm,
    *,
    last_step: str = "",
    name: str = "",
) -> OpenXSource:
    """Opens a source in the common form; reads metadata only.

    Args:
      path: see ``rlds.open_dataset``; with a registry row also the parent of its versions.
      split: see ``rlds.open_dataset``.
      given: name of a registry row, or the lines of a spec (``spec.parse``).
      form: the common form.
      last_step: "drop" or "keep" the action of a step with is_last; "" for what the spec says, and
        "drop" where it says nothing: that is what RLDS defines.
      name: of the source, for messages; "" for the data set's.

    Raises:
      FileNotFoundError: no such data set, or a shard is missing and its policy is "raise".
      ValueError: an unknown row, a spec that does not fit the features, another version.
    """
    row = None
    if isinstance(given, str):
        row = registry.get(given)
        spec = row.spec
        registry.warn_doubts([row.name])
        versioned = epath.Path(expanded(path)) / (row.version or "none")
        path = versioned if versioned.exists() else path
    else:
        spec = spec_lib.parse(dict(given), os.path.basename(os.fspath(path).rstrip("/")))
    spec = dataclasses.replace(spec, last_step=last_step or spec.last_step or "drop")
    missing = form.policy("shard") == "skip"
    try:
        raw = rlds.open_dataset(path, split, decode_images=False, allow_missing=missing)
    except rlds.MissingShardError as error:
        raise rlds.MissingShardError(
            f"{error}, or set config.data.open_x.on_problem.shard to 'skip'"
        ) from error
    keys = standardize.check(spec, raw.features, cameras=form.cameras)
    raw = rlds.open_dataset(path, split, keys=keys, decode_images=False, allow_missing=missing)
    if not row:  # the name is part of the fingerprint: that of the data, wherever they lie
        spec = dataclasses.replace(spec, name=raw.name)
    dataset = OpenXSource(raw, spec, form, name)
    if row and row.version and raw.version != row.version:
        dataset._note(
            "version",
            f"{raw.directory} has version {raw.version}, the registry describes {row.version}, "
            "whose fields may differ",
        )
    return dataset


def _cut(text):
    return any(why in text for why in images.NO_IMAGE)


def _padded(name, what, mask, width):
    if len(mask) > width:
        raise ValueError(
            f"{name} has {what}s of {len(mask)} numbers, config.data.open_x.{what}_width is "
            f"{width}: raise it{', or set it to 0 for none' if what == 'state' else ''}"
        )
    return np.pad(mask, (0, width - len(mask)))


def _widened(values, width):
    return np.pad(values, ((0, 0), (0, width - values.shape[1])))


def _encoded(blobs, there, bgr):
    """Encoded images [L], b"" where there is none; arrays are encoded, as they were stored."""
    out = np.full(len(there), b"", object)
    for step in np.flatnonzero(there):
        blob = blobs[step]
        out[step] = blob if isinstance(blob, bytes) else _png(blob[..., ::-1] if bgr else blob)
    return out


def _png(image):
    file = io.BytesIO()
    PIL.Image.fromarray(np.ascontiguousarray(image)).save(file, "PNG", compress_level=1)
    return file.getvalue()
