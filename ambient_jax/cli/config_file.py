"""Loads a config file with its variant and checks overrides; each error is one line."""

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
from ambient_jax.train.config import RENAMED


def choose(
    variant: str, variants: Mapping[str, Any], options: Mapping[str, Sequence[str]] | None = None
) -> tuple[str, dict[str, str]]:
    """Parses the argument of ``get_config``, the text after the file's name: ``name,option=value``.
    Returns the name and {option: value}. ``variants`` are the variants by name, ``options`` the
    names of options by variant. Raises ValueError for an unknown variant or option, or an option
    without exactly one value."""
    name, *assignments = variant.split(",")
    _checks.one_of("config variant", name, variants)
    allowed, values = (options or {}).get(name, ()), {}
    for text in assignments:
        option, _, value = text.partition("=")
        if option not in allowed or not value or option in values:
            raise ValueError(
                f"config variant {variant!r}: option {option!r}, expected one of "
                f"{', '.join(f'{o}=' for o in allowed) or 'none for this variant'}"
                + (", each once" if option in values else "" if value else ", and its value")
                + ("" if option in allowed else _checks.nearest(option, allowed))
            )
        values[option] = value
    return name, values


def load(argument: str) -> ml_collections.ConfigDict:
    """Returns the config of ``file.py:variant``, an argument of the flag ``--config``. Raises
    FileNotFoundError, or ValueError for a folder or an error in the file, with its line."""
    path, colon, variant = argument.partition(":")
    if os.path.isdir(path):
        raise ValueError(
            f"--config={argument} names a folder, expected a file, such as "
            f"{os.path.join(path, 'config.py')}"
        )
    if not os.path.isfile(path):
        folder = os.path.dirname(path) or "."
        names = os.listdir(folder) if os.path.isdir(folder) else []
        files = [name for name in names if name.endswith(".py")]
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
        problem = f"takes no variant, and {variant!r} was given" if colon else "needs a variant"
        expected = path if colon else f"{path}:<variant>"
        raise ValueError(
            f"--config={argument}: get_config of {path} {problem}, expected --config={expected}"
        ) from None
    config = _guarded(path, get_config, *[variant] * bool(colon))
    if not isinstance(config, ml_collections.ConfigDict):
        raise ValueError(
            f"get_config of {path} returned {type(config).__name__}, expected an "
            "ml_collections.ConfigDict, such as ambient_jax.train.config.default()"
        )
    return config


def check_overrides(config: ml_collections.ConfigDict, argv: Sequence[str]) -> None:
    """Raises ValueError if a flag ``--config.<field>=<value>`` has a wrong field or value."""
    for argument in argv:
        if match := re.match(r"--?(?:no)?config\.([^=]*)(?:=(.*))?$", argument, re.DOTALL):
            _check_override(config, argument, *match.groups())


def _check_override(config, argument, path, text):
    value, above, value_type = config, "config", None
    for name in path.split("."):
        if not isinstance(value, ml_collections.ConfigDict):
            raise ValueError(f"{argument}: {above} is {value!r}, which has no fields")
        field = re.sub(r"\[\d+\]$", "", name)
        if field not in value:
            if new := RENAMED.get(path):
                raise ValueError(f"{argument}: this field has a new name, config.{new}")
            raise ValueError(
                f"{argument} names no field of the config: {above} has no field {name!r}, expected "
                f"one of {', '.join(value) or 'none'}{_checks.nearest(name, value)}"
            )
        value_type = value.get_type(field)
        value, above = value[field], f"{above}.{field}"
    if text is not None and value_type in (int, float):
        try:
            value_type(text)
        except ValueError:
            example = "" if value is None else f" such as {value!r}"
            raise ValueError(f"{argument}: expected {value_type.__name__}{example}") from None


def _execute(path: str) -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("config_file", path)
    module = ModuleType("config_file")
    module.__file__ = path
    loader.exec_module(module)
    return module


def _guarded(path, function, *arguments):
    """Returns the function's result; raises an error in the file as ValueError with its line."""
    try:
        return function(*arguments)
    except SyntaxError as error:
        raise ValueError(f"{error.filename}, line {error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        # ml_collections lists a whole section, with its values.
        text = re.sub(r' Other fields present: "\{.*\}"', "", " ".join(str(error).split()))
        if not isinstance(error, ValueError | OSError):
            text = f"{type(error).__name__}: {text}"
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f.lineno for f in frames if os.path.abspath(f.filename) == os.path.abspath(path)]
        where = f" ({path}, line {lines[-1]})" if lines else f" ({path})"
        raise ValueError(text + where) from error
