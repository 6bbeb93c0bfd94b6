"""A data set in the common form, as training reads it: an RLDS folder and how to read it.

Problems of the data are found in one pass, before training (``examine``): each is of a kind, and
for each kind the configuration says what is done about it. Nothing is dropped unsaid.

================  ===============================================  ==================
kind              what                                             policies
================  ===============================================  ==================
``version``       another version than the registry describes      raise, keep
``rate``          the control rate is unknown or cannot be changed  raise, keep
``shard``         a file is missing, truncated or corrupt          raise, skip
``episode``       a field is missing or not finite, a gripper out   raise, skip
                  of range, too few steps
``image``         an image is damaged, or none that is decoded      raise, skip, keep
``camera``        a camera is not there, in all or some steps       raise, skip, keep
``instruction``   no instruction, or one too long; no embedding     raise, skip, keep
``flag``          a camera's flag says that it is not there and     raise, skip, keep
                  pictures are, or that it is and they are blank
``last_step``     ``is_last`` in the middle of an episode           raise, skip, keep
================  ===============================================  ==========="""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
from absl import logging
from etils import epath

from ambient_jax import _checks
from ambient_jax.data import image_checks, instructions, last_step, rlds
from ambient_jax.data.paths import expanded
from ambient_jax.open_x import camera_flags, registry, standardize
from ambient_jax.open_x import spec as spec_lib

POLICIES = {
    "version": ("raise", "keep"),
    "rate": ("raise", "keep"),
    "shard": ("raise", "skip"),
    "episode": ("raise", "skip"),
    "image": ("raise", "skip", "keep"),
    "camera": ("raise", "skip", "keep"),
    "instruction": ("raise", "skip", "keep"),
    "flag": ("raise", "skip", "keep"),
    "last_step": ("raise", "skip", "keep"),
}
# What shapes an episode beyond this file: a change there makes cached statistics stale.
_CODE = ("standardize", "spec", "rotations", "grippers", "resample", "camera_flags", "dataset")
Problem = tuple[str, str]
# Above these a number is a slip of the hand: Hz, bytes, numbers of a step, processes, pixels.
_MOST = {"hz": 10_000, "instruction_bytes": 65_536, "action_width": 10_000, "state_width": 10_000}
_MOST |= {"workers": 1024, "side": 16_384}


