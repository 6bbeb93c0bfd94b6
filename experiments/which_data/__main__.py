"""Chooses bounds and shares without rollouts, and judges them by rollouts over sizes and shifts.

python -m experiments.which_data --config=experiments/which_data/config.py:grid
"""

from experiments import launch
from experiments.which_data import table

if __name__ == "__main__":
    launch.run("which_data", table.run)
