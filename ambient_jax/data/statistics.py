"""Computes statistics of a source in one pass over its episodes, and caches them on disk."""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import inspect
import json
import os
import pathlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from ambient_jax.data import chunk, rlds_source
from ambient_jax.data import moments as moments_lib
from ambient_jax.data import parts as parts_lib
from ambient_jax.data import source as source_lib
from ambient_jax.data.moments import Moments
from ambient_jax.data.parts import SourceStatistics
from ambient_jax.data.paths import CACHE_VARIABLE, AnyPath, cache_folder, write_text
from ambient_jax.data.source import Source, Transform


def compute(source: Source, *, cache: str | os.PathLike[str] | None = None) -> SourceStatistics:
    """Returns statistics of one source: from the cache, or from one pass over its episodes.

    ``cache`` is the cache's folder, on a disk or in a bucket; by default ``$AMBIENT_JAX_CACHE`` or
    ``~/.cache/ambient_jax``. ``python -m ambient_jax.data.prepare`` fills it.

    Raises:
      ValueError: data are not finite (with episode and step), or there are no steps.
    """
    place = cached(source, cache)
    if (stored := place.read(len(source))) is not None:
        return stored
    each = (parts_lib.measure(source, files) for files in parts_lib.parts_of(source))
    measured = parts_lib.join(source, each)
    try:
        place.write(measured)
    except OSError as error:
        logging.warning(
            "statistics cannot be kept (%s): set %s to a writable directory", error, CACHE_VARIABLE
        )
    return measured


@dataclasses.dataclass(frozen=True)
class Cached:
    """The file of a source's statistics; ``key`` is what they depend on, empty if unknown."""

    path: AnyPath
    key: Mapping[str, Any]

    def read(self, episodes: int) -> SourceStatistics | None:
        """Returns the statistics of ``episodes`` episodes; None if they are not there."""
        if not self.key or not self.path.exists():
            return None
        try:
            return _read(self.path, self.key, episodes)
        except (ValueError, KeyError, TypeError, OSError) as error:
            logging.warning("%s cannot be used (%s): computed anew", self.path, error)
        return None

    def write(self, measured: SourceStatistics) -> None:
        """Writes statistics, unless the key is empty."""
        if self.key:
            stored = {"key": self.key, **dataclasses.asdict(measured)}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.path, json.dumps(stored, default=np.ndarray.tolist))


def cached(source: Source, cache: str | os.PathLike[str] | None = None) -> Cached:
    """Returns where a source's statistics are, see ``compute``.

    The key has the source's fingerprint, the fields and the code that reads them, including the
    transform's module.
    """
    key = settings(source)
    if key:
        key = {"fingerprint": source.fingerprint, **key}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    return Cached(cache_folder(cache) / f"statistics-{digest}.json", key)


def settings(source: Source) -> dict[str, Any]:
    """Returns what statistics depend on beside the data; empty if the code is unknown."""
    code = code_hash(source.transform, type(getattr(source, "data", object())))
    key = {name: getattr(source, name) for name in ("action", "settings")}
    return key | {"observation": list(source.observation), "code": code} if code else {}


