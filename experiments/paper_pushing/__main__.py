"""The paper's pushing: trains its policies, rolls them out and writes the report.

python -m experiments.paper_pushing --config=experiments/paper_pushing/config.py:quick
"""

from experiments import launch
from experiments.paper_pushing import table

if __name__ == "__main__":
    launch.run("paper_pushing", table.run)
