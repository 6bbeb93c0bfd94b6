"""The table of bin sorting: trains its policies, rolls them out and writes the report.

python -m experiments.bin_sorting --config=experiments/bin_sorting/config.py:quick
"""

from experiments import launch
from experiments.bin_sorting import table

if __name__ == "__main__":
    launch.run("bin_sorting", table.run)
