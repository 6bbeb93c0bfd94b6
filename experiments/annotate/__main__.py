"""Bounds from a noise classifier, as files that training joins, with tables and figures.

python -m experiments.annotate --config=experiments/annotate/config.py:maze
"""

from experiments import launch
from experiments.annotate import annotate

if __name__ == "__main__":
    launch.run("annotate", annotate.run)
