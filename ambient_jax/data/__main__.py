"""Looks at a data set of any format, or converts it.

python -m ambient_jax.data DIR [--split=train] [--html=FILE] [--episodes=3] [--hz=RATE]
python -m ambient_jax.data convert ...

The first prints a page about the data set: its fields with ranges and outliers, cameras, languages,
lengths of episodes, jerk, idle share, and what is wrong. It writes the page with pictures and plots
as HTML (``NAME.html`` here, ``--html=none`` for none). Damaged episodes are listed, not fatal.
Videos are decoded in the episodes that are shown, so cut videos and repeated pictures are found
there; of the others the headers are read.
"""

import importlib
import sys
from collections.abc import Sequence

from ambient_jax.data.files import first_line
from ambient_jax.data.look import command
from ambient_jax.open_x import registry


def main(arguments: Sequence[str]) -> None:
    """Runs the command that the first word names; ``look`` where it is a folder."""
    first, *rest = arguments or [""]
    if first == "convert":
        try:
            importlib.import_module("ambient_jax.data.convert").main(rest)
        except (ValueError, OSError, ImportError) as error:
            sys.exit(f"error: {first_line(error)}")
    else:
        command.run(rest if first == "look" else arguments, _rate)


def _rate(name: str) -> float | None:
    """The control rate that the tables of Open-X state."""
    for row in registry.data_sets().values():
        if name in (row.name, row.tfds):
            return row.hz
    return None


if __name__ == "__main__":
    main(sys.argv[1:])
