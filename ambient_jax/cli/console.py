"""Output of a command: this project's log, warnings of its libraries, errors in one line."""

import contextlib
import logging as python_logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence

import jax
from absl import app, flags, logging

from ambient_jax._packages import MissingError


def run(main: Callable[[list[str]], None]) -> None:
    """Parses the flags and runs ``main([program])``."""
    app.run(main, flags_parser=parse)


def parse(argv: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Parses a command line that has flags only; an error ends the program with one line."""
    with one_line_errors(argv):
        try:
            remaining = values(argv)
        except flags.Error as error:
            raise ValueError(f"{error} (--help lists the flags)") from error
        if len(remaining) > 1:
            raise ValueError(f"unexpected arguments {remaining[1:]}, expected flags such as --help")
        return remaining


def setup() -> None:
    """Quiets libraries and caches compiled programs for the next start of the same run."""
    if logging.get_verbosity() < logging.INFO:
        logging.set_verbosity(logging.INFO)
    handler = logging.get_absl_handler()
    handler.addFilter(_ours_or_warning)
    handler.setFormatter(python_logging.Formatter("%(message)s"))
    if not jax.config.values["jax_compilation_cache_dir"]:  # nor JAX_COMPILATION_CACHE_DIR
        jax.config.update("jax_compilation_cache_dir", os.path.join("runs", ".compiled"))


def _ours_or_warning(record: python_logging.LogRecord) -> bool:
    libraries = ("orbax", "xla_bridge", "tensorflow_datasets")
    is_ours = not any(name in record.pathname for name in libraries)
    return record.levelno >= python_logging.WARNING or is_ours


@contextlib.contextmanager
def one_line_errors(argv: Sequence[str] = ()) -> Iterator[None]:
    """Ends the program with one line for bad input or a missing package; ``--verbosity=1`` shows
    the traceback.

    Args:
      argv: the command line, needed until its flags are parsed.
    """
    try:
        yield
    except (ValueError, OSError, FloatingPointError, MissingError) as error:
        verbose = any(re.match(r"--?(v|verbosity)=[1-9]", argument) for argument in argv)
        if verbose or logging.get_verbosity() > logging.INFO:
            raise
        sys.exit(f"error: {' '.join(str(error).split())}\n(--verbosity=1 shows the traceback)")
