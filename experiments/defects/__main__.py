"""Judges the advice about ten kinds of defects by the policy that is trained on it.

python -m experiments.defects --config=experiments/defects/config.py:table
"""

from experiments import launch
from experiments.defects import table

if __name__ == "__main__":
    launch.run("defects", table.run)
