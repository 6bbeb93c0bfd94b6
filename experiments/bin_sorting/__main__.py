"""Trains a policy for bin sorting and rolls it out.

python -m experiments.bin_sorting --config=experiments/bin_sorting/config.py:correct
"""

from experiments import launch

if __name__ == "__main__":
    launch.run("bin_sorting")
