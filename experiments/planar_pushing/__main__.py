"""The table of planar pushing: trains its policies, rolls them out and writes the report.

python -m experiments.planar_pushing --config=experiments/planar_pushing/config.py:quick
"""

from experiments import launch
from experiments.planar_pushing import table

if __name__ == "__main__":
    launch.run("planar_pushing", table.run)
