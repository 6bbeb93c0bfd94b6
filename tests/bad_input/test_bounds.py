"""Bounds that are none, and bounds that leave noise levels untrained."""

import numpy as np

from ambient_jax import admission, mixing
from ambient_jax.data import bounds, rlds
from ambient_jax.data import mixture as mixtures
from ambient_jax.train import config as config_lib
from ambient_jax.train import sweep, trainer

UNTRAINED = r"nothing to train sigma in \({}.*bad: corrupt, bounds"


def file(bench, low, high=None, **changes):
    """A bounds file of the source "bad", whose steps of episode k all have pair k modulo P."""
    dataset = rlds.open_dataset(bench.toy["bad"])
    lengths = [len(e["steps"]["action"]) for s in range(4) for _, e in dataset.stream(s)]
    episode = np.repeat(dataset.episode_ids, lengths)
    step = np.concatenate([np.arange(n) for n in lengths])
    which = np.repeat(np.arange(len(lengths)), lengths)
    pick = lambda v: None if v is None else np.resize(np.float32(v), 100)[which % 100]  # noqa: E731
    made = bounds.for_source(
        "bad", dataset.fingerprint, episode, step, pick(low), pick(high), method="by hand"
    )
    for name, value in changes.items():
        object.__setattr__(made, name, value)
    return str(bounds.write(bench.path / "b.parquet", made))


def config(bench, clean=None, law="ambient", placement="device", **fields):
    made = config_lib.default()
    made.law.name, made.data.placement, made.data.horizon = law, placement, 4
    made.policy.execute = 4
    made.data.sources.bad = config_lib.source(bench.toy["bad"], "corrupt", **fields)
    if clean is not None:
        made.data.sources.good = config_lib.source(bench.toy["good"], "clean", weight=clean)
    return made


def trains(low, high=None, **options):
    def act(bench):
        trainer.assemble(config(bench, bounds=file(bench, low, high), **options), None)

    return act


def states(**fields):
    return lambda bench: mixtures.open_mixture(config(bench, 1.0, **fields).data, mixing.Ambient())


def globally(bench):
    made = config(bench, 1.0)
    made.data.bounds = str(bench.path / "none.parquet")
    sweep.check({"one": made})


CASES = {
    "low levels untrained, device": (trains(0.5), UNTRAINED.format("0, 0.5")),
    "low levels untrained, stream": (
        trains(0.5, placement="stream"),
        UNTRAINED.format("0, 0.5"),
    ),
    "gap in the middle": (trains(0.7, 0.2), UNTRAINED.format("0.2, 0.7")),
    "gap of two pairs": (
        trains([0.7, 1.0], [0.2, 0.4], placement="stream"),
        UNTRAINED.format("0.4, 0.7"),
    ),
    "nothing usable": (trains(1.0, 0.0), UNTRAINED.format("0, 1")),
    "nothing usable, stream": (trains(1.0, 0.0, placement="stream"), UNTRAINED.format("0, 1")),
    "clean source of weight 0": (trains(0.5, clean=0.0), UNTRAINED.format("0, 0.5")),
    "filtering without clean data": (trains(0.0, law="filtering"), UNTRAINED.format("0, 1")),
    "no bounds file": (states(bounds="nowhere.parquet"), "no bounds file nowhere.parquet"),
    "sigma_min above 1": (states(sigma_min=1.5), "sigma_min of 'bad' is 1.5"),
    "sigma_min is NaN": (states(sigma_min=float("nan")), "bad.sigma_min is nan"),
    "sigma_max is NaN": (states(sigma_min=0.3, sigma_max=float("nan")), "bad.sigma_max is nan"),
    "swapped bounds": (states(sigma_min=0.2, sigma_max=0.6), "sigma_max 0.6 above sigma_min 0.2"),
    "swapped bounds of a file": (
        lambda b: file(b, 0.2, 0.6),
        r"step 0 \(row 0\) has sigma_max 0.6 above sigma_min 0.2",
    ),
    "NaN in a file": (lambda b: file(b, np.nan, 0.0), r"\(row 0\) is nan.*rows of"),
    "file of another source": (
        lambda b: bounds.check(bounds.read(file(b, 0.5)), "bat"),
        "no bounds of source 'bat', only of bad; did you mean 'bad'",
    ),
    "sweep with bounds for all": (globally, "config.data has a bounds file, expected none"),
    "sources with text for bounds": (
        lambda b: mixing.make_sources([1], [False], "0.5"),
        r"sigma_min is \['0.5'\], expected numbers",
    ),
    "law over nothing usable": (
        lambda b: mixing.check_law(mixing.Soft(), mixing.make_sources([1], [False], 1.0, 0.0)),
        r"nothing to train sigma in \(0, 1\)",
    ),
}
WARNED = {
    "a file in place of a pair": (
        lambda b: given_twice(b),
        "config.data.bounds takes the place of sigma_min 0.3 .*'bad'",
    ),
}


def given_twice(bench):
    made = config(bench, 1.0, sigma_min=0.3)
    made.data.bounds = file(bench, 0.5)
    mixtures.open_mixture(made.data, mixing.Ambient())


def test_rounding_to_float32_is_no_gap_and_no_swap(bench):
    """0.1 + 0.2 is above 0.3 in float64 and equal to it in float32, which bounds are kept in."""
    admission.check_bounds(0.3, 0.1 + 0.2, ordered=True)
    low = np.float32(0.3)
    near = np.nextafter(low, np.float32(0))  # no level lies between the two
    mixing.check_law(mixing.Ambient(), mixing.make_sources([1], [False], low, near))
    made = config(bench, bounds=file(bench, [0.3, 0.6], [0.3, 0.0]))
    assert len(mixtures.open_mixture(made.data, mixing.Ambient()).groups.owner) == 2
