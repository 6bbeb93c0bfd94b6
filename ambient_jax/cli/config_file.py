"""A config file and its variant, and what may be wrong with either, each told in one line."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import inspect
import os
import re
import traceback
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import ml_collections

from ambient_jax import _checks


def choose(
    variant: str, variants: Mapping[str, Any], options: Mapping[str, Sequence[str]] | None = None
) -> tuple[str, dict[str, str]]:
    """Splits what follows the file's name, as in ``name,option=value``; for every ``get_config``.

    Args:
      variant: as given.
      variants: all that there are, by name.
      options: names of a variant's options, where it has some.

    Returns:
      The name, and the options' values.

    Raises:
      ValueError: an unknown name or option, or an option without a value or given twice.
    """
    name, *given = variant.split(",")
    _checks.one_of("config variant", name, variants)
    known, found = (options or {}).get(name, ()), {}
    for text in given:
        option, _, value = text.partition("=")
        if option not in known or not value or option in found:
            raise ValueError(
                f"config variant {variant!r}: option {option!r}, expected one of "
                f"{', '.join(f'{o}=' for o in known) or 'none for this variant'}"
                + (", each once" if option in found else "" if value else ", and its value")
                + ("" if option in known else _checks.nearest(option, known))
            )
        found[option] = value
    return name, found


def load(argument: str) -> ml_collections.ConfigDict:
    """The config of ``file.py:variant``, what the flag ``--config`` takes.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a folder, or an error in the file, which is named with its line.
    """
    path, colon, variant = argument.partition(":")
    if os.path.isdir(path):
        raise ValueError(
            f"--config={argument} names a folder, expected a file, such as "
            f"{os.path.join(path, 'config.py')}"
        )
    if not os.path.isfile(path):
        there = os.path.dirname(path) or "."
        files = [f for f in os.listdir(there) if f.endswith(".py")] if os.path.isdir(there) else []
        raise FileNotFoundError(
            f"--config={argument}: there is no file {path!r} (from {os.getcwd()}), expected "
            f"file.py:variant{_checks.nearest(os.path.basename(path), files)}"
        )
    get_config = getattr(module := _guarded(path, _execute, path), "get_config", None)
    if not callable(get_config):
        raise ValueError(
            f"{path} has no function get_config, expected one that returns an "
            f"ml_collections.ConfigDict{_checks.nearest('get_config', vars(module))}"
        )
    try:
        inspect.signature(get_config).bind(*[variant] * bool(colon))
    except TypeError:
        told = f"takes no variant, and {variant!r} was given" if colon else "needs a variant"
        raise ValueError(
            f"--config={argument}: get_config of {path} {told}, expected --config={path}"
            f"{'' if colon else ':<variant>'}"
        ) from None
    config = _guarded(path, get_config, *[variant] * bool(colon))
    if not isinstance(config, ml_collections.ConfigDict):
        raise ValueError(
            f"get_config of {path} returned {type(config).__name__}, expected an "
            "ml_collections.ConfigDict, such as ambient_jax.train.config.default()"
        )
    return config


def check_overrides(config: ml_collections.ConfigDict, argv: Sequence[str]) -> None:
    """Raises ValueError for a flag ``--config.<field>=<value>`` whose field the config lacks, or
    whose value the field cannot have."""
    for argument in argv:
        if match := re.match(r"--?(?:no)?config\.([^=]*)(?:=(.*))?$", argument, re.DOTALL):
            _check_override(config, argument, *match.groups())


def _check_override(config, argument, path, text):
    value, above, kind = config, "config", None
    for name in path.split("."):
        if not isinstance(value, ml_collections.ConfigDict):
            raise ValueError(f"{argument}: {above} is {value!r}, which has no fields")
        field = re.sub(r"\[\d+\]$", "", name)
        if field not in value:
            raise ValueError(
                f"{argument} names no field of the config: {above} has no field {name!r}, expected "
                f"one of {', '.join(value) or 'none'}{_checks.nearest(name, value)}"
            )
        kind = value.get_type(field)
        value, above = value[field], f"{above}.{field}"
    if text is not None and kind in (int, float):
        try:
            kind(text)
        except ValueError:
            such = "" if value is None else f" such as {value!r}"
            raise ValueError(f"{argument}: expected {kind.__name__}{such}") from None


def _execute(path: str) -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("config_file", path)
    spec = importlib.util.spec_from_file_location("config_file", path, loader=loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def _guarded(path, function, *arguments):
    """The function's result; an error in the file as ValueError that names its line."""
    try:
        return function(*arguments)
    except SyntaxError as error:
        raise ValueError(f"{error.filename}, line {error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        told = " ".join(str(error).split())
        if not isinstance(error, ValueError | OSError):
            told = f"{type(error).__name__}: {told}"
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f.lineno for f in frames if os.path.abspath(f.filename) == os.path.abspath(path)]
        where = f" ({path}, line {lines[-1]})" if lines else f" ({path})"
        raise ValueError(told + where) from error
