"""Makes bounds files for the corrupt sources of a config, or reports what a pile of data is worth.

python -m ambient_jax.annotate --config=my_config.py [--workdir=...] [--config.<field>=...]
python -m ambient_jax.annotate --clean=DIR --pile=DIR [--pile=DIR ...] [--workdir=...] [--quick]
"""

import sys

from ambient_jax.annotate import command
from ambient_jax.annotate.pile import command as pile
from ambient_jax.cli import launch

if __name__ == "__main__":
    if pile.is_meant(sys.argv[1:]):
        pile.main(sys.argv[1:])
    else:
        launch.run("annotate", command.run)