@dataclasses.dataclass(frozen=True)
class CommonForm:
    """What all sources are brought to; the section ``config.data.open_x``.

    Attributes:
      hz: control rate; None keeps each source's own.
      rotation: of the action, see ``standardize.standardise``.
      cameras: of "primary", "secondary" and "wrist"; none for actions alone.
      image_size: (height, width) that images are resized to.
      instruction_bytes: L of the instructions as bytes, 0 for none.
      embeddings: .npz file of instruction embeddings, in place of the bytes.
      action_width, state_width: numbers that actions and states are padded to with zeros;
        state_width 0 leaves states out.
      quality: labels carried into the batch; NaN where a source has no such label.
      workers: threads that decode images, on each host; 0 for none.
      on_problem: policy by kind, see the module.
    """

    hz: float | None = None
    rotation: str = "rpy"
    cameras: tuple[str, ...] = ()
    image_size: tuple[int, int] = (224, 224)
    instruction_bytes: int = 0
    embeddings: str = ""
    action_width: int = 7
    state_width: int = 8
    quality: tuple[str, ...] = ()
    workers: int = 1
    on_problem: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for kind, policy in self.on_problem.items():
            _checks.one_of("field of config.data.open_x.on_problem", kind, POLICIES)
            _checks.one_of(f"config.data.open_x.on_problem.{kind}", policy, POLICIES[kind])
        for name in ("cameras", "quality"):
            _checks.names(f"config.data.open_x.{name}", getattr(self, name))
        for camera in self.cameras:
            _checks.one_of("config.data.open_x.cameras", camera, spec_lib.CAMERAS)
        _checks.one_of("config.data.open_x.rotation", self.rotation, standardize.OUTPUT_ROTATIONS)
        if self.hz is not None:
            _checks.number("config.data.open_x.hz", self.hz, 0, _MOST["hz"], above=True)
        for name in ("instruction_bytes", "action_width", "state_width", "workers"):
            least = 1 if name == "action_width" else 0
            limits = least, _MOST[name]
            _checks.number(f"config.data.open_x.{name}", getattr(self, name), *limits, whole=True)
        size = self.image_size
        if not isinstance(size, tuple | list) or len(size) != 2:
            raise ValueError(
                f"config.data.open_x.image_size is {size!r}, expected (height, width) in pixels"
            )
        for side in size:
            limits = 1, _MOST["side"]
            _checks.number("a side of config.data.open_x.image_size", side, *limits, whole=True)

    def policy(self, kind: str) -> str:
        return self.on_problem.get(kind, POLICIES[kind][0])

    @functools.cached_property
    def table(self) -> instructions.InstructionTable | None:
        """Embeddings of the instructions, if they come from a file."""
        return instructions.load_instructions(self.embeddings) if self.embeddings else None

    @property
    def instruction_width(self) -> int:
        """Bytes or numbers of an instruction in a batch; 0 where there are none."""
        return self.table.embedding.shape[1] if self.table else self.instruction_bytes

    def encode(self, texts: Sequence[str | bytes]) -> np.ndarray:
        """Instructions as bytes [B, L] uint8 or embeddings [B, E] float32."""
        texts = instructions.as_texts(texts, 1 if isinstance(texts, str | bytes) else len(texts))
        if self.table:
            return self.table.look_up(texts)
        texts = [t.encode() if isinstance(t, str) else t for t in texts]
        texts = [t.replace(b"\0", b" ") for t in texts]
        return instructions.encode_bytes(texts, self.instruction_bytes, on_long="truncate")


