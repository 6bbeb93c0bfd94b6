"""The arm's table: trains its policies, rolls them out and writes the report.

python -m experiments.arm --config=experiments/arm/config.py:quick
"""

from experiments import launch
from experiments.arm import table

if __name__ == "__main__":
    launch.run("arm", table.run)
