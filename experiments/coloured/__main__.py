"""Does coloured noise make GCS and RRT plans alike earlier than white noise of equal power?

python -m experiments.coloured --config=experiments/coloured/config.py:quick
"""

from experiments import launch
from experiments.coloured import table

if __name__ == "__main__":
    launch.run("coloured", table.run)
