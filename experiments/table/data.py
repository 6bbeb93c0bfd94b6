"""Data sets of demonstrations: one for each source, and held-out ones."""

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
from absl import flags, logging
from jax.experimental import multihost_utils

from ambient_jax.cli import console
from ambient_jax.data.paths import expanded
from experiments import demos

_STREAM = 1_000_000  # attempts of a source and seed
_HELD_OUT = 500_000  # attempts of held-out demonstrations start here


def attempt_number(source: int, sources: int, seed: int, attempt: int) -> int:
    """Returns the seed of an attempt: below 2^31, distinct for each source, seed and attempt, and
    never one of an evaluation (``checks.evaluation_seeds``)."""
    return (seed * sources + source) * _STREAM + attempt + _STREAM


def build(
    root: str | os.PathLike[str],
    prefix: str,
    version: str,
    features: Any,
    counts: Mapping[str, int],
    held_out: int,
    seed: tuple[int, int],
    source: Callable[[str, int, int], tuple[Mapping[str, Any], Iterable[dict[str, Any]]]],
) -> dict[str, Path]:
    """Writes data sets below ``root``; returns their directories by source.

    Data sets that match their ``key`` are kept. A smaller number of demonstrations is a split: the
    first 50 are the same of 50 as of 150.

    Args:
      root: directory of all data sets; created if missing.
      prefix, version: of the data sets.
      features: of an episode, see ``rlds_features``.
      counts: demonstrations of each source; 0 for no such data set.
      held_out: more of each of these sources that no policy sees, to test on; 0 for none.
      seed: the seed, and the largest allowed.
      source: ``source(name, count, first)`` returns the key (JSON values of all that the episodes
        depend on) and the ``count`` demonstrations from attempt ``first`` on.
    """
    if min(*counts.values(), held_out) < 0 or not 0 <= seed[0] <= seed[1]:
        raise ValueError(
            f"asked for {dict(counts)} demonstrations and {held_out} held out with seed {seed[0]}, "
            f"expected no negative count and a seed in 0 to {seed[1]}"
        )
    names = [name for name, count in counts.items() if count]
    recipes = {name: (name, counts[name], 0) for name in names}
    if held_out:
        recipes |= {f"{name}_held_out": (name, held_out, _HELD_OUT) for name in names}
    root = Path(expanded(root))
    directories = {}
    for name, recipe in recipes.items():
        key, episodes = source(*recipe)
        target = root, f"{prefix}_{name}", version
        directories[name] = demos.write(*target, key, features, episodes)
    return directories


def build_once(name: str, build: Callable[[], object]) -> None:
    """Calls ``build()`` on the first host; the others wait until it is done."""
    if jax.process_index() == 0:
        build()
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def command(build: Callable[..., Mapping[str, Path]], **defaults: Any) -> None:
    """Runs the command of a module of data: the numbers and texts of ``build(root, ...)`` are its
    flags, its docstring is the help, ``defaults`` replace ``build``'s own."""
    parameters = {n: p.default for n, p in inspect.signature(build).parameters.items()}
    parameters = {n: v for n, v in (parameters | defaults).items() if type(v) in _FLAGS}
    flags.DEFINE_string("root", None, "Directory of all data sets.", required=True)
    for name, value in parameters.items():
        default = list(value) if isinstance(value, tuple) else value
        _FLAGS[type(value)](name, default, f"The argument {name} of build, see the module.")

    def main(_):
        console.setup()
        with console.one_line_errors():
            values = {n: flags.FLAGS[n].value for n in parameters}
            values = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
            for name, directory in build(flags.FLAGS.root, **values).items():
                logging.info("%s: %s", name, directory)

    console.run(main)


_FLAGS: dict[type, Callable] = {
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
    tuple: flags.DEFINE_list,
}
