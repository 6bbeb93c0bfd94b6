"""Maps to unit size that cannot be, and data that make poor ones."""

import json

import ml_collections
import numpy as np

from ambient_jax import mixing
from ambient_jax.data import mixture as mixtures
from ambient_jax.data import normalizer
from ambient_jax.data.statistics import Moments, SourceStatistics
from ambient_jax.data.write import rlds_features, write_dataset
from ambient_jax.train import config as config_lib
from ambient_jax.train import fine_tuning


def toy(bench, **fields):
    config = config_lib.default()
    config.data.sources.good = config_lib.source(bench.toy["good"], "clean")
    config.data.horizon = config.policy.execute = 4
    config.data.update(fields)
    return config


def refuses(**fields):
    """Refused before data are read: there are none at the path."""

    def act(bench):
        config = toy(bench, **fields)
        config.data.sources.good.path = "/nowhere"
        mixtures.open_mixture(config.data, mixing.get("ambient"))

    return act


def measured(values=None, **options):
    values = np.arange(12.0).reshape(6, 2) if values is None else values
    return {"demos": SourceStatistics({"action": Moments.of(values)}, np.array([len(values)]))}


def makes(kind="bounds", **options):
    return lambda b: normalizer.make_normalizer(measured(), kind, **options)


def maps():
    return normalizer.make_normalizer(measured())


def starts(**fields):
    def act(bench):
        config = toy(bench)
        config.train.update(fields)
        fine_tuning.check_base(config_lib.check(config), [bench.path])

    return act


def empty_folder(bench):
    (bench.path / "base").mkdir()
    starts(init_from=str(bench.path / "base"))(bench)


def base_file(bench):
    (bench.path / "base").write_text("not a folder")
    starts(init_from=str(bench.path / "base"))(bench)


def without_sample(bench):
    moments = Moments(2, *np.zeros((2, 1)), *np.array([[-1.0], [1.0]]))
    stats = {"demos": SourceStatistics({"action": moments}, np.array([2]))}
    normalizer.make_normalizer(stats, "quantiles")


def untyped(bench):
    config = toy(bench)
    config.data.least_range = 0.1
    with config.data.unlocked(), config.data.ignore_type():
        config.data.least_range = "small"
    config_lib.check(config)


def recorded(damage, **fields):
    """A data set of 5 episodes with some damage to action [5, 50, 2] and state [5, 50, 2]."""

    def act(bench):
        rng = np.random.default_rng(0)
        action, state = (rng.uniform(-1, 1, (5, 50, 2)) for _ in range(2))
        damage(action, state)
        vector = np.zeros(2, np.float32)
        flags = {n: np.zeros(50, bool) for n in ("is_first", "is_last", "is_terminal")}
        flags |= {n: np.zeros(50, np.float32) for n in ("reward", "discount")}
        episodes = [
            {"steps": {"observation": {"state": np.float32(s)}, "action": np.float32(a), **flags}}
            for a, s in zip(action, state, strict=True)
        ]
        features = rlds_features({"state": vector}, vector)
        path = write_dataset(
            bench.path, name="mine", version="1.0.0", features=features, episodes=episodes
        )
        config = toy(bench, **fields)
        config.data.sources = ml_collections.ConfigDict()
        config.data.sources.mine = config_lib.source(str(path), "clean")
        mixtures.open_mixture(config.data, mixing.get("ambient"))

    return act


def set_action(*at, value):
    def damage(action, state):
        action[at] = value

    return damage


def narrow(action, state):
    state[..., 1] = 1.57 + 1e-6 * state[..., 1]


def repeated(action, state):
    action[[0, 2], [10, 20], 1] = 9999


CASES = {
    "kind misspelt": (refuses(normalization="quantile"), "normalization.*did you mean 'quantiles'"),
    "kind of another library": (refuses(normalization="bounds_q99"), "expected.*quantiles"),
    "per misspelt": (refuses(normalize_per="sources"), "normalize_per.*did you mean 'source'"),
    "least range below 0": (
        refuses(least_range=-1.0),
        "config.data.least_range is -1.0.*at least 0",
    ),
    "least range nan": (refuses(least_range=float("nan")), "least_range is nan.*finite"),
    "least range infinite": (refuses(least_range=float("inf")), "least_range is inf.*finite"),
    "least range a word": (untyped, "config.data.least_range is 'small' .str., expected float"),
    "outliers misspelt": (refuses(outliers="leave"), "config.data.outliers is 'leave'.*leave_out"),
    "outliers clipped": (refuses(outliers="clip"), "outliers is 'clip', expected.*keep"),
    "kind by hand": (makes("gauss"), "normalization is 'gauss'.*gaussian"),
    "outliers by hand": (makes(outliers="drop"), "outliers is 'drop'"),
    "least range by hand": (makes(least_range=-1e-9), "least_range is -1e-09"),
    "quantiles of moments": (without_sample, "action of demos: statistics without a sample"),
    "field misspelt": (lambda b: maps().normalize("actions", np.zeros(2)), "did you mean 'action'"),
    "another width": (lambda b: maps().normalize("action", np.zeros(3)), r"\(3,\).*\[..., 2\]"),
    "a source of none": (lambda b: maps().normalize("action", np.zeros(2), 0), "source is 0.*None"),
    "JSON cut": (lambda b: normalizer.Normalizer.from_json(maps().to_json()[:-9]), "not the JSON"),
    "JSON of something else": (
        lambda b: normalizer.Normalizer.from_json(json.dumps({"kind": "bounds"})),
        "not the JSON of a Normalizer .'shift'",
    ),
    "maps misspelt": (starts(init_maps="bases"), "config.train.init_maps.*did you mean 'base'"),
    "base nowhere": (starts(init_from="/nowhere/run"), "no finished checkpoint at /nowhere/run"),
    "base without checkpoints": (empty_folder, "no finished checkpoint at .*base"),
    "base a file": (base_file, "no finished checkpoint at .*base"),
    "action not finite": (
        recorded(set_action(3, 7, 1, value=np.nan)),
        r"'mine', episode 3, step 7: steps/action\[1\] is nan",
    ),
    "action infinite": (
        recorded(set_action(0, 49, 0, value=-np.inf)),
        r"episode 0, step 49: steps/action\[0\] is -inf",
    ),
}
WARNED = {
    "a glitch": (
        recorded(set_action(2, 10, 0, value=4000)),
        r"'mine' .*action\[0\] is 4000 in episode 2 at step 10.*left out",
    ),
    "a glitch kept": (
        recorded(set_action(2, 10, 0, value=-4000), outliers="keep"),
        r"action\[0\] is -4000 in episode 2 at step 10.*counts",
    ),
    "a glitch under quantiles": (
        recorded(set_action(4, 0, 1, value=4000), normalization="quantiles"),
        r"action\[1\] is 4000 in episode 4 at step 0",
    ),
    "a code": (recorded(repeated), r"2 outliers .*action\[1\] is 9999.*counts in the maps"),
    "noise alone": (recorded(narrow), r"observation/state of mine ranges.*least_range.*\[1\]"),
}