def disagreement(measured: SourceStatistics, stated: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    """Returns a line about the first stored statistic that differs from the data; "" for none.

    ``stated`` is by field, see ``source.Source.stated``. Differences below a thousandth of a
    dimension's range are rounding; in the mean and std also below a thousandth of its magnitude, as
    many take them from sums in float32.
    """
    for field, stored in stated.items():
        if field not in measured.fields:
            continue
        moments = measured.fields[field]
        values = {"min": moments.min, "max": moments.max, "mean": moments.mean, "std": moments.std}
        size = 1e-6 + np.maximum(np.abs(moments.min), np.abs(moments.max))
        for name, value in values.items():
            rounding = size if name in ("mean", "std") else 1e-3 * size
            room = 1e-3 * np.maximum(moments.max - moments.min, rounding)
            if name not in stored or stored[name].shape != value.shape:
                continue
            off = np.abs(stored[name] - value) > room
            if off.any():
                i = int(np.argmax(off))
                return (
                    f"the data set states that {name} of {field}[{i}] is {stored[name][i]:.6g}, it "
                    f"is {value[i]:.6g}: its statistics are of other data, or the data are damaged"
                )
    return ""


_MODULES = (chunk, rlds_source, source_lib, moments_lib, parts_lib, sys.modules[__name__])


def code_hash(transform: Transform | None = None, reader: type = object) -> str:
    """Returns a hash of the code that shapes the data, without comments, of ``reader``'s package
    (the class of the data set), and of what a transform holds; "" if that is unknown."""
    parts = [*_own_code(), *_package_code(reader.__module__)]
    try:
        parts += _texts(transform) if transform is not None else []
    except _UnknownError as error:
        logging.warning("%s: statistics of the transform's data are not cached", error)
        return ""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class _UnknownError(Exception):
    """What cannot be told apart from something else by its text."""


def _texts(held: Any, above: Sequence[Any] = ()) -> Iterator[str]:
    """Yields texts of the code of a function or object, and of all values that it holds. It may
    hold itself: ``above`` are those that hold it."""
    if any(held is one for one in above):
        return
    above = (*above, held)
    if isinstance(held, functools.partial):
        values = [*held.args, *(v for _, v in sorted(held.keywords.items()))]
        yield repr(sorted(held.keywords))
        yield from _texts(held.func, above)
    else:
        function = held if hasattr(held, "__qualname__") else type(held)
        try:
            yield _module_code(inspect.getmodule(function))
        except (OSError, TypeError, AttributeError):
            raise _UnknownError(f"{held} has no source code") from None
        yield function.__qualname__
        if function is not held:
            yield _exact(held)
        values = [cell.cell_contents for cell in getattr(held, "__closure__", None) or ()]
        values += getattr(held, "__defaults__", None) or ()
        values += [v for _, v in sorted((getattr(held, "__kwdefaults__", None) or {}).items())]
        if inspect.ismethod(held):
            yield from _texts(held.__self__, above)
    for value in values:
        is_code = hasattr(value, "__qualname__") and not inspect.isbuiltin(value)
        is_code = is_code and not inspect.isclass(value) or isinstance(value, functools.partial)
        yield from _texts(value, above) if is_code else [_exact(value)]


def _exact(value):
    """Returns a text that tells a value; NumPy's repr shortens large arrays."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        return f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    with np.printoptions(threshold=sys.maxsize, floatmode="unique"):
        text = repr(value)
    if re.search(r" at 0x[0-9a-fA-F]+", text):
        raise _UnknownError(f"{text[:80]} does not tell its content (give it a __repr__)")
    return text


@functools.cache
def _own_code():
    return tuple(_module_code(m) for m in _MODULES)


@functools.cache
def _package_code(module):
    """Returns the code of a module, or of all modules of its package if that reads formats."""
    file = pathlib.Path(getattr(sys.modules[module], "__file__", None) or "")
    if file.parent.name == "storage":
        return tuple(ast.dump(ast.parse(p.read_text())) for p in sorted(file.parent.glob("*.py")))
    return (_module_code(sys.modules[module]),) if file.suffix == ".py" else ()


def _module_code(module):
    return ast.dump(ast.parse(inspect.getsource(module)))


def _read(path, key, episodes):
    stored = json.loads(path.read_text())
    if stored["key"] != key:
        raise ValueError("it has another key")
    lengths = np.asarray(stored["lengths"], np.int64)
    fields = {name: Moments.from_dict(m) for name, m in stored["fields"].items()}
    if lengths.shape != (episodes,) or {m.count for m in fields.values()} != {lengths.sum()}:
        raise ValueError("its lengths do not agree with the dataset")
    return SourceStatistics(fields, lengths, stored["step_bytes"], stored["problems"])
