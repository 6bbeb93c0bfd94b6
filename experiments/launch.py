"""What every experiment's command does: flags, data, training, evaluation, errors in one line.

python -m experiments.<name> --config=experiments/<name>/config.py:<variant> [--workdir=...]
"""

import os
import sys
from collections.abc import Callable

import ml_collections
from absl import app, flags
from ml_collections import config_flags

from ambient_jax.train import config as config_lib
from ambient_jax.train import lock, parallel, trainer
from experiments import console, tasks

_CONFIG = config_flags.DEFINE_config_file("config", help_string="file.py:variant")
_WORKDIR = flags.DEFINE_string("workdir", "", "results; default runs/<experiment>/<config name>")
_COORDINATOR = flags.DEFINE_string(
    "coordinator", "", 'host:port of process 0 in a multi-host run, "auto" on a TPU pod or Slurm'
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", 0, "hosts, unless the coordinator is auto")
_PROCESS_ID = flags.DEFINE_integer("process_id", -1, "this host, unless the coordinator is auto")


def run(experiment: str, job: Callable[[ml_collections.ConfigDict, str], None] | None = None):
    """Parses the flags and runs; the same command on the same workdir carries on.

    Args:
      experiment: its package's name.
      job: ``job(config, workdir)``; by default ``train_and_evaluate``.
    """
    job = job or train_and_evaluate
    app.run(lambda argv: _main(experiment, job, argv), flags_parser=_parse)


@lock.alone
def train_and_evaluate(config: ml_collections.ConfigDict, workdir: str) -> None:
    """Builds the task's data, trains one policy and evaluates it where the task can."""
    task = tasks.get(config.task.name)
    if task:
        task.build(config)
    result = trainer.train(config, workdir)
    if hasattr(task, "evaluate") and not result.signal:
        task.evaluate(config, workdir)


def check_workdir(workdir: str) -> None:
    """Raises ValueError for a bucket, which pathlib would take for a folder here named gs:."""
    if "://" in workdir:
        raise ValueError(
            f"--workdir is {workdir!r}, expected a folder that all hosts see (NFS, or a bucket "
            "mounted by gcsfuse): metrics are appended to; data may lie in a bucket"
        )


def _parse(argv: list[str]) -> list[str]:
    try:
        return app.parse_flags_with_usage(argv)
    except (AttributeError, KeyError, TypeError) as error:
        # A misspelt --config.field; the config's own error names the nearest field.
        reason = " ".join(str(error.args[0] if error.args else error).split())
        sys.exit(f"error: a --config.<field> flag names no field of the config: {reason}")


def _main(experiment: str, job: Callable, argv: list[str]) -> None:
    console.setup()
    with console.one_line_errors():
        if len(argv) > 1:
            raise ValueError(f"unexpected arguments {argv[1:]}, expected flags such as --config=")
        if _CONFIG.value is None:
            raise ValueError(
                f"--config is missing, expected for example "
                f"--config=experiments/{experiment}/config.py:debug"
            )
        config = _CONFIG.value
        config_lib.check(config)
        workdir = _WORKDIR.value or os.path.join("runs", experiment, config.name)
        check_workdir(workdir)
        parallel.initialize(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
        job(config, workdir)
