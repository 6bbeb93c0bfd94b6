"""10^6 draws of (sigma, source) on each data path, for every law, against P(source | sigma)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ambient_jax import mixing, schedules
from ambient_jax.data import device, noise_first, pipeline
from ambient_jax.data import mixture as mixtures

N, BINS = 10**6, 20
VP = schedules.vp()
SOURCES = {
    "demos": ([5, 6], "clean", {}),
    "omni": ([7, 8, 9], "corrupt", {"sigma_min": 0.6, "sigma_max": 0.2}),
    "rrt": ([20, 11], "corrupt", {"sigma_min": 0.35}),
}
LAWS = {
    "filtering": {},
    "cotraining": {},
    "reweighted": {"alpha": 0.3},
    "ambient": {},
    "exclusive": {},
    "soft": {"sigmas": (0.0, 0.5, 1.0), "alphas": (1.0, 0.4, 0.1)},
    "ben_david": {
        "n_clean": 11,
        "n_corrupt": 55,
        "sigmas": (0, 1),
        "divergences": (0.9, 0),
        "capacity": 2.0,
    },
}


def expected(law, table):
    """Mass of each (sigma bin, source): p(sigma) is uniform, so an average over each bin."""
    fine = (jnp.arange(BINS * 500) + 0.5) / (BINS * 500)
    probabilities = jax.vmap(lambda s: mixing.source_probabilities(law, s, table))(fine)
    return np.asarray(probabilities, np.float64).reshape(BINS, 500, -1).mean(1) / BINS


def p_value(sigma, source, mass):
    cell = np.minimum((np.asarray(sigma) * BINS).astype(int), BINS - 1) * mass.shape[1]
    counts = np.bincount(cell + np.asarray(source), minlength=mass.size)
    possible = mass.ravel() > 0
    assert counts[~possible].sum() == 0, "a source was drawn where its probability is 0"
    wanted = mass.ravel()[possible]
    return stats.chisquare(counts[possible], wanted / wanted.sum() * counts.sum()).pvalue


@pytest.mark.parametrize(
    "name",
    [n if n in ("ambient", "soft") else pytest.param(n, marks=pytest.mark.slow) for n in LAWS],
)
def test_a_million_draws_on_both_paths_follow_the_law(make_config, name):
    law = mixing.get(name, **LAWS[name])
    mixture = mixtures.open_mixture(make_config(SOURCES, history=1, horizon=1), law)
    mass = expected(law, mixture.sources)

    data = device.load_device_data(mixture)
    batch = jax.jit(mixture.sampler(law, VP))(data, jax.random.key(1), 0, jnp.arange(N))
    assert p_value(batch["sigma"], batch["source"], mass) > 1e-4

    draws = noise_first.HostDraws(jax.random.key(1), np.arange(1000), law, mixture.sources, VP)
    drawn = [draws(step) for step in range(N // 1000)]
    sigma, source = (np.concatenate(d) for d in zip(*drawn, strict=True))
    assert p_value(sigma, source, mass) > 1e-4
    # Same seed, step and row: the same choice, down to the bit.
    np.testing.assert_array_equal(sigma[:1000], batch["sigma"][:1000])
    np.testing.assert_array_equal(source[:1000], batch["source"][:1000])


@pytest.mark.parametrize(("padding", "masked"), [("mask", True), ("hold", False)])
def test_padding_is_the_same_on_both_paths(make_config, padding, masked):
    law = mixing.CoTraining()
    config = make_config({"demos": ([3, 5, 2], "clean", {})}, horizon=5, padding=padding)
    mixture = mixtures.open_mixture(config, law)
    data = device.load_device_data(mixture)
    sampled = jax.jit(mixture.sampler(law, VP))(data, jax.random.key(0), 0, jnp.arange(200))
    stream = pipeline.stream_batches(mixture, law, VP, seed=0, batch_size=200)
    streamed = next(stream)
    stream.close()
    for batch in (sampled, streamed):
        lengths = np.array([3, 5, 2])[np.asarray(batch["id"])[:, 1]]
        inside = np.asarray(batch["id"])[:, 2:] + np.arange(5) < lengths[:, None]
        np.testing.assert_array_equal(batch["mask"], inside if masked else True)
        # Beyond the end the last action is repeated, whatever the mask says.
        for actions, valid in zip(np.asarray(batch["action"]), inside, strict=True):
            np.testing.assert_array_equal(
                actions[~valid], np.tile(actions[valid][-1], (sum(~valid), 1))
            )


def test_the_law_holds_at_the_end_of_the_whole_pipeline(write_row, make_common):
    """48 sources of 4 data sets, of all weights and bounds, on two hosts of two shards each: images
    decoded by a thread, batches finished.

    The end of the test tries it on wrong couplings, which must fail.
    """
    rows = ("roboturk", "robo_net", "viola", "berkeley_mvp_converted_externally_to_rlds")
    paths = [write_row(row, (9, 4)) for row in rows]
    rng = np.random.default_rng(0)
    given = {}
    for k in range(48):
        options = {"weight": float(rng.uniform(0.1, 3))}
        if k % 6:
            options["sigma_min"] = float(rng.uniform(0.1, 0.9))
        if k % 6 > 3:  # Omni
            options["sigma_max"] = float(rng.uniform(0.05, options["sigma_min"]))
        given[f"s{k:02d}"] = (paths[k % 4], rows[k % 4], options)
    form = {"cameras": ("primary", "wrist"), "state_width": 9, "image_size": (8, 8)}
    form["workers"] = 1
    config = make_common(given, form, history=1, horizon=1, prefetch=2)
    law = mixing.Ambient()
    mixture = mixtures.open_mixture(config, law)
    options = {"seed": 3, "batch_size": 4000, "shards": 4, "process_count": 2}
    drawn = []
    for host in range(2):
        batches = pipeline.stream_batches(mixture, law, VP, process_index=host, **options)
        drawn += [next(batches) for _ in range(15)]
        batches.close()
    sigma, source = (np.concatenate([b[n] for b in drawn]) for n in ("sigma", "source"))
    low, high = (np.concatenate([b[n] for b in drawn]) for n in ("sigma_min", "sigma_max"))
    np.testing.assert_array_equal(low, np.asarray(mixture.sources.sigma_min)[source])
    np.testing.assert_array_equal(high, np.asarray(mixture.sources.sigma_max)[source])
    assert np.all((sigma > low) | (sigma < high))
    # The image belongs to the source that was drawn: of four data sets two have one camera each.
    for batch in drawn:
        kind = batch["source"] % 4
        for camera, has in (("primary", kind != 3), ("wrist", kind >= 2)):
            np.testing.assert_array_equal(batch["observation"][f"image_{camera}_mask"][:, 0], has)
            seen = batch["observation"][f"image_{camera}"][:, 0].any((1, 2, 3))
            np.testing.assert_array_equal(seen, has)
    mass = expected(law, mixture.sources)
    assert p_value(sigma, source, mass) > 1e-4
    # The levels of other rows, as a batch out of step would have them.
    with pytest.raises(AssertionError, match="where its probability is 0"):
        p_value(np.roll(sigma, 1), source, mass)
    # Data first: all of it admissible, by the weights, and not the law.
    weight = np.asarray(mixture.sources.weight, np.float64)
    chosen = rng.choice(48, len(sigma), p=weight / weight.sum())
    low, high = (np.asarray(b)[chosen] for b in mixture.sources[1:3])
    share = 1 - low + np.minimum(high, low)
    level = rng.uniform(0, share)
    level = np.where(level < np.minimum(high, low), level, level + low - np.minimum(high, low))
    assert p_value(level, chosen, mass) < 1e-12
    # The weights of two sources that differ, exchanged.
    order = np.arange(48)
    order[[0, 6]] = 6, 0
    assert p_value(sigma, order[source], mass) < 1e-12
