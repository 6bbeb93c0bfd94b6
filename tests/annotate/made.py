"""Evidence made by hand: sources of given chunks and curves, with no classifier behind them."""

import types

import numpy as np

from ambient_jax import mixing, schedules
from ambient_jax.annotate.evidence import Evidence
from ambient_jax.annotate.options import Options
from ambient_jax.data import device

LEVELS = np.array([0.1, 0.3, 0.5, 0.7, 0.9])


def admits(candidate, levels):
    """Whether corrupt data train the levels, [L] bool, with a candidate."""
    used = (levels > candidate.sigma_min) | (levels < candidate.sigma_max)
    return used & (candidate.alpha != 1)


def evidence(sources, curves=None, horizon=4, **options):
    """Sources {name: (is clean, actions of each episode [T, D])}; curves {name: P(clean) [N, L]}.

    Episode ids are 10, 11, ... in each source.
    """
    names, parts = list(sources), [episodes for _, episodes in sources.values()]
    lengths = [len(e) for episodes in parts for e in episodes]
    ends = np.cumsum(lengths)
    sizes = np.array([sum(map(len, episodes)) for episodes in parts], np.int32)
    ids = np.concatenate([10 + np.arange(len(episodes)) for episodes in parts])
    data = device.DeviceData(
        {"action": np.concatenate([e for episodes in parts for e in episodes]).astype("f4")},
        np.repeat(ends - lengths, lengths).astype(np.int32),
        np.repeat(ends, lengths).astype(np.int32),
        np.repeat(ids, lengths).astype(np.int32),
        (np.cumsum(sizes) - sizes).astype(np.int32),
        sizes,
        mixing.make_sources(sizes, [clean for clean, _ in sources.values()]),
    )
    mixture = types.SimpleNamespace(
        names=tuple(names),
        sources=data.sources,
        action_dim=data.steps["action"].shape[1],
        config=types.SimpleNamespace(history=1, horizon=horizon),
        datasets={n: types.SimpleNamespace(fingerprint=f"print of {n}") for n in names},
    )
    curves = curves or {}
    places = {n: data.offset[names.index(n)] + np.arange(len(c)) for n, c in curves.items()}
    schedule = schedules.vp()
    how = Options(**options), 0, schedule, mixture, data, None, LEVELS, places, curves, 1.0
    return Evidence(*how)
