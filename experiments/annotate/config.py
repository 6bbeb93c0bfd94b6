"""Variants of the annotation, which decides by a classifier what noise levels corrupt data train.

    python -m experiments.annotate --config=experiments/annotate/config.py:maze

maze          GCS (clean) against RRT (corrupt), the data of the maze table
bins          bin sorting, correct against arbitrary: sigma_max where only p(A | O) differs
debug         the same on a few plans and steps
paper_pushing the paper's pushing from the state: what a classifier sees of the source
rlds          own data: --config.data.sources.clean.path=... --config.data.sources.corrupt.path=...
open_x        a mixture of Open-X data sets, a bound for each, in one run and one file; options as
              in open_x,mixture=wide,clean=bridge_dataset+bc_z: the data of the variant of that
              name in experiments/open_x/config.py, which joins the file as --config.data.bounds=...
labels        bounds from a quality label of the data sets instead of a classifier; options as in
              labels,mixture=wide,clean=bc_z,label=success: labels below 0.5 get task.below
open_x_debug  all 75 data sets of the registry, as small fixtures that the run makes
known         48 sources with known sigma_min: estimated against exact
known_debug   the same with 6 sources and few steps
many          rules whose cost does not grow with combinations, against the exact bounds of known
many_debug    the same with 6 sources and few steps
three_points  the thought experiment on {-1, 0, 1}: how the units of a bound change the learned law

open_x reads only actions, into host and device memory: 30M steps of 8 numbers in 2 folds are 1.7 GB
on both, and 2.2 GB more on the host while the bounds file is written.
"""

import ml_collections

from ambient_jax.annotate import config as annotate_config
from ambient_jax.cli import config_file
from ambient_jax.train import config as train_config
from experiments.annotate import known


def get_config(variant: str = "maze") -> ml_collections.ConfigDict:
    """Returns the config of a variant; ``task`` has the fields of ``annotate.Options``."""
    name, options = config_file.choose(variant, VARIANTS, _OPTIONS)
    config = annotate_config.default()
    config.name = variant.replace(",", "_").replace("=", "-")
    VARIANTS[name](config, **options)
    return config


def _maze(config):
    config.data.root = "runs/data/maze_table"
    config.data.sources.gcs = train_config.source("maze_gcs", "clean", last_step="keep")
    config.data.sources.rrt = train_config.source("maze_rrt", "corrupt", last_step="keep")
    config.data.observation = ("state", "goal")
    config.data.padding = "hold"
    config.data.delta = ()
    counts = dict(clean=100, corrupt=5000, shortcut=5000, held_out=300, data_seed=0)
    config.task.update(dict(build="maze", **counts))


def _debug(config):
    _maze(config)
    config.data.root = "runs/data/maze_debug"
    config.task.update(dict(clean=4, corrupt=40, shortcut=0, held_out=0))
    config.task.update(dict(folds=2, steps=40, levels=5, bucket=20, compared=60, evaluate_every=20))
    config.task.update(dict(crops=(2,), crop_steps=20, field_chunks=200, field_steps=100))


def _bins(config):
    from experiments.bin_sorting import config as bin_sorting

    base = bin_sorting.get_config("table")
    config.data = base.data
    del config.data.sources["opposite"]
    fields = ("correct", "arbitrary", "opposite", "held_out", "data_seed", "scene")
    config.task.update({name: base.task[name] for name in fields})
    config.task.update(dict(build="bin_sorting", granularity=("dataset",)))
    config.task.update(dict(observed=True, mismatch=3, folds=4, judged=500, compared=1024))
    # Without blur a network memorises 50 demonstrations within 100 steps.
    config.task.update(dict(encoder=(0, 64, 1), blur=0.3, learning_rate=1e-3))
    config.task.update(dict(steps=350, evaluate_every=50, patience=3))
    config.task.update(dict(crops=(2, 8), crop_steps=200, field_steps=600, analyses=()))


def _rlds(config):
    for role in ("clean", "corrupt"):
        config.data.sources[role] = train_config.source("", role)
    config.task.granularity = ("dataset", "random")


def _paper_pushing(config):
    from experiments.paper_pushing import config as paper_pushing

    base = paper_pushing.get_config("table")
    config.data = base.data
    counts = ("target", "source", "held_out", "images_target", "images_source")
    config.task.update({name: base.task[name] for name in (*counts, "data_seed", "scene")})
    config.task.update(dict(build="paper_pushing", granularity=("dataset", "random", "datapoint")))


