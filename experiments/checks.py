"""Checks scenes and ``config.task`` before building from them."""

import math
import numbers
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import ml_collections
import numpy as np

from ambient_jax import _checks

T = TypeVar("T")
# A test of a value, and what it expects in words.
Rule = tuple[Callable[[Any], bool], str]

_EPISODES, _EVAL_SEEDS = 1000, 300
_EVALUATION = 700_000  # first seed of test episodes; demonstrations begin at 1 000 000
_FINEST = 0.01  # s, physics steps that resolve contacts with a time constant of 20 ms


def whole(low: int, high: float = math.inf) -> Rule:
    """Returns the rule of whole numbers from ``low`` to ``high``."""
    limits = f"of at least {low}" if high == math.inf else f"from {low} to {high}"
    return lambda value: _fits(value, int) and low <= value <= high, f"a whole number {limits}"


def at_most(task: ml_collections.ConfigDict, name: str) -> Rule:
    """Returns the rule of numbers up to that of another field."""
    most = task[name]
    return lambda value: value <= most, f"at most config.task.{name}, {most}"


SHARE: Rule = (lambda value: _fits(value, float) and 0 <= value <= 1, "a number from 0 to 1")


def fields(
    task: ml_collections.ConfigDict, rules: Sequence[tuple[str, Rule]], filled: Sequence[str] = ()
) -> None:
    """Raises ValueError for the first field of ``config.task`` that breaks a rule.

    ``rules`` are pairs of field names, separated by spaces, and the rule of each value of theirs;
    ``filled`` names tuples that may not be empty.
    """
    for name in filled:
        if not task[name]:
            raise ValueError(f"config.task.{name} is empty, expected at least one value")
    for names, (holds, expected) in rules:
        for name in names.split():
            value = task[name]
            if not all(map(holds, value if isinstance(value, tuple) else (value,))):
                prefix = "each " if isinstance(value, tuple) else ""
                raise ValueError(f"config.task.{name} is {value!r}, expected {prefix}{expected}")


def same_task(task: ml_collections.ConfigDict, own: ml_collections.ConfigDict) -> None:
    """Raises ValueError unless ``config.task`` has the name and all fields of ``own``."""
    if task.name != own.name:
        raise ValueError(
            f"config.task.name is {task.name!r}, expected {own.name!r}: this command takes configs "
            f"of its own experiment, such as experiments/{own.name}/config.py:debug"
        )
    for name in own:
        if name not in task:
            raise ValueError(
                f"config.task.{name} is missing: start from get_config of "
                f"experiments/{own.name}/config.py"
            )


def makes_its_report(task: ml_collections.ConfigDict) -> None:
    """Raises ValueError with ``config.task.report_only``, for a command that cannot honour it."""
    if task.report_only:
        raise ValueError(
            "config.task.report_only is True, expected False: this command trains and measures "
            "what its report needs; leave the flag out"
        )


def evaluation_seeds(task: ml_collections.ConfigDict) -> np.ndarray:
    """Returns seeds [N] of the ``task.episodes`` episodes that test every policy.

    They differ for each ``task.eval_seed``, and none is a demonstration's. Raises ValueError unless
    episodes are 1 to 1000 and eval_seed is 0 to 299.
    """
    fields(task, [("episodes", whole(1, _EPISODES)), ("eval_seed", whole(0, _EVAL_SEEDS - 1))])
    return _EVALUATION + _EPISODES * task.eval_seed + np.arange(task.episodes)


def scene(scene_class: type[T], section: Mapping[str, Any]) -> T:
    """Returns the scene of ``config.task.scene``, whose fields are those of a dataclass; raises
    ValueError for an unknown field or a value that the dataclass refuses."""
    for name in section:
        _checks.one_of("a field of config.task.scene", name, typing.get_type_hints(scene_class))
    try:
        return scene_class(**section)
    except ValueError as error:
        raise ValueError(f"config.task.scene.{error}") from error


def scene_numbers(scene: Any, control_step: float, positive: Sequence[str]) -> None:
    """Checks a scene's ``finite_numbers``, and that its ``timestep`` [s] is at most 10 ms and
    divides the ``control_step`` [s]."""
    finite_numbers(scene, (*positive, "timestep"))
    substeps = control_step / scene.timestep
    if scene.timestep > _FINEST or not math.isclose(substeps, round(substeps)):
        raise ValueError(
            f"timestep is {scene.timestep}, expected at most {_FINEST} s, and a whole number of "
            f"them in a control step of {control_step} s"
        )


def finite_numbers(instance: Any, positive: Sequence[str]) -> None:
    """Checks the fields of a frozen dataclass against their annotations (float, int, or tuples of
    these) and converts them: lists become tuples, so that it can be hashed.

    Raises ValueError, by the field's name, for another type or length, and for numbers that are not
    finite, or not positive where ``positive`` names the field.
    """
    for name, hint in typing.get_type_hints(type(instance)).items():
        value, types = getattr(instance, name), typing.get_args(hint)
        values, types = value if types else (value,), types or (hint,)
        fits = isinstance(values, tuple | list) and len(values) == len(types)
        fits = fits and all(map(_fits, values, types))
        if not fits or (name in positive and not all(number > 0 for number in values)):
            words = "positive " * (name in positive) + ("whole" if types[0] is int else "finite")
            many = f"{len(types)} {words} numbers" if len(types) > 1 else f"a {words} number"
            raise ValueError(f"{name} is {value!r}, expected {many}")
        values = tuple(to(number) for to, number in zip(types, values, strict=True))
        object.__setattr__(instance, name, values if len(types) > 1 else values[0])


def _fits(value: Any, number_type: type) -> bool:
    """Whether a value is a finite number of the type; an int is also a float, a bool is neither."""
    number = isinstance(value, numbers.Integral if number_type is int else numbers.Real)
    return number and not isinstance(value, bool) and math.isfinite(value)
