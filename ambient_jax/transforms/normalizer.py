"""Normalises actions and observations to unit size and back."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ambient_jax import _checks

KINDS = ("bounds", "gaussian", "quantiles", "none")


@dataclasses.dataclass(frozen=True, eq=False)
class Normalizer:
    """Affine maps of actions and observations to unit size and back; pure, on NumPy and JAX.

    A dimension that is constant in the data maps to 0, and back to its constant.
    """

    # "bounds" (min..max to -1..1), "gaussian" (mean 0, std 1), "quantiles" (1 % .. 99 % to -1..1)
    # or "none".
    kind: str
    # By field, [d] float64 and float32, or [K, d] if K ``sources`` have their own maps.
    shift: dict[str, np.ndarray]
    scale: dict[str, np.ndarray]
    sources: tuple[str, ...] = ()

    def normalize(self, name: str, x: Any, source: Any = None) -> Any:
        """Maps a field ("action", "observation/<name>") [..., d] to unit size.

        NumPy's float64 stays float64, to keep the digits of a small range about a large value. If
        each source has its own map, ``source`` is its index, or indices [B] of x [B, ..., d].
        """
        shift, scale = self._maps(name, x, source)
        constant = (scale == 0).astype(np.float32)
        return (x - shift) * ((1 - constant) / (scale + constant))

    def unnormalize(self, name: str, x: Any, source: Any = None) -> Any:
        """Computes the inverse of ``normalize``."""
        shift, scale = self._maps(name, x, source)
        return x * scale + shift

    def _maps(self, name, x, source):
        _checks.one_of("field", name, self.shift)
        shift, scale = self.shift[name], self.scale[name]
        if np.shape(x)[-1:] != shift.shape[-1:]:
            raise ValueError(
                f"{name} has shape {np.shape(x)}, expected [..., {shift.shape[-1]}] as in the data"
            )
        if (source is None) != (not self.sources):
            expected = "None: all sources share one map"
            if names := ", ".join(self.sources):
                expected = f"the index of one of {names}, or for_source(name) first"
            raise ValueError(f"source is {source}, expected {expected}")
        if getattr(x, "dtype", None) != np.float64:
            shift = shift.astype(np.float32)
        if source is None:
            return shift, scale
        if isinstance(source, jax.Array):  # it may be a tracer, which cannot index NumPy
            shift, scale = jnp.asarray(shift), jnp.asarray(scale)
        between = (1,) * (np.ndim(x) - np.ndim(source) - 1)
        shape = (*np.shape(source), *between, shift.shape[-1])
        return shift[source].reshape(shape), scale[source].reshape(shape)

    def for_source(self, name: str) -> Normalizer:
        """Returns the normaliser of one source (itself if all share one)."""
        if not self.sources:
            return self
        _checks.one_of("source", name, self.sources)
        k = self.sources.index(name)
        shift, scale = ({n: v[k] for n, v in maps.items()} for maps in (self.shift, self.scale))
        return Normalizer(self.kind, shift, scale)

    def to_json(self) -> str:
        """Returns exact JSON; the inverse of ``from_json``."""
        shift, scale = ({n: v.tolist() for n, v in m.items()} for m in (self.shift, self.scale))
        stored = {"kind": self.kind, "sources": list(self.sources), "shift": shift, "scale": scale}
        return json.dumps(stored)

    @classmethod
    def from_json(cls, text: str) -> Normalizer:
        """Reads the JSON of a normaliser; raises ValueError for another text."""
        try:
            stored = json.loads(text)
            shift = {n: np.asarray(v, np.float64) for n, v in stored["shift"].items()}
            scale = {n: np.asarray(v, np.float32) for n, v in stored["scale"].items()}
            sources = tuple(stored["sources"])
            _checks.one_of("kind", stored["kind"], KINDS)
            rows = (len(sources),) if sources else ()
            for name in shift.keys() | scale.keys():
                maps = shift[name], scale[name]
                if maps[0].shape != maps[1].shape or maps[0].ndim != len(rows) + 1:
                    shapes = f"shift {maps[0].shape} and scale {maps[1].shape}"
                    raise ValueError(f"{name} has {shapes}")
                if maps[0].shape[:-1] != rows or not np.isfinite(maps).all():
                    raise ValueError(f"{name} is not finite, or not of {len(sources)} sources")
            return cls(stored["kind"], shift, scale, sources)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not the JSON of a Normalizer ({error}): {text[:80]!r}") from error
