"""What every experiment's command does: flags, data, training, evaluation, errors in one line.

python -m experiments.<name> --config=experiments/<name>/config.py:<variant> [--workdir=...]
"""

import os
import re
from collections.abc import Callable, Sequence

import ml_collections
from absl import app, flags
from ml_collections import config_flags

from ambient_jax.cli import config_file, console
from ambient_jax.data.paths import expanded
from ambient_jax.train import config as config_lib
from ambient_jax.train import lock, parallel, trainer
from experiments import tasks


def define(values: flags.FlagValues = flags.FLAGS, argv: Sequence[str] | None = None) -> None:
    """Defines the flags of an experiment's command; ``argv`` is by default the process's own."""
    config_flags.DEFINE_config_file(
        "config", help_string="file.py:variant", flag_values=values, sys_argv=argv
    )
    text = lambda *flag: flags.DEFINE_string(*flag, flag_values=values)  # noqa: E731
    whole = lambda *flag: flags.DEFINE_integer(*flag, flag_values=values)  # noqa: E731
    text("workdir", "", "results; default runs/<experiment>/<config name>")
    text(
        *("coordinator", ""),
        'host:port of process 0 in a multi-host run, "auto" on a TPU pod or Slurm',
    )
    whole("num_processes", 0, "hosts, unless the coordinator is auto")
    whole("process_id", -1, "this host, unless the coordinator is auto")
    whole("coordinator_timeout", parallel.TIMEOUT, "seconds that hosts wait for each other")


define()


def run(experiment: str, job: Callable[[ml_collections.ConfigDict, str], None] | None = None):
    """Parses the flags and runs; the same command on the same workdir carries on.

    Args:
      experiment: its package's name.
      job: ``job(config, workdir)``; by default ``train_and_evaluate``.
    """
    job = job or train_and_evaluate
    app.run(lambda argv: _main(experiment, job, argv), flags_parser=parse)


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


def parse(argv: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Parses flags, --config and its fields among them, and returns what is left; what is wrong
    ends the program with one line."""
    with console.one_line_errors(argv):
        argv = [re.sub(r"^(--?config=)(~.*)", lambda m: m[1] + expanded(m[2]), a) for a in argv]
        given = [a for a in argv if re.match(r"--?config(=|$)", a)]
        if len(given) > 1:
            raise ValueError(f"--config is given {len(given)} times, expected one of {given}")
        try:
            rest = values(argv)
        except SystemExit:  # --help, or the config file's own
            _explain(argv, given)
            raise
        except Exception as error:  # of the flags, or whatever the config file raises
            _explain(argv, given)
            raise ValueError(f"{error} (--help lists the flags)") from error
        # The flag leaves a file that it cannot read to whoever looks at the config first.
        if given and not isinstance(values.config, ml_collections.ConfigDict):
            _explain(argv, given)
        return rest


def _explain(argv, given):
    """Raises what is wrong with the config's file, its variant or its fields, if anything is."""
    for flag in given:
        _, equals, value = flag.partition("=")
        value = value if equals else next(iter(argv[list(argv).index(flag) + 1 :]), "")
        config_file.check_overrides(config_file.load(value), argv)


def checked(
    experiment: str, argv: list[str], values: flags.FlagValues = flags.FLAGS
) -> tuple[ml_collections.ConfigDict, str]:
    """The config and the workdir of parsed flags; raises ValueError for what cannot work."""
    if len(argv) > 1:
        raise ValueError(f"unexpected arguments {argv[1:]}, expected flags such as --config=")
    config = values.config
    if config is None:
        raise ValueError(
            f"--config is missing, expected for example "
            f"--config=experiments/{experiment}/config.py:debug"
        )
    config_lib.check(config)
    workdir = expanded(values.workdir) or os.path.join("runs", experiment, config.name)
    check_workdir(workdir)
    return config, workdir


def _main(experiment: str, job: Callable, argv: list[str]) -> None:
    console.setup()
    with console.one_line_errors():
        config, workdir = checked(experiment, argv)
        hosts = flags.FLAGS
        parallel.initialize(
            *(hosts.coordinator, hosts.num_processes, hosts.process_id),
            timeout=hosts.coordinator_timeout,
        )
        job(config, workdir)