def _mixture(config):
    """Sets options of all mixtures: bounds by data set from some chunks, in one pass."""
    task = config.task
    task.granularity = ("dataset",)
    # One noise draw, as a clean chunk is judged with every corrupt one.
    task.update(dict(judged=10_000, draws=1, compared=1000, crops=(), analyses=(), folds=2))
    # A batch has about 20 corrupt rows of each of 48 sources.
    task.update(dict(batch_size=2048, steps=4000, features=(64, 128)))


def _open_x(config, mixture="wide", clean=""):
    # The same data as in training, so that noise levels have the same meaning.
    from experiments.open_x import config as open_x

    if not clean:
        raise ValueError(
            "clean= is missing, expected names of the mixture's data sets that all others are "
            "compared with, as in open_x,mixture=wide,clean=bridge_dataset+bc_z"
        )
    config.data = open_x.get_config(f"{mixture},clean={clean},sigma_min=0").data
    config.policy.execute = min(config.policy.execute, config.data.horizon)  # not used here
    config.data.placement = "device"
    form = config.data.open_x
    form.cameras, form.quality, form.instruction_bytes, form.state_width = (), (), 0, 0
    _mixture(config)


def _labels(config, mixture="wide", clean="", label="success"):
    _open_x(config, mixture, clean)
    config.data.open_x.quality = (label,)
    config.task = annotate_config.labels(label)
    if mixture == "debug":
        config.task.build = "open_x_fixtures"


def _open_x_debug(config):
    _open_x(config, "debug", "bridge_orig")
    config.task.update(dict(build="open_x_fixtures", steps=40, levels=5, batch_size=512))
    config.task.update(dict(features=(16, 32), evaluate_every=20))


def _known(config):
    config.data.update(dict(root="runs/data/known", delta=(), horizon=8, normalization="gaussian"))
    _mixture(config)
    config.task.update(dict(name="known", sources=48, episode_steps=40))
    config.task.update(dict(clean_episodes=1000, episodes=200))
    config.task.update(dict(judged=2000, compared=300, levels=24, head_start=True))
    config.task.update(dict(batch_size=1024, steps=2000, features=(16, 32)))
    known.add_sources(config)


def _known_debug(config):
    _known(config)
    config.data.root = "runs/data/known_debug"
    config.data.sources = ml_collections.ConfigDict()
    config.task.update(dict(sources=6, clean_episodes=200, episodes=50, judged=1000, compared=100))
    config.task.update(dict(batch_size=256, steps=300, levels=12))
    known.add_sources(config)


def _many(config):
    _known(config)
    config.task.update(dict(name="many", levels=16, dro_rate=1.0, clean_sizes=(1000, 100, 20)))
    config.task.taus = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25)
    # The run of ``known`` whose exact curves are used and whose errors stand beside; "": none.
    config.task.classifier = "experiments/annotate/results/mixture/results.json"


def _many_debug(config):
    _many(config)
    config.data.sources = ml_collections.ConfigDict()
    config.task.update(dict(sources=6, episodes=10, clean_episodes=40))
    config.task.update(dict(levels=5, clean_sizes=(20,)))
    config.task.update(dict(taus=(0.0, 0.05), classifier=""))
    known.add_sources(config)


def _three_points(config):
    # ``clean`` points are drawn from {0, 1} and ``corrupt`` ones from {-1, 0}: for each row
    # ``repeats`` pairs of data sets, of which ``pairs`` train a table denoiser with ``draws``.
    assignments = ("dataset", "bucket", "datapoint", "ordered", "rejection")
    task = dict(name="three_points", assignments=assignments)
    task |= dict(clean=50, corrupt=(10, 100, 1000, 10_000, 100_000), bucket=100, tau=(0.05, 0.01))
    config.task = ml_collections.ConfigDict(task | dict(repeats=200, pairs=20, draws=200_000))


_OPTIONS = {"open_x": ("mixture", "clean"), "labels": ("mixture", "clean", "label")}
VARIANTS = dict(maze=_maze, debug=_debug, bins=_bins, rlds=_rlds, open_x=_open_x, labels=_labels)
VARIANTS |= dict(open_x_debug=_open_x_debug, known=_known, known_debug=_known_debug)
VARIANTS |= dict(
    paper_pushing=_paper_pushing, three_points=_three_points, many=_many, many_debug=_many_debug
)
