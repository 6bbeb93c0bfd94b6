"""Runs a command with a config: parses flags, checks, connects hosts, reports errors in one line.

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
from ambient_jax.data.bucket import is_bucket
from ambient_jax.data.paths import expanded, folder
from ambient_jax.train import config as config_lib
from ambient_jax.train import lock, mirror, parallel, publication, trainer

Job = Callable[[ml_collections.ConfigDict, str], None]

flags.disclaim_key_flags()  # so that --help of a command lists them


def define(values: flags.FlagValues = flags.FLAGS, argv: Sequence[str] | None = None) -> None:
    """Defines the flags of a command; ``argv`` defaults to that of the process."""
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


def run(command: str, job: Job, *, example: str = "my_config.py", buckets: bool = False) -> None:
    """Parses the flags and runs ``job(config, workdir)``; the same workdir resumes the job.

    ``command`` is a folder of the default workdir, ``example`` a ``--config`` for messages;
    ``buckets`` says that the job takes a workdir in a bucket.
    """
    define()
    app.run(lambda argv: _main(command, job, example, argv, buckets), flags_parser=parse)


def trains(short_names: Mapping[str, str] | None = None) -> Job:
    """Returns the job that builds a task's data, trains one policy and evaluates it.

    ``short_names`` are short names of tasks, see ``tasks.get``.
    """

    @lock.alone
    def job(config: ml_collections.ConfigDict, workdir: str) -> None:
        task = tasks.get(config.task.name, short_names)
        if task:
            task.build(config)
        result = trainer.train(config, workdir)
        if hasattr(task, "evaluate") and not result.signal:
            with mirror.local_copy(workdir) as local:
                task.evaluate(config, os.fspath(local))
            publication.at_the_end(folder(workdir), again=True)

    return job


def check_workdir(workdir: str, buckets: bool = True) -> None:
    """Raises ValueError for a URL that is no folder in a bucket, or any where ``buckets`` is False:
    pathlib would take it for a local folder named gs:."""
    if "://" not in workdir:
        return
    if not buckets:
        raise ValueError(
            f"--workdir is {workdir!r}, expected a local folder: only a training takes a bucket; "
            "copy its results there afterwards"
        )
    key = workdir.partition("://")[2].partition("/")[2].strip("/")
    if not is_bucket(workdir) or not key:
        raise ValueError(
            f"--workdir is {workdir!r}, expected a folder that all hosts see, or one in a bucket, "
            "such as gs://my-bucket/runs/mine or s3://my-bucket/runs/mine"
        )


def parse(argv: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Parses flags, including --config and its fields; returns the other arguments.

    An error ends the program with one line.
    """
    with console.one_line_errors(argv):
        argv = [re.sub(r"^(--?config=)(~.*)", lambda m: m[1] + expanded(m[2]), a) for a in argv]
        configs = [a for a in argv if re.match(r"--?config(=|$)", a)]
        if len(configs) > 1:
            raise ValueError(f"--config is given {len(configs)} times, expected one of {configs}")
        try:
            remaining = values(argv)
        except SystemExit:  # from --help or the config file
            _explain(argv, configs)
            raise
        except Exception as error:  # from the flags or the config file
            _explain(argv, configs)
            raise ValueError(f"{error} (--help lists the flags)") from error
        # The flag reports a file that it cannot read only when the config is first used.
        if configs and not isinstance(values.config, ml_collections.ConfigDict):
            _explain(argv, configs)
        return remaining


def _explain(argv, configs):
    """Raises ValueError for a wrong config file, variant or field."""
    for flag in configs:
        _, equals, value = flag.partition("=")
        value = value if equals else next(iter(argv[list(argv).index(flag) + 1 :]), "")
        config_file.check_overrides(config_file.load(value), argv)


def checked(
    command: str,
    argv: list[str],
    values: flags.FlagValues = flags.FLAGS,
    example: str = "my_config.py",
    buckets: bool = True,
) -> tuple[ml_collections.ConfigDict, str]:
    """Checks parsed flags; returns the config and the workdir, or raises ValueError."""
    if len(argv) > 1:
        raise ValueError(f"unexpected arguments {argv[1:]}, expected flags such as --config=")
    config = values.config
    if config is None:
        raise ValueError(f"--config is missing, expected for example --config={example}")
    config_lib.check(config)
    workdir = expanded(values.workdir) or os.path.join("runs", command, config.name)
    check_workdir(workdir, buckets)
    return config, workdir


def _main(command: str, job: Job, example: str, argv: list[str], buckets: bool) -> None:
    console.setup()
    with console.one_line_errors():
        config, workdir = checked(command, argv, example=example, buckets=buckets)
        hosts = flags.FLAGS
        parallel.initialize(
            *(hosts.coordinator, hosts.num_processes, hosts.process_id),
            timeout=hosts.coordinator_timeout,
        )
        job(config, workdir)
