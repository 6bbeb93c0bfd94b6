"""The general trainer: data of any RLDS sources in, a policy and a report out.

python -m experiments.open_x --config=experiments/open_x/config.py:demo
"""

from experiments import launch

if __name__ == "__main__":
    launch.run("open_x")
