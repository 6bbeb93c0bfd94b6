"""What a run prints: this project's own lines, warnings of everything else, errors in one line."""

import contextlib
import logging as python_logging
import os
import sys
from collections.abc import Iterator

import jax
from absl import logging


def setup() -> None:
    """Quiets libraries, and keeps compiled programs for the next start of the same run."""
    if logging.get_verbosity() < logging.INFO:
        logging.set_verbosity(logging.INFO)
    handler = logging.get_absl_handler()
    handler.addFilter(_ours_or_warning)
    handler.setFormatter(python_logging.Formatter("%(message)s"))
    if jax.config.jax_compilation_cache_dir is None:  # else JAX_COMPILATION_CACHE_DIR says where
        jax.config.update("jax_compilation_cache_dir", os.path.join("runs", ".compiled"))


def _ours_or_warning(record: python_logging.LogRecord) -> bool:
    theirs = any(name in record.pathname for name in ("orbax", "xla_bridge", "tensorflow_datasets"))
    return record.levelno >= python_logging.WARNING or not theirs


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Ends the program with one line for bad input; ``--verbosity=1`` shows where it came from."""
    try:
        yield
    except (ValueError, OSError, FloatingPointError) as error:
        if logging.get_verbosity() > logging.INFO:
            raise
        sys.exit(f"error: {error}\n(--verbosity=1 shows the traceback)")
