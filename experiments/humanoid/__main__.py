"""Policies of a recorded data set, part of which was spoilt as real collection spoils it.

python -m experiments.humanoid --config=experiments/humanoid/config.py:table \\
    --config.task.recorded=/data/lerobot_g1
"""

from experiments import launch
from experiments.humanoid import table

if __name__ == "__main__":
    launch.run("humanoid", table.run)
