"""The table of shifted observations: judges, trains, rolls out and writes the report.

python -m experiments.shifted --config=experiments/shifted/config.py:quick
"""

from experiments import launch
from experiments.shifted import table

if __name__ == "__main__":
    launch.run("shifted", table.run)
