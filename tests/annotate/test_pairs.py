"""A mixture in one run: each source's own question, on the dimensions that both sides have."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax import mixing, schedules
from ambient_jax.annotate import classifier, pairs, thresholds
from ambient_jax.data import device

OPTIONS = classifier.Options(
    history=1, horizon=1, steps=400, batch_size=1024, features=(32,), dropout=0, learning_rate=5e-3
)
LEVELS = np.linspace(0.05, 0.99, 20)


def make_data(*chunks, clean=(True,), dims=None, length=1):
    """Sources of chunks [N, D], in episodes of ``length`` steps; the first ones are clean."""
    action = np.concatenate(chunks).astype(np.float32)
    at = np.arange(len(action), dtype=np.int32)
    start = (at // length * length).astype(np.int32)
    sizes = np.array([len(c) for c in chunks], np.int32)
    roles = [*clean, *[False] * (len(chunks) - len(clean))]
    return device.DeviceData(
        {"action": action},
        *(start, start + length, start // length),
        (np.cumsum(sizes) - sizes).astype(np.int32),
        sizes,
        mixing.make_sources(sizes, roles),
        constants={} if dims is None else {"dims": np.array(dims, bool)},
    )


def crossing(shift):
    """sigma_min of N(shift, 1) against N(0, 1), by quadrature."""
    x = np.linspace(-8, 9, 4001)
    d = shift * np.sqrt(1 - LEVELS**2)[:, None]
    weight = np.exp(-((x - d) ** 2) / 2) / np.sqrt(2 * np.pi)
    exact = np.trapezoid(weight / (1 + np.exp(d * x - d**2 / 2)), x, axis=1)
    return thresholds.sigma_min(LEVELS, exact)


@pytest.fixture(scope="module")
def mixture():
    """Clean N(0, 1) in two dimensions of three; four corrupt sources of very unequal sizes.

    The first is clean data with a third dimension, the second has the first dimension alone, the
    third the second alone; all but the first are shifted.
    """
    rng = np.random.default_rng(0)
    shifts = {1: (0, 0, 5), 2: (1.0, 0, 0), 3: (0, -1.3, 0), 4: (1.6, 0, 0)}
    sizes = (20_000, 4000, 12_000, 12_000, 4000)
    dims = np.array([[1, 1, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [1, 1, 0]])
    chunks = [
        (rng.normal(size=(n, 3)) + shifts.get(k, (0, 0, 0))) * dims[k] for k, n in enumerate(sizes)
    ]
    data = make_data(*chunks, dims=dims)
    return data, classifier.fit(data, OPTIONS, progress=False)


@pytest.mark.slow
def test_sigma_min_of_each_source_is_that_of_its_own_pair(mixture):
    data, fitted = mixture
    positions = np.arange(20_000, len(data.start))
    c = classifier.probabilities(fitted, data, positions, LEVELS, draws=1, batch_size=8192)
    c = np.split(c, np.cumsum(data.size[1:])[:-1])
    found = [float(thresholds.sigma_min(LEVELS, each.mean(0))) for each in c]
    want = [crossing(shift) for shift in (0.0, 1.0, 1.3, 1.6)]
    assert want[0] == 0 and 0.4 < want[1] < want[2] < want[3] < 0.95
    np.testing.assert_allclose(found, want, atol=0.05)


@pytest.mark.slow
def test_clean_chunks_are_asked_about_a_pair(mixture):
    data, fitted = mixture
    few = np.arange(2000)
    with pytest.raises(ValueError, match="of a clean source and pair is None, expected one of th"):
        classifier.probabilities(fitted, data, few, LEVELS)
    ask = lambda pair: classifier.probabilities(fitted, data, few, LEVELS[:1], pair=pair)  # noqa: E731
    # N(0, 1) is better told from N(1.6, 1) than from N(1, 1), and from N(0, 1) not at all.
    near, far = ask(0).mean(), ask(np.full(2000, 3)).mean()
    assert abs(near - 0.5) < 0.03 and near + 0.05 < ask(1).mean() < far - 0.05


def test_padding_and_absent_dimensions_are_not_seen(mixture):
    """The first source, clean but for a dimension more, has sigma_min 0 above; and whatever stands
    where not both sides have a dimension, the answers are the same."""
    data, fitted = mixture
    np.testing.assert_array_equal(
        pairs.make(data).mask, [[1, 1, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]]
    )
    positions = 20_000 + np.arange(0, 32_000, 16)
    before = classifier.probabilities(fitted, data, positions, LEVELS[:1])
    action = data.steps["action"].copy()
    action[:, 2] = 99
    action[24_000:36_000, 1] = action[36_000:48_000, 0] = -99
    other = data._replace(steps={"action": action})
    after = classifier.probabilities(fitted, other, positions, LEVELS[:1])
    np.testing.assert_array_equal(before, after)


def test_batches_are_balanced_in_each_pair_and_clean_sources_keep_their_weights():
    rng = np.random.default_rng(0)
    sizes = (100, 300, 20, 1000, 5000)
    data = make_data(*(rng.normal(size=(n, 2)) for n in sizes), clean=(True, True), length=2)
    fold = pairs.deal(data, 2)
    for start in np.unique(data.start):
        assert len(set(fold[data.start == start])) == 1
    parts = pairs.split(data, fold, 2)
    made = jax.tree.map(jnp.asarray, pairs.make(data))
    kind = dict(schedule=schedules.vp(), history=1, horizon=2)
    rows = jnp.arange(24_000)
    data_on = jax.tree.map(jnp.asarray, data)
    for part, out in zip(parts, (1, 0), strict=True):
        first = jax.tree.map(lambda x: x[0], part)
        draw = jax.jit(lambda part, *a: pairs.draw(data_on, part, *a, rows, **kind))
        batch = draw(first, made, jax.random.key(0), 0)
        clean, pair, source = (np.asarray(batch[n]) for n in ("clean", "pair", "source"))
        assert np.array_equal(clean, source < 2)
        assert np.array_equal(pair[~clean], source[~clean] - 2)
        counts = [np.sum((pair == k) & (clean == side)) for k in range(3) for side in (0, 1)]
        np.testing.assert_allclose(counts, 4000, rtol=0.07)
        assert np.mean(source[clean] == 1) == pytest.approx(0.75, abs=0.02)
        # No chunk of the other part.
        position = data.offset[source] + 2 * (
            np.asarray(batch["id"])[:, 1] - data.start[data.offset[source]] // 2
        )
        assert np.all((fold[position] == 0) == (out == 0))


def test_bad_mixtures_are_named():
    rng = np.random.default_rng(0)
    data = make_data(*(rng.normal(size=(n, 2)) for n in (10, 10, 1)))
    names = ("bridge", "other", "kitchen")
    with pytest.raises(ValueError, match="corrupt source kitchen has 1 episodes, expected at lea"):
        classifier.fit(data, OPTIONS, names=names)
    few = make_data(*(rng.normal(size=(n, 2)) for n in (1, 10)))
    with pytest.raises(ValueError, match="the clean sources have 1 episodes, expected at least 2"):
        classifier.fit(few, OPTIONS)
    apart = make_data(*(rng.normal(size=(9, 2)) for _ in range(3)), dims=[[1, 0], [1, 1], [0, 1]])
    with pytest.raises(ValueError, match="source kitchen shares no dimension of the action with"):
        classifier.fit(apart, OPTIONS, names=names)


def test_places_are_spread_evenly_and_by_weight():
    places = pairs.evenly([0, 100], [36, 12], [3.0, 1.0], 16)
    assert places.tolist() == [*range(1, 36, 3), *range(101, 112, 3)]
    assert pairs.evenly([5], [4], [1.0], 4).tolist() == [5, 6, 7, 8]
    assert set(pairs.evenly([0, 50], [10, 10], [0.0, 1.0], 20).tolist()) == set(range(50, 60))
