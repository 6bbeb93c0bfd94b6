"""Judges all chunks of large data by shard, with the classifier of an annotation.

    python -m ambient_jax.annotate --config=part.py --workdir=runs/part       # such as train[:2%]
    python -m ambient_jax.annotate.judge --config=all.py --annotation=runs/part --workdir=runs/all

Shards are judged by ``--processes`` on Apache Beam; an interrupted run goes on where it was. The
data's statistics come from the cache, see ``ambient_jax.data.prepare``.
"""

import os
import sys

from absl import app, flags

from ambient_jax.annotate import config as config_of_command
from ambient_jax.annotate import judging
from ambient_jax.cli import console, launch
from ambient_jax.data.prepare import engine


def estimate(judged: judging.Judged) -> str:
    """Returns a line about the rate, and the time that all of Open-X would take at it."""
    if not judged.chunks:
        return "nothing was left to judge"
    rate, mean = judged.chunks / judged.seconds, judged.chunks / judged.episodes
    everything = judging.OPEN_X_EPISODES
    return (
        f"{judged.chunks} chunks of {judged.episodes} episodes in {judged.seconds:.0f} s, "
        f"{rate:.0f} a second. The {everything / 1e6:.1f}M episodes of Open X-Embodiment, at "
        f"{mean:.0f} chunks each as here, would take {everything * mean / rate / 3600:.0f} hours."
    )


def main(argv: list[str]) -> None:
    """Runs the command."""
    values = flags.FLAGS
    console.setup()
    with console.one_line_errors():
        config, workdir = launch.checked("judge", argv, buckets=False)
        if not values.annotation:
            raise ValueError("--annotation is missing, expected the workdir of an annotation")
        data = config_of_command.completed(config).data
        given = dict(processes=values.processes, options=engine.split(values.beam_options))
        judged = judging.judge_all(data, values.annotation, workdir, **given)
    for what, reason in judged.failures:
        print(f"failed: {what}: {reason}", file=sys.stderr)
    print(estimate(judged))
    for path in judged.bounds.values():
        print(f"{path}: join it as config.data.bounds")
    if judged.failures:
        sys.exit(1)


if __name__ == "__main__":
    launch.define()
    flags.DEFINE_string("annotation", "", "workdir of the annotation whose classifier judges")
    flags.DEFINE_integer("processes", os.cpu_count(), "worker processes; 0: this one, without Beam")
    flags.DEFINE_multi_string("beam_options", [], 'such as "--runner=FlinkRunner,..."')
    app.run(main, flags_parser=launch.parse)
