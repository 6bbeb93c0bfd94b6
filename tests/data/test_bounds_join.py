"""A bounds file in training: every step is drawn at the noise levels of its own bounds only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax import mixing, schedules
from ambient_jax.data import bounds, device, groups, pipeline, rlds
from ambient_jax.data import mixture as mixtures
from ambient_jax.train import config as config_lib
from ambient_jax.train import sweep

LAW, VP = mixing.Ambient(), schedules.vp()


def ids(directory):
    """Episode and step of every step of a data set."""
    dataset = rlds.open_dataset(directory)
    lengths = [len(dataset[i]["steps"]["action"]) for i in range(len(dataset))]
    episode = np.repeat(dataset.episode_ids, lengths)
    return dataset.fingerprint, episode, np.concatenate([np.arange(n) for n in lengths])


def write(toy_data, tmp_path, choose):
    """A bounds file of the source "bad": (sigma_min, sigma_max) = choose(episode, step)."""
    fingerprint, episode, step = ids(toy_data["bad"])
    low, high = choose(episode, step)
    made = bounds.for_source(
        "bad", fingerprint, episode, step, np.float32(low), np.float32(high), method="test"
    )
    return str(bounds.write(tmp_path / "bounds.parquet", made) or tmp_path / "bounds.parquet")


def section(toy_data, **bad):
    config = config_lib.default()
    config.data.sources.good = config_lib.source(toy_data["good"], "clean")
    config.data.sources.bad = config_lib.source(toy_data["bad"], "corrupt", **bad)
    config.data.observation, config.data.horizon = ("state", "goal"), 8
    return config


def batch_of(mixture, law=LAW, rows=4000):
    data = device.load_device_data(mixture)
    draw = jax.jit(lambda d: mixture.sampler(law, VP)(d, jax.random.key(0), 0, jnp.arange(rows)))
    return data, jax.tree.map(np.asarray, draw(jax.tree.map(jnp.asarray, data)))


def by_thirds(episode, step):
    """Even steps 0.3, odd ones 0.6; those of every third episode also below 0.1 (Omni)."""
    return np.where(step % 2, 0.6, 0.3), np.where(episode % 3, 0.0, 0.1)


def test_a_step_is_drawn_inside_its_own_bounds(toy_data, tmp_path):
    config = section(toy_data, bounds=write(toy_data, tmp_path, by_thirds))
    data, batch = batch_of(mixtures.open_mixture(config.data, LAW))
    assert len(data.size) == 5 and data.owner.tolist() == [0, 0, 0, 0, 1]  # bad, then good
    assert data.sources.weight.sum() == pytest.approx(1)
    bad = batch["source"] == 0
    low, high = by_thirds(*batch["id"][bad, 1:].T)
    np.testing.assert_array_equal(batch["sigma_min"][bad], np.float32(low))
    np.testing.assert_array_equal(batch["sigma_max"][bad], np.float32(high))
    sigma = batch["sigma"][bad]
    assert ((sigma > low) | (sigma < high)).all()
    # And nothing else is kept from a level: below 0.1 only every third episode, above 0.6 all.
    assert set(batch["id"][bad, 1][sigma < 0.1] % 3) == {0}
    assert set(batch["id"][bad, 2][sigma > 0.6] % 2) == {0, 1}
    assert set(batch["id"][bad, 2][(sigma > 0.3) & (sigma < 0.6)] % 2) == {0}


def test_the_law_is_that_of_the_admissible_steps(toy_data, tmp_path):
    """At each level the share of bad data is the number of its admissible steps among all."""
    config = section(toy_data, bounds=write(toy_data, tmp_path, by_thirds))
    mixture = mixtures.open_mixture(config.data, LAW)
    data, batch = batch_of(mixture, rows=40_000)
    _, episode, step = ids(toy_data["bad"])
    low, high = by_thirds(episode, step)
    good = mixture.statistics["good"].num_steps
    for a, b in ((0.0, 0.1), (0.1, 0.3), (0.3, 0.6), (0.6, 1.0)):
        middle = (a + b) / 2
        count = np.sum((middle > low) | (middle < high))
        inside = (batch["sigma"] > a) & (batch["sigma"] < b)
        got = np.mean(batch["source"][inside] == 0)
        want = count / (count + good)
        assert abs(got - want) < 4 * np.sqrt(want * (1 - want) / inside.sum()) + 1e-9


def test_one_pair_for_all_steps_is_the_pair_of_the_config(toy_data, tmp_path):
    both = lambda episode, step: (np.full(len(step), 0.3), np.zeros(len(step)))  # noqa: E731
    config = section(toy_data, bounds=write(toy_data, tmp_path, both))
    _, one = batch_of(mixtures.open_mixture(config.data, LAW))
    _, other = batch_of(mixtures.open_mixture(section(toy_data, sigma_min=0.3).data, LAW))
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_unusable_steps_are_never_drawn(toy_data, tmp_path):
    half = lambda episode, step: (np.where(step % 2, 1.0, 0.2), 0 * step)  # noqa: E731
    config = section(toy_data, bounds=write(toy_data, tmp_path, half))
    _, batch = batch_of(mixtures.open_mixture(config.data, LAW))
    bad = batch["id"][batch["source"] == 0]
    assert len(bad) and (bad[:, 2] % 2 == 0).all()


def test_what_cannot_be_joined_is_refused(toy_data, tmp_path):
    path = write(toy_data, tmp_path, by_thirds)
    with pytest.raises(ValueError, match="bad has a bounds file .* sigma_min 0.2"):
        mixtures.open_mixture(section(toy_data, bounds=path, sigma_min=0.2).data, LAW)
    clean = section(toy_data)
    clean.data.sources.good.bounds = path
    with pytest.raises(ValueError, match="good has a bounds file and the role 'clean'"):
        mixtures.open_mixture(clean.data, LAW)
    with pytest.raises(ValueError, match="bad has a bounds file, expected none"):
        sweep.check({"one": section(toy_data, bounds=path)})
    with pytest.raises(FileNotFoundError):
        mixtures.open_mixture(section(toy_data, bounds=str(tmp_path / "no.parquet")).data, LAW)
    other = section(toy_data, bounds=path)
    other.data.sources.bad.path = toy_data["good"]
    with pytest.raises(ValueError, match="bad"):
        device.load_device_data(mixtures.open_mixture(other.data, LAW))
    many = lambda episode, step: (np.linspace(0.1, 0.9, len(step)), 0 * step)  # noqa: E731
    config = section(toy_data, bounds=write(toy_data, tmp_path, many))
    limit, groups.MAX_GROUPS = groups.MAX_GROUPS, 100
    try:
        with pytest.raises(ValueError, match="different pairs of bounds, expected at most 100"):
            device.load_device_data(mixtures.open_mixture(config.data, LAW))
    finally:
        groups.MAX_GROUPS = limit


def test_a_stream_draws_each_step_at_its_own_noise_levels(toy_data, tmp_path):
    """Three buckets by episode and step: streamed batches have the bounds and the shares that the
    device's have, and every step of a bucket comes once an epoch."""
    levels = np.array([0.2, 0.5, 0.8], np.float32)
    choose = lambda episode, step: (levels[(episode + step) % 3], 0 * step)  # noqa: E731
    path = write(toy_data, tmp_path, choose)
    config = section(toy_data, bounds=path)
    config.data.placement = "stream"
    mixture = mixtures.open_mixture(config.data, LAW)
    stream = pipeline.stream_batches(mixture, LAW, VP, seed=0, batch_size=64, shards=2)
    data = device.load_device_data(mixtures.open_mixture(section(toy_data, bounds=path).data, LAW))
    key, seen = jax.random.key(0), []
    sampler = jax.jit(mixture.sampler(LAW, VP))
    for step in range(100):
        batch, other = next(stream), sampler(data, key, step, jnp.arange(64))
        for name in ("sigma", "source", "sigma_min", "sigma_max"):
            np.testing.assert_array_equal(batch[name], other[name])
        source, episode, at = batch["id"].T
        bad = source == mixture.names.index("bad")
        np.testing.assert_array_equal(batch["sigma_min"][bad], levels[(episode + at) % 3][bad])
        assert np.all(batch["sigma"][bad] >= batch["sigma_min"][bad])
        seen += [tuple(i) for i in batch["id"][bad].tolist()]
    total = mixture.statistics["bad"].num_steps
    assert len(set(seen)) == total < len(seen)


def test_other_bounds_are_other_data(toy_data, tmp_path):
    """The fingerprint that a resumed run is held to covers the bounds."""
    marks = []
    for level in (0.3, 0.4):
        at = lambda episode, step, level=level: (np.full(len(step), level), 0 * step)  # noqa: E731
        config = section(toy_data, bounds=write(toy_data, tmp_path, at))
        marks.append(mixtures.open_mixture(config.data, LAW).fingerprints)
    assert marks[0]["good"] == marks[1]["good"] and marks[0]["bad"] != marks[1]["bad"]
