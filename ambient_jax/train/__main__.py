"""Trains one policy on the data of a config; the task that it names builds and evaluates.

python -m ambient_jax.train --config=my_config.py [--workdir=...] [--config.<field>=...]
"""

from ambient_jax.cli import launch

if __name__ == "__main__":
    launch.run("train", launch.trains(), buckets=True)
