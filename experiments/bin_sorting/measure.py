"""Measures the speed of the environment and the expert, and the expert's success.

python -m experiments.bin_sorting.measure --episodes=300
"""

import time

import numpy as np
import tqdm
from absl import flags

from ambient_jax.cli import console, report
from ambient_jax.estimates import wilson
from experiments.bin_sorting import expert
from experiments.bin_sorting.env import BinSortingEnv
from experiments.bin_sorting.metrics import ratio, summarise
from experiments.table.report import percent

COLUMNS = (
    *("rule", "blocks placed as told", "95%", "episodes with all", "95%", "correct logic"),
    *("steps, mean (range)", "steps/s", "demos/min"),
)


def expert_row(rule: str, episodes: int, *, env: BinSortingEnv | None = None) -> list[str]:
    """Returns a row of the table: the expert with one rule in scenes of seeds 0 and on."""
    env = env or BinSortingEnv()
    begin = time.process_time()
    seeds = tqdm.tqdm(range(episodes), desc=rule, unit="episode")
    demonstrations = [expert.demonstrate(env, rule, seed) for seed in seeds]
    seconds = time.process_time() - begin
    placements = np.array([demo.placements for demo in demonstrations])
    right = (placements == np.array([demo.bins for demo in demonstrations])).sum(1)
    lengths = np.array([len(demo.actions) for demo in demonstrations])
    return [
        rule,
        *percent(ratio(right, np.full(episodes, env.blocks)), 2),
        *percent(wilson(int((right == env.blocks).sum()), episodes), 2),
        f"{100 * summarise(placements, env.scene.colours).logic.value:.1f}%",
        f"{lengths.mean():.0f} ({lengths.min()} to {lengths.max()})",
        f"{lengths.sum() / seconds:.0f}",
        f"{60 * episodes / seconds:.0f}",
    ]


def main(_: list[str]) -> None:
    console.setup()
    with console.one_line_errors():
        if flags.FLAGS.episodes < 1:
            raise ValueError(f"--episodes={flags.FLAGS.episodes}, expected at least 1")
        rows = [expert_row(rule, flags.FLAGS.episodes) for rule in expert.RULES]
        print(report.markdown(COLUMNS, rows))
        print(
            f"\n{flags.FLAGS.episodes} episodes a rule, one process; per second and minute of its "
            "CPU time. Intervals: bootstrap over episodes for blocks, Wilson's for episodes."
        )


if __name__ == "__main__":
    flags.DEFINE_integer("episodes", 300, "Episodes of each rule.")
    console.run(main)
