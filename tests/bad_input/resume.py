"""Two runs on one workdir, and runs that cannot go on where they were."""

import json
import os

from ambient_jax.annotate import command
from ambient_jax.cli import launch
from ambient_jax.train import config as config_lib
from ambient_jax.train import lock, runs, sweep, trainer
from experiments.annotate import config as annotate_config
from experiments.maze import config as maze_config
from experiments.maze import table


def _config(bench):
    """Of data that are not there: whoever reads them fails otherwise."""
    config = config_lib.default()
    config.data.sources.good = config_lib.source(str(bench.path / "absent"), "clean")
    config.data.sources.bad = config_lib.source(str(bench.path / "absent"), "corrupt")
    return config


def _held(act, folder="", **fields):
    """The act while another process is in the workdir: this one's parent, or as the fields say."""

    def held(bench):
        workdir = bench.path / folder
        workdir.mkdir(exist_ok=True)
        with lock.hold(workdir):
            about = json.loads((workdir / lock.NAME).read_text())
        parent = os.getppid()
        about |= {"pid": parent, "started": lock._started(parent), "command": "python -m theirs"}
        (workdir / lock.NAME).write_text(json.dumps(about | fields))
        act(bench)

    return held


def _far(bench):
    """A run of another machine, which touches its lock whenever somebody looks."""
    looks = iter(range(99))
    bench.monkeypatch.setattr(lock, "_touched", lambda path, owner: next(looks))
    bench.monkeypatch.setattr(lock, "BEAT", 0.1)
    _held(_train, machine="another", host="far", pid=7)(bench)


def _train(bench):
    trainer.train(_config(bench), bench.path)


def _sweep(bench):
    one, two = _config(bench), _config(bench)
    two.seed = 1
    sweep.train({"one": one, "two": two}, bench.path)


def _launch(bench):
    config = _config(bench)
    launch.trains()(config, str(bench.path))


def _table(bench):
    table.run(maze_config.get_config("debug"), str(bench.path))


def _annotate(job):
    return lambda bench: job(annotate_config.get_config("maze"), str(bench.path))


def _file(bench):
    (bench.path / "run").write_text("")
    trainer.train(_config(bench), bench.path / "run")


def _taken_over(bench):
    with lock.hold(bench.path):
        (bench.path / lock.NAME).unlink()
        _held(lambda b: lock.check(b.path / "run"), "run")
        (bench.path / lock.NAME).write_text(json.dumps({"token": "x", "pid": 7, "host": "far"}))
        lock.check(bench.path)


def _other(step=None, before=None, **after):
    """A run at a step that is asked to go on with other fields."""

    def act(bench):
        config = _config(bench)
        config.update_from_flattened_dict(before or {})
        saved = json.loads(json.dumps(config.to_dict()))
        config.update_from_flattened_dict({n.replace("__", "."): v for n, v in after.items()})
        runs.check_config(saved, config, bench.path, step)

    return act


def _checkpoint(bench):
    """A workdir whose run is told by its checkpoint alone, before data are read."""
    config = _config(bench)
    folder = bench.path / "checkpoints" / "10"
    (folder / "assets").mkdir(parents=True)
    assets = {"format": 1, "config": config.to_dict(), "data": {}, "statistics": "{}"}
    (folder / "assets" / "metadata").write_text(json.dumps(assets))
    config.seed = 3
    trainer.train(config, bench.path)


CASES = {
    "a second run": (
        _held(_train),
        r"in use by process \d+ on .*python -m theirs.*, since 20.*UTC",
    ),
    "a second run's ways out": (_held(_launch), "wait for its end or stop it, or give another --w"),
    "a run on another machine": (_far, "process 7 on far .*should it be gone for good, delete /"),
    "a sweep, of a policy": (_held(_sweep, "two"), "two is in use by process"),
    "a second table": (_held(_table), "in use by process"),
    "a second annotation": (_held(_annotate(command.by_classifier)), "in use by process"),
    "a second annotation by labels": (_held(_annotate(command.by_labels)), "in use by process"),
    "a workdir that is a file": (_file, "run is a file, expected a folder"),
    "a workdir that was taken over": (_taken_over, "taken over by process 7 on far.*writes no mo"),
    "another learning rate": (
        _other(train__learning_rate=0.5),
        "train.learning_rate = 0.001, this one has 0.5: give another --workdir, or the same config",
    ),
    "another seed, told before data are read": (_checkpoint, "seed = 0, this one has 3"),
    "several other fields": (
        _other(seed=1, train__ema=0.5, train__b1=0.5),
        r"seed = 0, this one has 1 \(and train.b1, train.ema differ, too\)",
    ),
    "more steps": (
        _other(10, train__steps=30_000),
        "train.steps = 20000, this one has 30000.*learning rate.*--config.train.extend",
    ),
    "more steps and another batch": (
        _other(10, train__steps=30_000, train__batch_size=4),
        r"train.batch_size = 128, this one has 4 \(and train.steps differs, too\)",
    ),
    "fewer steps, of those to come": (
        _other(10, train__steps=15_000),
        "train.steps = 20000, this one has 15000: give another --workdir",
    ),
    "fewer steps than are done": (
        _other(5000, train__steps=4000),
        "at step 5000 with train.steps = 20000, this one has 4000, fewer than are done",
    ),
    "a bounds file that was none": (
        _other(data__sources__bad__bounds="file.parquet"),
        "data.sources.bad.bounds = '', this one has 'file.parquet'",
    ),
    "another window of a stream": (
        _other(before={"data.placement": "stream"}, data__shuffle_window=5),
        "data.shuffle_window = 10000, this one has 5",
    ),
    "another number of shards": (
        _other(before={"data.placement": "stream", "data.shards": 2}, data__shards=4),
        "data.shards = 2, this one has 4",
    ),
    "images skipped that were masked": (
        _other(
            before={"data.sources.bad.open_x": "bridge", "data.open_x.on_problem.image": "keep"},
            data__open_x__on_problem__image="skip",
        ),
        "on_problem.image = 'keep', this one has 'skip'",
    ),
    "a word that is no yes or no": (
        lambda b: _train_with(b, extend=3),
        r"config.train.extend is 3 \(int\), expected bool",
    ),
}


def _train_with(bench, **fields):
    config = _config(bench)
    for name, value in fields.items():
        with config.ignore_type():
            config.train[name] = value
    trainer.train(config, bench.path)