class OpenXDataset:
    """One source in the common form; speaks what `rlds.RldsDataset` speaks.

    An episode's ``steps`` have ``observation/state`` [L, state_width], ``action`` [L,
    action_width] and, as loaders need them, ``image_<camera>`` [L] encoded images (b"" where there
    is none), ``instruction`` [L] bytes and ``quality`` by label [L].

    Attributes:
      action_mask: [action_width] bool, False: padding, or a motion that the data set does not have.
      state_mask: [state_width] bool.
      rest: [action_width], see ``standardize.rest``.
      last_step: "drop" or "keep", of the spec.
      bgr: by camera, whether its encoded images have blue first.
      notes: problems of the data set as a whole, which its policies keep.
    """

    def __init__(self, dataset: rlds.RldsDataset, spec: spec_lib.Spec, form: CommonForm):
        self._raw, self._spec, self.form = dataset, spec, form
        self.notes: list[Problem] = []
        action = standardize.action_mask(spec, dataset.features, form.rotation)
        self.action_mask = _padded(self.name, "action", action, form.action_width)
        rest = standardize.rest(spec, dataset.features, form.rotation)
        self.rest = np.pad(rest, (0, form.action_width - len(rest)), constant_values=np.nan)
        self.last_step = spec.last_step or "keep"
        width = standardize.state_width(spec, dataset.features) if form.state_width else 0
        self.state_mask = _padded(self.name, "state", np.ones(width, bool), form.state_width)
        self.bgr = {c: c in spec.bgr for c in form.cameras}
        self._hz = form.hz
        why = standardize.cannot_resample(spec)
        if form.hz not in (None, spec.hz) and why:
            self._hz = None
            self._note("rate", f"{why}: it keeps its own rate ({spec.hz or 'unknown'} Hz)")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # while it is unpickled there is no _raw yet
            raise AttributeError(name)
        return getattr(self._raw, name)

    def __len__(self) -> int:
        return len(self._raw)

    def __getitem__(self, index: int) -> rlds.Episode:
        return self._common(self._raw[index])

    def stream(self, shard_index: int, start: int = 0) -> Iterator[tuple[int, rlds.Episode]]:
        """See ``RldsDataset.stream``; of episodes that ``examine`` did not refuse."""
        return map(self._numbered_common, self._raw.stream(shard_index, start))

    def _numbered_common(self, numbered):
        index, episode = numbered
        return index, self._common(episode)

    def examine(self, shard_index: int) -> Iterator[tuple[int, rlds.Episode | None, list[Problem]]]:
        """Episodes of one shard with their problems; None for those that policies leave out.

        Raises:
          ValueError: a problem whose policy is "raise".
        """
        for index, found in self._attempts(shard_index):
            if isinstance(found, str):
                self._apply("shard", index, found)
                yield index, None, [("shard", found)]
            else:
                yield index, *self._examined(index, found)

    def examined(self, position: int) -> tuple[rlds.Episode | None, list[Problem]]:
        """The episode at a position with its problems; None if policies leave it out.

        Raises:
          ValueError: a problem whose policy is "raise".
        """
        index = int(self._raw.episode_ids[position])
        try:
            episode = self._raw[position]
        except (ValueError, OSError) as error:
            self._apply("shard", index, str(error))
            return None, [("shard", str(error))]
        episode, problems = self._examined(index, episode)
        for kind, told in problems:
            self._apply(kind, index, told)
        return episode, problems

    def _attempts(self, shard_index) -> Iterator[tuple[int, rlds.Episode | str]]:
        """Episodes of one shard as stored; in place of one that cannot be read, the reason."""
        count, position, previous = self._raw.shard_lengths[shard_index], 0, ""
        first = int(np.sum(self._raw.shard_lengths[:shard_index], dtype=np.int64))
        while position < count:
            try:
                for index, episode in self._raw.stream(shard_index, position):
                    position += 1
                    yield index, episode
            except (ValueError, FileNotFoundError) as error:  # other faults are the machine's
                told = str(error)
                # A truncated file says the same of every record behind the cut.
                rest = count - position if told == previous else 1
                previous = told
                for _ in range(rest):
                    yield int(self._raw.episode_ids[first + position]), told
                    position += 1

    def _examined(self, index, episode):
        try:
            common = self._common(episode)
        except ValueError as error:
            self._apply("episode", index, str(error))
            return None, [("episode", str(error))]
        steps, problems = common["steps"], []
        skips = self.form.policy("image") == "skip"
        look = image_checks.cannot_be_decoded if skips else image_checks.looks_whole
        for camera in self.form.cameras:
            blobs = steps[f"image_{camera}"]
            absent = sum(not blob for blob in blobs)
            if camera in self._spec.cameras and absent:
                problems.append(("camera", f"{camera} is absent in {absent} of {len(blobs)} steps"))
            for step, blob in enumerate(blobs):
                if why := look(blob):
                    problems.append(("image", f"{camera} at step {step}: {why}"))
                    break
        if self.form.instruction_width:
            problems += self._instructions(index, steps["instruction"])
        problems += camera_flags.problems(self._spec, episode, self.form.cameras)
        flags = np.ravel(episode["steps"].get("is_last", ())).astype(bool)
        problems += last_step.problems(flags[:-1])
        # What is cut or no image is fatal here. Images that are damaged inside are counted to the
        # last, for whom actions alone will do, and are fatal when a stream begins (``pipeline``).
        later = [p for p in problems if p[0] == "image" and not _cut(p[1])]
        later = later if self.form.policy("image") == "raise" else []
        now = [p for p in problems if p not in later]
        dropped = [self._apply(kind, index, told) == "skip" for kind, told in now]
        return None if any(dropped) else common, problems

    def _instructions(self, index, texts):
        empty = sum(not text.strip() for text in texts)
        if empty:
            yield "instruction", f"empty in {empty} of {len(texts)} steps"
        for text in set(texts):
            if self.form.table:
                try:
                    self.form.table.look_up([text])
                except ValueError as error:
                    if self.form.policy("instruction") != "skip":
                        raise ValueError(f"{self.name}, episode {index}: {error}") from error
                    yield "instruction", str(error)
            elif len(text) > self.form.instruction_bytes:
                length = self.form.instruction_bytes
                yield "instruction", f"{text!r} has {len(text)} bytes, over {length}: it is cut"

    def _apply(self, kind, index, told) -> str:
        policy = self.form.policy(kind)
        if policy == "raise":
            others = " or ".join(repr(p) for p in POLICIES[kind] if p != "raise")
            raise ValueError(
                f"{self.name}, episode {index}: {told}; mend it, or set "
                f"config.data.open_x.on_problem.{kind} to {others}"
            )
        return policy

    def _note(self, kind, told):
        if self.form.policy(kind) == "raise":
            raise ValueError(
                f"{self.name}: {told}; to accept it set config.data.open_x.on_problem.{kind} to "
                "'keep'"
            )
        self.notes.append((kind, told))

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
        if form.instruction_width:
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
        return hashlib.sha256(f"{self._raw.fingerprint} {spec}".encode()).hexdigest()[:32]

    @functools.cached_property
    def settings(self) -> str:
        """Hash of all else that statistics hang on: the rest of the form, and the code."""
        form = {**dataclasses.asdict(self.form), "workers": 0, "image_size": 0}
        parts = [json.dumps(form, sort_keys=True, default=str)]
        parts += sorted(self.form.table.text) if self.form.table else []
        package = __name__.rpartition(".")[0]
        parts += [inspect.getsource(sys.modules[f"{package}.{name}"]) for name in _CODE]
        parts.append(inspect.getsource(image_checks))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def open_source(
    path: str | os.PathLike[str],
    split: str,
    given: str | Mapping[str, Any],
    form: CommonForm,
    *,
    last_step: str = "",
) -> OpenXDataset:
    """Opens a source in the common form; reads metadata only.

    Args:
      path: see ``rlds.open_dataset``; with a registry row also the parent of its versions.
      split: see ``rlds.open_dataset``.
      given: name of a registry row, or the lines of a spec (``spec.parse``).
      form: the common form.
      last_step: "drop" or "keep" the action of a step with is_last; "" for what the spec says, and
        "drop" where it says nothing: that is what RLDS defines.

    Raises:
      FileNotFoundError: no such data set, or a shard is missing and its policy is "raise".
      ValueError: an unknown row, a spec that does not fit the features, another version.
    """
    row = registry.get(given) if isinstance(given, str) else None
    if row:
        spec = row.spec
        registry.warn_doubts([row.name])
        versioned = epath.Path(expanded(path)) / (row.version or "none")
        path = versioned if versioned.exists() else path
    else:
        spec = spec_lib.parse(dict(given), os.path.basename(os.fspath(path).rstrip("/")))
    spec = dataclasses.replace(spec, last_step=last_step or spec.last_step or "drop")
    options = dict(decode_images=False, allow_missing=form.policy("shard") == "skip")
    try:
        raw = rlds.open_dataset(path, split, **options)
    except rlds.MissingShardError as error:
        told = f"{error}, or set config.data.open_x.on_problem.shard to 'skip'"
        raise rlds.MissingShardError(told) from error
    keys = standardize.check(spec, raw.features, cameras=form.cameras)
    raw = rlds.open_dataset(path, split, keys=keys, **options)
    if not row:  # the name is part of the fingerprint: that of the data, wherever they lie
        spec = dataclasses.replace(spec, name=raw.name)
    dataset = OpenXDataset(raw, spec, form)
    if row and row.version and raw.version != row.version:
        dataset._note(
            "version",
            f"{raw.directory} has version {raw.version}, the registry describes {row.version}, "
            "whose fields may differ",
        )
    return dataset


def _cut(told):
    return any(why in told for why in image_checks.NO_IMAGE)


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


def tell(name: str, problems: Mapping[str, Mapping[str, Any]]) -> None:
    """Logs the problems of a source (``SourceStatistics.problems``), a line for each kind."""
    for kind, found in problems.items():
        examples = "; ".join(
            told if index is None else f"episode {index}: {told}"
            for index, told in found["examples"][:3]
        )
        logging.warning(
            "source %r has problems of the kind %r in %d episodes, %d of them left out (%s)",
            *(name, kind, found["episodes"], found["skipped"], examples),
        )
