"""What every command with a config does: flags, checks, hosts, its job, errors in one line.

python -m ambient_jax.train --config=my_config.py:<variant> [--workdir=...] [--config.<field>=...]
"""

import functools
import os
import re
from collections.abc import Callable, Mapping, Sequence

import ml_collections
from absl import app, flags
from ml_collections import config_flags

from ambient_jax.cli import config_file, console, tasks
from ambient_jax.data.paths import expanded
from ambient_jax.train import config as config_lib
from ambient_jax.train import lock, parallel, trainer

Job = Callable[[ml_collections.ConfigDict, str], None]

flags.disclaim_key_flags()  # so that --help of a command lists them


def define(values: flags.FlagValues = flags.FLAGS, argv: Sequence[str] | None = None) -> None:
    """Defines the flags of a command; ``argv`` is by default the process's own."""
    config_flags.DEFINE_config_file(
        "config", help_string="file.py or file.py:variant", flag_values=values, sys_argv=argv
    )
    text, whole = (
        functools.partial(define_flag, flag_values=values)
        for define_flag in (flags.DEFINE_string, flags.DEFINE_integer)
    )
    text("workdir", "", "folder of results; default: runs/<command>/<config.name>")
    text("coordinator", "", 'host:port of process 0; "auto" on a TPU pod or Slurm; "" for one host')
    whole("num_processes", 0, "number of hosts, unless the coordinator is auto")
    whole("process_id", -1, "index of this host, unless the coordinator is auto")
    whole("coordinator_timeout", parallel.TIMEOUT, "seconds that hosts wait for each other")


def run(command: str, job: Job, *, example: str = "my_config.py") -> None:
    """Parses the flags and runs ``job(config, workdir)``; on the same workdir it carries on.

    ``command`` is a folder of the default workdir, ``example`` a ``--config`` for messages.
    """
    define()
    app.run(lambda argv: _main(command, job, example, argv), flags_parser=parse)


def trains(short_names: Mapping[str, str] | None = None) -> Job:
    """Returns the job that builds a task's data, trains one policy and evaluates it.

    ``short_names`` are those of tasks, see ``tasks.get``.
    """

    @lock.alone
    def job(config: ml_collections.ConfigDict, workdir: str) -> None:
        task = tasks.get(config.task.name, short_names)
        if task:
            task.build(config)
        result = trainer.train(config, workdir)
        if hasattr(task, "evaluate") and not result.signal:
            task.evaluate(config, workdir)

    return job


def check_workdir(workdir: str) -> None:
    """Raises ValueError for a bucket, which pathlib would take for a folder here named gs:."""
    if "://" in workdir:
        raise ValueError(
            f"--workdir is {workdir!r}, expected a folder that all hosts see (NFS, or a bucket "
            "mounted by gcsfuse): metrics are appended to; data may lie in a bucket"
        )


def parse(argv: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Parses flags, --config and its fields among them; returns the arguments that are none.

    A wrong one ends the program with one line.
    """
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
    """Raises ValueError for a wrong config file, variant or field; returns where all are right."""
    for flag in given:
        _, equals, value = flag.partition("=")
        value = value if equals else next(iter(argv[list(argv).index(flag) + 1 :]), "")
        config_file.check_overrides(config_file.load(value), argv)


def checked(
    command: str,
    argv: list[str],
    values: flags.FlagValues = flags.FLAGS,
    example: str = "my_config.py",
) -> tuple[ml_collections.ConfigDict, str]:
    """Returns the config and the workdir of parsed flags; raises ValueError for a wrong one."""
    if len(argv) > 1:
        raise ValueError(f"unexpected arguments {argv[1:]}, expected flags such as --config=")
    config = values.config
    if config is None:
        raise ValueError(f"--config is missing, expected for example --config={example}")
    config_lib.check(config)
    workdir = expanded(values.workdir) or os.path.join("runs", command, config.name)
    check_workdir(workdir)
    return config, workdir


def _main(command: str, job: Job, example: str, argv: list[str]) -> None:
    console.setup()
    with console.one_line_errors():
        config, workdir = checked(command, argv, example=example)
        hosts = flags.FLAGS
        parallel.initialize(
            *(hosts.coordinator, hosts.num_processes, hosts.process_id),
            timeout=hosts.coordinator_timeout,
        )
        job(config, workdir)
