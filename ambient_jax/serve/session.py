"""Reads one robot's requests: bytes to a row of the policy's batch, with the robot's history."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ambient_jax import __version__, _checks
from ambient_jax.policy import inpainting
from ambient_jax.serve.client import decode, unpack
from ambient_jax.transforms import augment
from ambient_jax.transforms.steps import INSTRUCTION, IS_CLEAN, OBSERVATION

# Names in a request that are no observation.
RESET, SEED, KEY = "reset", "seed", "key"
KNOWN, WEIGHTS = "known", "weights"  # actions with which the chunk agrees, see ``inpainting``
_PROMPT = "prompt"  # openpi's name of the instruction
# A list may stand for a small array; these bound what a message of few bytes can become.
_LONGEST, _ITEMS, _NAMES, _TEXT = 4096, 20_000, 256, 64 * 1024
_NAME = 200  # characters


@dataclasses.dataclass(frozen=True)
class Row:
    """One checked request: a row of a batch and what its noise is drawn from."""

    inputs: dict[str, np.ndarray]  # {name: [1, T, ...]} as ``Policy.check`` returns them
    seed: int | None = None  # the chunk is row 0 of ``policy(inputs, seed)``
    key: np.ndarray | None = None  # [2] uint32, data of the row's own key
    known: np.ndarray | None = None  # [H, D] float32, data units
    weights: np.ndarray | None = None  # [H]; None as ``known`` is


def parse(data: bytes | str, most: int) -> dict[str, Any]:
    """Returns the fields of a message of at most ``most`` bytes, by their names.

    Raises ValueError with one line for a message that is no map of names to values.
    """
    if isinstance(data, str):
        raise ValueError("a text message came, expected a binary one: a msgpack map of arrays")
    count = 0

    def counted(items):
        nonlocal count
        count += len(items) + 1
        if count > _ITEMS:
            raise ValueError(f"it has over {_ITEMS} items in lists and maps, expected arrays")
        return items

    message = unpack(
        data,
        list_hook=counted,
        object_hook=lambda items: decode(counted(items)),
        max_array_len=_LONGEST,
        max_map_len=_NAMES,
        max_str_len=_TEXT,
        max_bin_len=most,
        max_ext_len=0,
    )
    if not isinstance(message, dict):
        raise ValueError(f"the message is a {type(message).__name__}, expected a map of arrays")
    fields: dict[str, Any] = {}
    for name, value in message.items():
        if not isinstance(name, str):
            raise ValueError(f"the message has the name {str(name)[:60]!r}, expected text")
        if len(name) > _NAME:
            raise ValueError(f"the message has a name of {len(name)} characters, {name[:60]!r}...")
        short = name.removeprefix(OBSERVATION)
        short = INSTRUCTION if short == _PROMPT else short
        if short in fields:
            raise ValueError(
                f"the message has {short[:60]!r} twice, the second time as {name[:60]!r}"
            )
        fields[short] = value
    return fields


def describe(policy: Any) -> dict[str, Any]:
    """Returns what a client must know of a policy: name, type and shape of one step of each of its
    observations, and what it answers."""
    observations = {}
    for name, one in policy.chain.inputs(policy.history).items():
        masks = name.endswith(augment.MASK) or name == IS_CLEAN
        text = name == INSTRUCTION
        observations[name] = {
            "shape": [] if text else list(one.shape[1:]),
            "dtype": "str" if text else str(one.dtype),
            "optional": masks or name.startswith("image_"),
        }
    for reserved in {RESET, SEED, KEY, KNOWN, WEIGHTS} & set(observations):
        raise ValueError(f"the policy has an observation {reserved!r}, a name of the protocol")
    return {
        "server": "ambient_jax",
        "version": __version__,
        "observations": observations,
        "history": policy.history,
        "horizon": policy.horizon,
        "action_dim": policy.chain.action_dim,
        "solver": policy.solver,
        "solver_steps": policy.steps,
    }


class Session:
    """The requests of one connection, one after another.

    An observation holds either the newest step alone ([d]), and the session keeps the steps before
    it, or all T steps ([T, d]), which then are the session's history. The first step of an episode
    fills the whole history, as in training.

    Args:
      policy: see ``Policy``.
      most: bytes of a message.
      known: whether requests may have known actions.
    """

    def __init__(self, policy: Any, most: int, known: bool = True):
        self._policy, self._most, self._known = policy, most, known
        self._shapes = policy.chain.inputs(policy.history)
        self._encode = policy.chain.encoders().get(INSTRUCTION)
        self._kept: dict[str, np.ndarray] | None = None

    def read(self, data: bytes | str) -> Row | None:
        """Returns the row of a message; None if it says nothing but to begin an episode.

        Raises ValueError with one line for a wrong message, which leaves the history as it was.
        """
        fields = parse(data, self._most)
        reset, given = fields.pop(RESET, False), {**_noise(fields), **self._given(fields)}
        if not isinstance(reset, bool | np.bool_):
            raise ValueError(f"{RESET!r} is a {type(reset).__name__}, expected True or False")
        if reset and not fields:
            self._kept = None
            return None
        inputs = self._inputs(fields, self._kept if not reset else None)
        self._kept = inputs if self._policy.history > 1 else None
        return Row(inputs, **given)

    def _given(self, fields):
        """Takes the known actions and their weights out of a request's fields."""
        given = {name: fields.pop(name, None) for name in (KNOWN, WEIGHTS)}
        if all(value is None for value in given.values()):
            return {}
        if not self._known:
            raise ValueError(
                f"the message has {KNOWN!r} or {WEIGHTS!r}, but this server takes no known "
                "actions: ask without them, or start it without --noreal_time"
            )
        arrays = {n: v if v is None else _numbers(n, v) for n, v in given.items()}
        shape = (self._policy.horizon, self._policy.chain.action_dim)
        with np.errstate(over="ignore"):  # infinite as float32 is an error of the check
            return inpainting.check(**arrays, shape=shape, most=self._policy.most_known)

    def _inputs(self, fields, kept):
        """Returns the observation with its history, {name: [1, T, ...]}."""
        steps = self._policy.history
        row: dict[str, Any] = {}
        newest, whole = "", ""
        for name, value in fields.items():
            _checks.one_of("observation", name, self._shapes)
            if name == INSTRUCTION:
                row[name] = self._instruction(value)
                continue
            value = _numbers(f"observation {name!r}", value)
            if name == IS_CLEAN and not value.ndim:
                row[name] = value
                continue
            axes = len(self._shapes[name].shape) - 1  # of one step
            if value.ndim == axes and steps == 1:
                value = value[None]
            elif value.ndim == axes:
                newest = name
            elif value.ndim == axes + 1:
                whole = name
            else:
                one = _text(self._shapes[name].shape[1:])
                raise ValueError(
                    f"observation {name!r} has shape {value.shape}, expected {one} for the newest "
                    f"step, or {_text(self._shapes[name].shape)} for all {steps} steps of a history"
                )
            row[name] = value[None]
        if newest and whole:
            raise ValueError(
                f"observation {whole!r} has a history and {newest!r} only the newest step, "
                "expected the same of all"
            )
        try:
            with np.errstate(over="ignore"):  # infinite as float32 is an error of the check
                checked = self._policy.check(row, () if newest else (steps,))
        except (TypeError, OverflowError) as error:
            raise ValueError(f"the observation is wrong: {error}") from error
        except ValueError as error:
            if "has shape" not in str(error):
                raise
            raise ValueError(f"{error}; the first axis is the server's, of one row") from error
        if not newest:
            return checked
        return {name: self._moved(name, value, kept) for name, value in checked.items()}

    def _moved(self, name, value, kept):
        if name == INSTRUCTION:
            return value
        value = value[:, None]
        if kept is None:
            return np.repeat(value, self._policy.history, axis=1)
        return np.concatenate([kept[name][:, 1:], value], axis=1)

    def _instruction(self, value):
        if self._encode and isinstance(value, np.ndarray) and value.dtype.kind == "U":
            value = value.reshape(-1).tolist()
        if self._encode and isinstance(value, str | bytes):
            value = [value]
        if self._encode and isinstance(value, list):
            return self._encode(value)
        return _numbers(f"observation {INSTRUCTION!r}", value)[None]


