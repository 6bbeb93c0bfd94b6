"""One policy of planar pushing: builds the data, trains, rolls out and writes the report.

python -m experiments.planar_pushing --config=experiments/planar_pushing/config.py:ambient
"""

from experiments import launch

if __name__ == "__main__":
    launch.run("planar_pushing")
