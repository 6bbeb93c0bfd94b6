"""Looks at a data set of any format, or converts it.

python -m ambient_jax.data DIR [--split=train] [--html=FILE] [--episodes=3] [--hz=RATE]
python -m ambient_jax.data convert ...

The first command prints a page about the data set: its fields with ranges and outliers, cameras,
languages, lengths of episodes, jerk, idle share, and problems. It writes the page with pictures and
plots as HTML (``NAME.html`` in the current folder, ``--html=none`` for none). Damaged episodes are
listed and do not stop it. It decodes videos only in the episodes that it shows, and finds cut
videos and repeated pictures there; of other videos it reads the headers.
"""

import importlib
import sys
from collections.abc import Sequence

from ambient_jax.data.files import first_line
from ambient_jax.data.look import command
from ambient_jax.open_x import registry


def main(arguments: Sequence[str]) -> None:
    """Runs the command that the first word names; ``look`` if it is a folder."""
    first, *options = arguments or [""]
    if first == "convert":
        try:
            importlib.import_module("ambient_jax.data.convert").main(options)
        except (ValueError, OSError, ImportError) as error:
            sys.exit(f"error: {first_line(error)}")
    else:
        command.run(options if first == "look" else arguments, _rate)


def _rate(name: str) -> float | None:
    """Returns the control rate in the tables of Open-X."""
    for row in registry.data_sets().values():
        if name in (row.name, row.tfds):
            return row.hz
    return None


if __name__ == "__main__":
    main(sys.argv[1:])
