"""The table of PushT: trains its policies, rolls them out and writes the report.

python -m experiments.pusht --config=experiments/pusht/config.py:quick
"""

from experiments import launch
from experiments.pusht import table

if __name__ == "__main__":
    launch.run("pusht", table.run)
