"""Measures speed and success of environment and experts, and the effect of the gap.

python -m experiments.planar_pushing.measure --episodes=300
"""

import time

import numpy as np
import tqdm
from absl import flags

from ambient_jax.cli import console, report
from ambient_jax.estimates import wilson
from experiments.planar_pushing import data, expert, pushes, task
from experiments.planar_pushing.env import PlanarPushingEnv
from experiments.planar_pushing.scene import DT, TARGET, Physics, Scene, between
from experiments.table.report import percent

COLUMNS = (
    *("expert", "success in its physics", "95%", "replayed open loop in them", "and in the other"),
    *("95%", "expert in the other", "95%", "seconds, mean (range)", "demos/min", "steps/s"),
)


def expert_row(
    label: str, style: str, own: Physics, other: Physics, episodes: int, scene: Scene | None = None
) -> list[str]:
    """Returns a row of the table: an expert that believes in its ``own`` physics, seeds 0 and on.

    Its successful demonstrations are replayed open loop in both physics; "expert in the other" is
    closed loop with the same belief. Raises ValueError if no demonstration succeeds.
    """
    scene = scene or Scene()
    home, foreign = PlanarPushingEnv(scene, own), PlanarPushingEnv(scene, other)
    pushes.catalogue(own)  # cached, so that it does not count as time of a demonstration
    seeds = range(episodes)
    begin = time.process_time()
    demonstrations = [
        expert.demonstrate(home, style, seed)
        for seed in tqdm.tqdm(seeds, desc=label, unit="episode", leave=False)
    ]
    seconds = time.process_time() - begin
    good = [(seed, demo) for seed, demo in zip(seeds, demonstrations, strict=True) if demo.success]
    if not good:
        raise ValueError(f"no demonstration of {label} succeeds, expected most: see scene.Scene")
    again = [expert.replay(home, seed, demo.actions).success for seed, demo in good]
    blind = [expert.replay(foreign, seed, demo.actions).success for seed, demo in good]
    moved = [expert.demonstrate(foreign, style, seed, own).success for seed in seeds]
    times = DT * np.array([len(demo.actions) for demo in demonstrations])
    return [
        label,
        *percent(wilson(len(good), episodes)),
        f"{100 * np.mean(again):.1f}%",
        *percent(wilson(sum(blind), len(blind))),
        *percent(wilson(sum(moved), episodes)),
        f"{times.mean():.1f} ({times.min():.1f} to {times.max():.1f})",
        f"{60 * len(good) / seconds:.0f}",
        f"{steps_per_second(home):.0f}",
    ]


def steps_per_second(env: PlanarPushingEnv, steps: int = 2000) -> float:
    """Measures control steps per second of CPU time, under random targets."""
    rng = np.random.default_rng(0)
    targets = rng.uniform(-0.1, 0.1, (steps, 2))
    env.reset(seed=0)
    begin = time.process_time()
    for target in targets:
        env.step(target)
    return steps / (time.process_time() - begin)


def main(_: list[str]) -> None:
    console.setup()
    with console.one_line_errors():
        options = flags.FLAGS
        if options.episodes < 1:
            raise ValueError(f"--episodes={options.episodes}, expected at least 1")
        rows = []
        for level in map(float, options.gaps):
            source = between(level)
            for world, own, other in (("target", TARGET, source), ("source", source, TARGET)):
                style = data.STYLE[world]
                label = f"{world}, {style}, gap {level:g}"
                rows.append(expert_row(label, style, own, other, options.episodes))
        print(report.markdown(COLUMNS, rows))
        print(
            f"\n{options.episodes} episodes each, one process; rates per minute and second of its "
            f"CPU time.\nSuccess: at rest within {task.asked(Scene())}. Wilson's intervals."
        )


if __name__ == "__main__":
    flags.DEFINE_integer("episodes", 300, "Episodes of each expert.")
    flags.DEFINE_list("gaps", ["1"], "Levels of the gap, see scene.between.")
    console.run(main)
