"""The maze table: trains its policies, rolls them out and writes the report.

python -m experiments.maze --config=experiments/maze/config.py:quick
"""

from experiments import launch
from experiments.maze import table

if __name__ == "__main__":
    launch.run("maze", table.run)
