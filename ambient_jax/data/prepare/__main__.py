"""Leaves statistics, fingerprints and problems of data sets for trainings that start later.

    python -m ambient_jax.data.prepare --root=/data/oxe --mixture=magic_soup_plus
    python -m ambient_jax.data.prepare --config=my_config.py [--config.data.<field>=...]
    python -m ambient_jax.data.prepare --folder=/data/teleop --folder=/data/play --observation=state

They go to the cache, $AMBIENT_JAX_CACHE or --cache, where every training with the same data and
options finds them. One task is one shard; after an interruption, or once a broken shard is mended,
the same command does what is missing. Exit status 1: some shard could not be measured.
"""

import functools
import os
import re
import sys

from absl import flags
from ml_collections import config_flags

from ambient_jax import _checks
from ambient_jax.cli import console, launch, report
from ambient_jax.data.paths import CACHE_VARIABLE, cache_folder
from ambient_jax.data.prepare import engine, index
from ambient_jax.train import config as train_config
from ambient_jax.train import mixtures

flags.disclaim_key_flags()


def define(values: flags.FlagValues = flags.FLAGS, argv: list[str] | None = None) -> None:
    """Defines the flags of the command."""
    config_flags.DEFINE_config_file(
        "config",
        help_string="training config, file.py or file.py:variant",
        flag_values=values,
        sys_argv=argv,
    )
    text = functools.partial(flags.DEFINE_string, flag_values=values)
    lists = functools.partial(flags.DEFINE_multi_string, flag_values=values)
    text("mixture", "", "mixture of Open X-Embodiment, such as magic_soup_plus")
    lists("folder", [], "folder of a data set in any format; may be given several times")
    text("root", "", "folder or bucket that the data sets are in")
    text("observation", "state", "with --folder: observations, separated by commas")
    text("action", "action", "with --folder: name of the action")
    text("split", "train", "with --folder: split of each")
    text("cache", "", f"folder for the results, also gs:// or s3://; default: ${CACHE_VARIABLE}")
    flags.DEFINE_integer(
        "processes",
        os.cpu_count(),
        "worker processes; 0: this process, without Beam",
        lower_bound=0,
        flag_values=values,
    )
    lists("beam_options", [], 'options of Apache Beam, such as "--runner=FlinkRunner,..."')


def section(values):
    """Returns the data section that the flags ask for; raises ValueError for none or several."""
    given = [n for n in ("config", "mixture", "folder") if values[n].value]
    if len(given) != 1:
        raise ValueError(
            f"{' and '.join(f'--{n}' for n in given) or 'nothing'} is given, expected one of "
            "--config=FILE.py, --mixture=NAME, --folder=DIR"
        )
    data = (values.config or train_config.default()).copy_and_resolve_references().data
    if values.mixture:
        mixtures.fill(data, values.mixture)
    folders = [path.rstrip("/") for path in values.folder]
    for i, path in enumerate(values.folder):
        if folders[i] in folders[:i]:
            raise ValueError(f"--folder={path} is given twice")
        name = re.sub(r"\W+", "_", folders[i].removeprefix(values.root).strip("/"))
        while name in data.sources:  # of another folder, such as a_b beside a-b
            name += "_2"
        data.sources[name] = train_config.source(path, "clean", split=values.split)
        data.observation = tuple(n for n in values.observation.split(",") if n)
        data.action = values.action
    if values.root:
        data.root = values.root
    return data


def main(argv: list[str]) -> None:
    """Runs the command."""
    values = flags.FLAGS
    console.setup()
    with console.one_line_errors():
        _checks.number("--processes", values.processes, 0, 4096, whole=True)
        options = engine.split(values.beam_options)
        given = dict(cache=values.cache, processes=values.processes, options=options)
        found = index.prepare(section(values), **given)
    rows = [
        (n, e["shards"], e["episodes"], e["skipped"], e["steps"], ", ".join(e["problems"]) or "-")
        for n, e in found.sources.items()
    ]
    columns = ("source", "shards", "episodes", "left out", "steps", "problems")
    print(report.markdown(columns, rows))
    for what, reason in found.failures:
        print(f"failed: {what}: {reason}", file=sys.stderr)
    total = len(found.sources) + len({what.split(",")[0] for what, _ in found.failures})
    print(
        f"{len(found.sources)} of {total} sources are prepared in {cache_folder()}, "
        f"{found.measured} shards were measured now"
    )
    if found.failures:
        sys.exit(1)


if __name__ == "__main__":
    from absl import app

    define()
    app.run(main, flags_parser=launch.parse)