def _numbers(name, value):
    if isinstance(value, dict):
        raise ValueError(f"{name} is a map, expected an array")
    try:
        value = np.asarray(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{name} is no array: {error}") from error
    if value.dtype.kind not in "biuf":
        raise ValueError(f"{name} is an array of {value.dtype}, expected numbers")
    return value


def _noise(fields):
    """Takes the seed or key out of a request's fields."""
    seed, key = fields.pop(SEED, None), fields.pop(KEY, None)
    if seed is not None and key is not None:
        raise ValueError(f"the message has {SEED!r} and {KEY!r}, expected one of them at most")
    if seed is not None:
        number = isinstance(seed, int | np.integer) and not isinstance(seed, bool)
        if not number or not 0 <= seed < 2**32:
            what = repr(seed) if number else f"a {type(seed).__name__}"
            raise ValueError(f"{SEED!r} is {what}, expected a whole number of 32 bits")
        return {"seed": int(seed)}
    if key is not None:
        if not isinstance(key, np.ndarray) or key.shape != (2,) or key.dtype != np.uint32:
            kind = (
                f"{getattr(key, 'dtype', type(key).__name__)} {getattr(key, 'shape', '')}".rstrip()
            )
            raise ValueError(f"{KEY!r} is {kind}, expected an array uint32 (2,)")
        return {"key": key}
    return {}


def _text(shape):
    return f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"
