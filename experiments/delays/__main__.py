"""Success and smoothness of policies whose chunks come late.

python -m experiments.delays --config=experiments/delays/config.py:pushing --checkpoint=RUN,RUN
"""

import pathlib

from absl import flags

from ambient_jax.cli import console
from ambient_jax.data.paths import expanded
from experiments.delays import study

_EXAMPLE = "experiments/delays/config.py:pushing"


def main(_: list[str]) -> None:
    console.setup()
    with console.one_line_errors():
        options = flags.FLAGS
        if not options.config:
            raise ValueError(f"--config is missing, expected for example --config={_EXAMPLE}")
        workdir = options.workdir or f"runs/delays/{options.config.name}"
        folder = pathlib.Path(expanded(workdir))
        print(study.run(options.config, [expanded(c) for c in options.checkpoint], folder))


if __name__ == "__main__":
    from absl import app

    from ambient_jax.cli import launch

    launch.define()
    flags.DEFINE_list("checkpoint", [], "Folders of trained policies, separated by commas.")
    app.run(main, flags_parser=launch.parse)
