"""The chain of transforms between data units and a network, the same for data and policies.

A chain is a normaliser and steps: masks, images, instructions, a crop. Data streams apply it to
recorded steps (``normalise``), a policy to its observations (``check`` on the host, ``observe`` in
compiled code) and to its network's output (``act``). Each checkpoint stores it as JSON. Fields are
named as in the data: "action", "observation/<name>".
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from ambient_jax import _checks, _names
from ambient_jax.transforms.normalizer import Normalizer
from ambient_jax.transforms.steps import (
    ACTION,
    INSTRUCTION,
    OBSERVATION,
    STEPS,
    Crop,
    Images,
    Observation,
    Shapes,
    Step,
)

_NAMES = {step: name for name, step in STEPS.items()}


@dataclasses.dataclass(frozen=True, eq=False)
class Chain:
    """A normaliser of "action" and each "observation/<name>", and the steps that follow it."""

    normalizer: Normalizer
    steps: tuple[Step, ...] = ()

    @functools.cached_property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources if each has its own transform; empty if all share one."""
        names = [self.normalizer.sources, *(step.sources for step in self.steps)]
        return next(filter(None, names), ())

    def for_source(self, name: str | None) -> Chain:
        """Returns the chain of one source. If all share one, only the role that a policy asks for
        is the source's; None asks for clean data."""
        named = tuple(step.of(name) for step in self.steps)
        if not self.sources:
            return self if named == self.steps else Chain(self.normalizer, named)
        _checks.one_of("source", name, self.sources)
        k = self.sources.index(name)  # type: ignore[arg-type]
        steps = tuple(step.for_source(k) if step.sources else step for step in named)
        return Chain(self.normalizer.for_source(str(name)), steps)

    def cropped(self, size: tuple[int, int] | None) -> Chain:
        """Returns the chain of a training that crops images to ``size``; None: no crop."""
        return Chain(self.normalizer, (*self.steps, Crop((size[0], size[1])))) if size else self

    @functools.cached_property
    def dims(self) -> dict[str, int]:
        """Width of each observation, by name."""
        return {
            name.removeprefix(OBSERVATION): shift.shape[-1]
            for name, shift in self.normalizer.shift.items()
            if name.startswith(OBSERVATION)
        }

    @property
    def action_dim(self) -> int:
        """D."""
        return self.normalizer.shift[ACTION].shape[-1]

    @property
    def action_mask(self) -> np.ndarray | None:
        """[D] bool, dimensions of the action that the source has; None for all."""
        return next((s.action_mask for s in self.steps if s.action_mask is not None), None)

    def inputs(self, history: int) -> Shapes:
        """Shapes of all observations of one row of a batch, by name."""
        shapes = {n: jax.ShapeDtypeStruct((history, d), np.float32) for n, d in self.dims.items()}
        for step in self.steps:
            shapes |= step.inputs(history)
        return shapes

    def constants(self) -> dict[str, np.ndarray]:
        """Returns the constant fields of each source's rows in a batch, [K, d] by name."""
        return {name: rows for step in self.steps for name, rows in step.constants().items()}

    def encoders(self) -> dict[str, Callable[[list], np.ndarray]]:
        """Returns functions that encode raw values [B] of a stream as an array, by input."""
        return {name: encode for step in self.steps for name, encode in step.encoders().items()}

    @property
    def images(self) -> Images | None:
        """The step for camera images, if there is one."""
        return next((step for step in self.steps if isinstance(step, Images)), None)

    def normalise(self, fields: Mapping[str, Any], source: int | None = None) -> dict[str, Any]:
        """Normalises recorded fields [..., d] by name, as training does; returns float32.

        ``source`` is the index of their source in ``sources``, if there are sources.
        """
        k = source if self.normalizer.sources else None
        scaled = {n: self.normalizer.normalize(n, x, k) for n, x in fields.items()}
        unit = {n: x.astype(np.float32) for n, x in scaled.items()}
        for step in self.steps:
            unit = step.normalise(unit, source if step.sources else None)
        return unit

    @functools.cached_property
    def wide(self) -> tuple[str, ...]:
        """Observations that need float64 until the shift is subtracted."""
        shift = {name: self.normalizer.shift[OBSERVATION + name] for name in self.dims}
        return tuple(n for n, v in shift.items() if (v != v.astype(np.float32)).any())

    def check(self, observation: Observation, between: tuple[int, ...]) -> dict[str, np.ndarray]:
        """Checks observations and returns a policy's inputs [B, *between, ...] in data units.

        Numbers become float32, or float64 if they are ``wide``; images are resized, texts encoded
        and missing masks added. Raises ValueError for a wrong observation.
        """
        names = tuple(self.inputs(1))
        for name in observation:
            _checks.one_of("observation", name, names)
        for step in self.steps:
            observation = step.widen(observation)
        empty = "the observation is empty, expected " + ", ".join(names)
        checked: dict[str, np.ndarray] = {}
        rows: tuple[int, ...] = ()
        for i, (name, d) in enumerate(self.dims.items()):
            if name not in observation:
                raise ValueError(
                    f"observation {name!r} is missing, expected {', '.join(names)}; came "
                    f"{', '.join(observation) or 'nothing'}"
                )
            value = np.asarray(observation[name], np.float64 if name in self.wide else np.float32)
            rows = rows if i else value.shape[:1]
            if value.ndim != len(between) + 2 or value.shape != (*rows, *between, d):
                want = ", ".join(map(str, (*(rows or ("B",)), *between, d)))
                raise ValueError(f"observation {name!r} has shape {value.shape}, expected ({want})")
            if not len(value):
                raise ValueError(empty)
            bad = ~np.isfinite(value).reshape(len(value), -1).all(axis=1)
            if bad.any():
                raise ValueError(
                    f"observation {name!r} of environment {int(np.argmax(bad))} is not finite "
                    f"({int(bad.sum())} of {len(value)} environments): "
                    f"{value[np.argmax(bad)].tolist()}"
                )
            checked[name] = value
        if self.steps:
            batch = rows[0] if rows else row_count(observation)
            if not batch:
                raise ValueError(empty)
            for step in self.steps:
                checked |= step.check(observation, (batch, *between))
        return checked

    def observe(self, observation: Observation, ready: tuple[str, ...] = ()) -> dict[str, Any]:
        """Returns a network's inputs from checked observations [B, T, ...] in data units; pure.

        ``ready`` names the observations that are already normalised.
        """
        raw = set(self.dims) - set(ready)
        inputs = {
            name: self.normalizer.normalize(OBSERVATION + name, value) if name in raw else value
            for name, value in observation.items()
        }
        for step in self.steps:
            inputs = step.observe(inputs)
        return inputs

    def act(self, action: Any) -> Any:
        """Converts a network's actions [..., H, D] to data units; 0 in missing dimensions."""
        action = self.normalizer.unnormalize(ACTION, action)
        for step in reversed(self.steps):
            action = step.act(action)
        return action

    def to_json(self) -> str:
        """Returns exact JSON; the inverse of ``from_json``."""
        steps = []
        for step in self.steps:
            cls = type(step)
            name = _NAMES.get(cls, f"{cls.__module__}:{cls.__qualname__}")
            steps.append({"step": name, **step.to_dict()})
        return json.dumps({"normalizer": json.loads(self.normalizer.to_json()), "steps": steps})

    @classmethod
    def from_json(cls, text: str) -> Chain:
        """Reads the JSON of a chain, or of a normaliser; raises ValueError for another text."""
        try:
            stored = json.loads(text)
            if "normalizer" not in stored:  # older versions stored only the normaliser
                return cls(Normalizer.from_json(text))
            steps = [dict(fields) for fields in stored["steps"]]
            classes = [_names.resolve("transform", fields.pop("step"), STEPS) for fields in steps]
            return cls(
                Normalizer.from_json(json.dumps(stored["normalizer"])),
                tuple(step.from_dict(f) for step, f in zip(classes, steps, strict=True)),
            )
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(
                f"not the JSON of a chain of transforms ({error!r}): {text[:80]!r}"
            ) from error


def row_count(observation: Observation) -> int:
    """Returns B from any array, or the number of texts if there are only texts."""
    for name, value in observation.items():
        if name != INSTRUCTION and np.ndim(value):
            return len(value)
    text: Any = observation.get(INSTRUCTION)
    return np.shape(text)[0] if np.ndim(text) else int(text is not None)
