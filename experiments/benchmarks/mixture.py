"""Bounds of 48 sources in one run: one trunk with 48 logits, or 48 small classifiers.

python -m experiments.benchmarks.mixture

On the data of ``experiments.annotate``'s variant ``known``, whose sigma_min are known. Each row is
a process of its own, so that its memory is its own. CPU time is that of all threads, compilation
included.
"""

import dataclasses
import resource
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from ambient_jax import mixing, schedules
from ambient_jax.annotate import classifier, evidence, thresholds, training
from ambient_jax.annotate import pairs as pairs_lib
from ambient_jax.annotate.options import Options
from ambient_jax.cli import console, report
from ambient_jax.data import device
from ambient_jax.data import mixture as mixtures
from ambient_jax.train import config as config_lib
from experiments.annotate import config as annotate_config
from experiments.annotate import known
from experiments.benchmarks import harness

COLUMNS = (
    *("classifiers", "rows of a pair", "mean error", "largest", "rank", "training, CPU s"),
    *("judging, CPU s", "peak memory"),
)
ROWS = ("one trunk", "one for each pair")


def separate(
    data: device.DeviceData,
    options: classifier.Options,
    schedule: schedules.Schedule,
    seed: int = 0,
) -> list[classifier.Fitted]:
    """Trains a separate classifier per pair; all pairs and folds are one vmapped program."""
    fold = pairs_lib.deal(data, options.folds, seed)
    pairs = pairs_lib.make(data)
    whole = jax.tree.map(lambda x: x[0], pairs_lib.split(data, fold, options.folds)[0])
    data = jax.tree.map(jnp.asarray, data)
    pairs = training.measured(data, whole, pairs, options, schedule=schedule, seed=seed)
    data = jax.tree.map(np.asarray, data)
    clean = np.asarray(data.sources.clean)
    parts, alone = [], []
    for k, source in enumerate(np.flatnonzero(~clean)):
        keep = np.sort(np.append(np.flatnonzero(clean), source))
        two = data._replace(
            offset=data.offset[keep],
            size=data.size[keep],
            sources=jax.tree.map(lambda x: np.asarray(x)[keep], data.sources),  # noqa: B023
        )
        parts.append(pairs_lib.split(two, fold, options.folds))
        moments = pairs.moments[k : k + 1]
        alone.append(pairs_lib.Pairs(np.zeros(len(keep), np.int32), pairs.mask[k : k + 1], moments))
    members = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    repeated = jax.tree.map(lambda *x: np.repeat(np.stack(x), options.folds, 0), *alone)
    trained = training.train(data, members, repeated, options, schedule=schedule, seed=seed)
    ranges = [slice(k * options.folds, (k + 1) * options.folds) for k in range(len(alone))]
    return [
        classifier.Fitted(
            *(options, schedule, pair),
            trained._replace(
                params=jax.tree.map(lambda x: x[rows], trained.params),  # noqa: B023
                temperature=(trained.temperature[0], trained.temperature[1][rows]),
                head_start=jax.tree.map(lambda x: x[rows], trained.head_start),  # noqa: B023
            ),
            fold,
        )
        for pair, rows in zip(alone, ranges, strict=True)
    ]


def measure(name: str, steps: int, count: int) -> dict[str, Any]:
    """Trains and judges one row of the table in this process."""
    config = _config(steps, count)
    known.build(config)
    mixture = mixtures.open_mixture(config.data, mixing.CoTraining())
    data = device.load_device_data(mixture)
    schedule = config_lib.build(schedules, config.schedule)
    task, sizes = config.task, (config.data.history, config.data.horizon)
    options = evidence.classifier_options(Options.from_config(task), *sizes)
    levels, rng = evidence.grid(task.levels), np.random.default_rng(0)
    positions = [
        rng.permutation(np.arange(offset, offset + size))[: task.judged]
        for offset, size, clean in zip(data.offset, data.size, data.sources.clean, strict=True)
        if not clean
    ]
    ask = dict(draws=task.draws)
    clocks = [time.process_time()]
    if name == ROWS[0]:
        fitted = classifier.fit(data, options, schedule=schedule)
        clocks.append(time.process_time())
        c = classifier.probabilities(fitted, data, np.concatenate(positions), levels, **ask)
        curves = np.split(c, np.cumsum([len(p) for p in positions])[:-1])
    else:
        batch = max(2, round(options.batch_size / len(positions)))
        options = dataclasses.replace(options, batch_size=batch)
        classifiers = separate(data, options, schedule)
        clocks.append(time.process_time())
        curves = [
            classifier.probabilities(f, data, p, levels, pair=0, **ask)
            for f, p in zip(classifiers, positions, strict=True)
        ]
    clocks.append(time.process_time())
    names = [n for n in mixture.names if n != "clean"]
    rule = dict(tau=task.tau, rule=task.rule)
    low = [float(thresholds.sigma_min(levels, c.mean(0), **rule)) for c in curves]
    return {
        "found": dict(zip(names, low, strict=True)),
        "rows": f"{task.batch_size / len(positions):.0f} x {steps}",
        "seconds": np.diff(clocks).tolist(),
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def _config(steps, count):
    config = annotate_config.get_config("known" if count == 48 else "known_debug")
    config.task.update(dict(steps=steps, judged=500, levels=16))
    return config


def main(_: list[str]) -> None:
    console.setup()
    steps, count = flags.FLAGS.steps, int(flags.FLAGS.sources)
    measured = {name: harness.in_process(measure, name, steps, count) for name in ROWS}
    config = _config(steps, count)
    mixture = mixtures.open_mixture(config.data, mixing.CoTraining())
    exact = known.sigma_min(config, *known.exact_curves(config, mixture))
    rows = []
    for name, row in measured.items():
        error = known.errors(row["found"], exact)
        cells = [f"{error[k]:.3f}" for k in ("mean", "largest", "rank")]
        cells += [*(f"{s:.0f}" for s in row["seconds"]), f"{row['memory']:.1f} GiB"]
        rows.append([name, row["rows"], *cells])
    print(report.markdown(COLUMNS, rows))


if __name__ == "__main__":
    flags.DEFINE_integer("steps", 400, "of training")
    flags.DEFINE_enum("sources", "48", ("6", "48"), "corrupt sources")
    console.run(main)
