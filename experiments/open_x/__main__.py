"""The general trainer: data of any RLDS sources in, a policy and a report out.

    python -m experiments.open_x --config=experiments/open_x/config.py:demo

The same command on the same workdir carries on where it was.
"""

import os

from absl import app, flags
from ml_collections import config_flags

from ambient_jax.train import config as config_lib
from ambient_jax.train import parallel, trainer
from experiments import console, tasks

_CONFIG = config_flags.DEFINE_config_file("config", help_string="file.py:variant; see config.py")
_WORKDIR = flags.DEFINE_string("workdir", "", "results; default runs/open_x/<config name>")
_COORDINATOR = flags.DEFINE_string(
    "coordinator", "", 'host:port of process 0 in a multi-host run, "auto" on a TPU pod or Slurm'
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", 0, "hosts, unless the coordinator is auto")
_PROCESS_ID = flags.DEFINE_integer("process_id", -1, "this host, unless the coordinator is auto")


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}, expected flags such as --config=...")
    config = _CONFIG.value
    workdir = _WORKDIR.value or os.path.join("runs", "open_x", config.name)
    console.setup()
    with console.one_line_errors():
        parallel.initialize(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
        config_lib.check(config)
        task = tasks.get(config.task.name)
        if task:
            task.build(config)
        result = trainer.train(config, workdir)
        if task and not result.signal:
            task.evaluate(config, workdir)


if __name__ == "__main__":
    app.run(main)
