"""Makes bounds files for the corrupt sources of a config.

python -m ambient_jax.annotate --config=my_config.py [--workdir=...] [--config.<field>=...]
"""

from ambient_jax.annotate import command
from ambient_jax.cli import launch

if __name__ == "__main__":
    launch.run("annotate", command.run)
