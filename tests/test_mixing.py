"""Laws P(source | sigma) against formulas written by hand, and draws against the laws."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from ambient_jax import mixing, schedules

WEIGHT = np.array([50.0, 600.0, 0.0, 300.0, 50.0])
BOUNDS = [(0.0, 1.0), (0.3, 0.0), (0.1, 0.0), (0.7, 0.2), (1.0, 0.0)]  # clean, ambient, ...
CLEAN = np.array([True, False, False, False, False])
LAWS = {
    "filtering": mixing.Filtering(),
    "cotraining": mixing.CoTraining(),
    "reweighted": mixing.Reweighted(0.25),
    "ambient": mixing.Ambient(),
    "ambient_share": mixing.Ambient(0.25),
    "exclusive": mixing.Exclusive(),
    "soft": mixing.Soft((0.0, 0.5, 1.0), (1.0, 0.3, 0.1)),
    "ben_david": mixing.BenDavid(50, 900, (0.0, 1.0), (0.2, 0.0)),
}


def make(weight=WEIGHT, bounds=BOUNDS, clean=CLEAN):
    return mixing.make_sources(weight, clean, *np.array(bounds).T)


def ben_david_share(n_p, n_q, divergence, capacity=1.0):
    """alpha by direct minimisation of the bound of Ben-David et al., on a grid."""
    alpha = np.linspace(0, 1, 20_001)
    bound = capacity * np.sqrt(alpha**2 / n_p + (1 - alpha) ** 2 / n_q) + (1 - alpha) * divergence
    return alpha[np.argmin(bound)]


def hand(name, sigma):
    """P(source | sigma), one level, written from the definitions."""
    inside = np.array([sigma > low or sigma < high for low, high in BOUNDS])
    admitted = WEIGHT * inside
    clean, corrupt = WEIGHT * CLEAN, WEIGHT * ~CLEAN

    def share(mass):
        return mass / mass.sum()

    if name == "filtering":
        return share(clean)
    if name == "cotraining":
        return share(WEIGHT)
    if name == "reweighted":
        return 0.25 * share(clean) + 0.75 * share(corrupt)
    if name == "ambient":
        return share(admitted)
    if name == "ambient_share":
        return share((0.25 * share(clean) + 0.75 * share(corrupt)) * inside)
    bad = admitted * ~CLEAN
    if bad.sum() == 0:
        return share(clean)
    if name == "exclusive":
        return share(bad)
    if name == "soft":
        alpha = 1 - 1.4 * sigma if sigma < 0.5 else 0.3 - 0.4 * (sigma - 0.5)
    else:
        alpha = ben_david_share(50, 900, 0.2 * (1 - sigma))
    return alpha * share(clean) + (1 - alpha) * share(bad)


def test_the_tests_cover_every_law():
    for name, kind in mixing.LAWS.items():
        assert type(LAWS[name]) is kind


@pytest.mark.parametrize("name", LAWS)
def test_table_of_laws(name):
    levels = [0.0, 0.1, 0.15, 0.25, 0.299, 0.301, 0.5, 0.699, 0.701, 0.9, 1.0]
    got = jax.jit(
        jax.vmap(lambda s: mixing.source_probabilities(LAWS[name], s, make())),
    )(jnp.asarray(levels))
    np.testing.assert_allclose(got, [hand(name, s) for s in levels], atol=5e-5)
    np.testing.assert_allclose(got.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "schedule"), [*((name, "vp") for name in LAWS), ("ambient", "edm")]
)
def test_a_million_draws(name, schedule):
    """Chi-square of (level bin, source); impossible cells stay empty."""
    law, schedule = LAWS[name], schedules.get(schedule)
    n, bins = 1_000_000, 20
    keys = jax.random.split(jax.random.key(11), n)
    sources = make()
    sigma, source = jax.jit(jax.vmap(lambda k: mixing.sample(k, law, sources, schedule)))(keys)
    u = np.clip(np.asarray(schedule.cdf(sigma)), 0, 1 - 1e-9)
    counts = np.zeros((bins, len(WEIGHT)))
    np.add.at(counts, ((u * bins).astype(int), np.asarray(source)), 1)

    fine = (np.arange(bins * 200) + 0.5) / (bins * 200)
    table = np.array([hand(name, s) for s in np.asarray(schedule.quantile(fine))[::4]])
    expected = n / bins * table.reshape(bins, 50, -1).mean(1)
    assert counts[expected == 0].sum() == 0
    # bins cut by a bound are known to 1/50 only: pool sources there, they are tested by the rest
    smooth = (table.reshape(bins, 50, -1) > 0).all(1) == (table.reshape(bins, 50, -1) > 0).any(1)
    smooth = smooth.all(1)
    assert smooth.sum() >= bins - 4
    observed, wanted = counts[smooth], expected[smooth]
    cells = wanted > 0
    statistic = np.sum((observed[cells] - wanted[cells]) ** 2 / wanted[cells])
    assert scipy.stats.chi2.sf(statistic, cells.sum() - 1) > 1e-3
    np.testing.assert_allclose(counts.sum(1), n / bins, atol=5 * np.sqrt(n / bins))
    for level, picked in zip(np.asarray(sigma)[:2000], np.asarray(source)[:2000], strict=True):
        assert hand(name, float(level))[picked] > 0


@pytest.mark.parametrize("name", LAWS)
def test_data_first_with_weights_is_noise_first(name):
    """The quadratic model (theta - m_k(sigma))^2: same expected loss, gradient and total weight."""
    law, sources, n = LAWS[name], make(), 150_000
    schedule = schedules.cosine()
    centre = jnp.array([1.0, -2.0, 5.0, 3.0, 7.0])

    def loss(theta, sigma, source):
        return (theta - centre[source] * (1 + sigma)) ** 2

    def both(sigma, source, weight):
        value, grad = jax.vmap(jax.value_and_grad(loss), (None, 0, 0))(0.3, sigma, source)
        return np.asarray(jnp.stack([value, grad, jnp.ones_like(value)]) * weight, np.float64)

    keys = jax.random.split(jax.random.key(1), n)
    first = jax.jit(jax.vmap(lambda k: mixing.sample(k, law, sources, schedule)))(keys)
    second = jax.jit(jax.vmap(lambda k: mixing.sample_data_first(k, law, sources, schedule)))(keys)
    a, b = both(*first, 1.0), both(*second)
    error = np.sqrt(a.var(1) / n + b.var(1) / n)
    assert (np.abs(a.mean(1) - b.mean(1)) <= 4.5 * error + 1e-6).all()
    assert np.isfinite(second[2]).all() and (second[2] >= 0).all()
    assert not (np.asarray(second[1]) == 2).any()  # weight 0 is never drawn
    # And the weights are what makes it so, unless P(source | sigma) is the same at every level.
    if name not in ("filtering", "cotraining", "reweighted"):
        unweighted = both(second[0], second[1], 1.0)
        assert np.abs(a.mean(1) - unweighted.mean(1)).max() > 20 * error[:2].max()


def test_ambient_weight_is_the_documented_one():
    """W |A| / Z(sigma), by hand at sigma = 0.5 for the ambient source: A = (0.3, 1]."""
    got = mixing.data_first_weight(mixing.Ambient(), 0.5, 1, make())
    np.testing.assert_allclose(got, 1000 * 0.7 / (50 + 600), rtol=1e-5)
    unusable = mixing.data_first_weight(mixing.Ambient(), 1.0, 4, make())
    assert unusable == 0


@pytest.mark.parametrize("name", LAWS)
def test_the_simplest_form_of_a_law_is_the_same_law(name):
    sources, law = make(), LAWS[name]
    simple, other = mixing.resolve(law, sources)
    for sigma in (0.05, 0.25, 0.5, 0.8):
        want = mixing.source_probabilities(law, sigma, sources)
        got = mixing.source_probabilities(simple, sigma, other)
        np.testing.assert_allclose(got, want, rtol=1e-6)
    if name in ("filtering", "cotraining", "reweighted", "ambient_share"):
        assert simple == mixing.Ambient()
    if name in ("filtering", "cotraining", "reweighted"):
        assert (other.sigma_min == 0).all() and (other.sigma_max == 1).all()
    elif name == "ambient_share":
        assert (other.sigma_min == sources.sigma_min).all()
    else:
        assert simple == law and other is sources


def test_laws_that_ignore_bounds_reach_all_levels_data_first():
    sources = make()
    keys = jax.random.split(jax.random.key(0), 5000)
    draw = jax.jit(jax.vmap(lambda k: mixing.sample_data_first(k, mixing.CoTraining(), sources)))
    sigma, source, _ = draw(keys)
    assert float(sigma[source == 1].min()) < 0.05


@pytest.mark.parametrize("name", LAWS)
def test_buckets_with_the_same_bounds_are_the_same_law(name):
    """Every source cut into buckets of uneven weight; the shares add up to what they were."""
    parts = np.array([0.5, 0.3, 0.15, 0.05])
    many = make(
        np.outer(WEIGHT, parts).ravel(),
        np.repeat(BOUNDS, len(parts), axis=0),
        np.repeat(CLEAN, len(parts)),
    )
    for sigma in (0.05, 0.25, 0.5, 0.8):
        one = mixing.source_probabilities(LAWS[name], sigma, make())
        got = np.asarray(mixing.source_probabilities(LAWS[name], sigma, many))
        np.testing.assert_allclose(got.reshape(-1, len(parts)).sum(1), one, atol=1e-6)
        np.testing.assert_allclose(got, np.outer(one, parts).ravel(), atol=1e-6)


def test_a_group_that_is_empty_leaves_its_share_to_the_other():
    only_bad = make([1.0, 3.0], [(0.2, 0.0), (0.6, 0.0)], [False, False])
    only_good = make([1.0, 3.0], [(0.0, 1.0), (0.0, 1.0)], [True, True])
    for law in (mixing.Soft(), mixing.Reweighted(0.5), LAWS["ben_david"]):
        np.testing.assert_allclose(
            mixing.source_probabilities(law, 0.8, only_bad), [0.25, 0.75], atol=1e-6
        )
        np.testing.assert_allclose(
            mixing.source_probabilities(law, 0.8, only_good), [0.25, 0.75], atol=1e-6
        )
    nothing = mixing.source_probabilities(mixing.Soft(), 0.1, only_bad)
    np.testing.assert_array_equal(nothing, [0, 0])


def test_a_source_of_probability_zero_is_never_drawn():
    """Even where a parallel cumulative sum rises by rounding at a source of probability 0."""
    rng = np.random.default_rng(0)
    p = rng.random(1000) * (rng.random(1000) < 0.3)
    p = jnp.asarray(p / p.sum(), jnp.float32)
    cumulative = np.asarray(jnp.cumsum(p))
    edges = np.concatenate([cumulative / cumulative[-1], rng.random(20_000)])
    near = [np.nextafter(edges, np.float32(2), dtype=np.float32), edges]
    u = np.clip(np.concatenate([*near, [0.0]]), 0, 1 - 2.0**-24).astype(np.float32)
    index = np.asarray(jax.vmap(mixing._categorical, (0, None))(u, p))
    assert (np.asarray(p)[index] > 0).all()
    for lone in (0, 3, 6):
        q = jnp.zeros(7).at[lone].set(1.0)
        for value in (0.0, 0.5, 1 - 2.0**-24):
            assert mixing._categorical(jnp.float32(value), q) == lone


def test_laws_are_static_arguments():
    for law in LAWS.values():
        same = dataclasses.replace(law)
        assert same == law and hash(same) == hash(law)
    f = jax.jit(mixing.source_probabilities, static_argnums=0)
    np.testing.assert_allclose(
        f(mixing.get("soft", sigmas=[0.0, 1.0], alphas=[1, 0]), 0.4, make()),
        mixing.source_probabilities(mixing.Soft(), 0.4, make()),
        rtol=1e-6,
    )


@pytest.mark.parametrize("name", LAWS)
def test_check_law_passes_when_a_clean_source_exists(name):
    mixing.check_law(LAWS[name], make())


def test_check_law_finds_the_gap():
    gap = make([1.0, 1.0], [(0.7, 0.2), (0.5, 0.1)], [False, False])
    message = (
        r"law Ambient has nothing to train sigma in \(0.2, 0.5\) with: sources are "
        r"\[a: corrupt, bounds \(0.7, 0.2\); b: corrupt, bounds \(0.5, 0.1\)\]; add a clean"
    )
    with pytest.raises(ValueError, match=message):
        mixing.check_law(mixing.Ambient(), gap, ("a", "b"))
    mixing.check_law(mixing.CoTraining(), gap)
    with pytest.raises(ValueError, match=r"law Filtering has nothing .* \(0, 0.1\)"):
        mixing.check_law(mixing.Filtering(), gap)
    # together two halves cover all; a clean source of weight 0 does not help
    halves = make([1.0, 1.0], [(0.5, 0.0), (1.0, 0.6)], [False, False])
    mixing.check_law(mixing.Ambient(), halves)
    empty = make([0.0, 1.0], [(0.0, 1.0), (0.5, 0.0)], [True, False])
    with pytest.raises(ValueError, match=r"sigma in \(0, 0.5\).*0: clean, .* weight 0"):
        mixing.check_law(mixing.Exclusive(), empty)
    many = make(np.ones(3000), [(0.5, 0.0)] * 3000, [False] * 3000)
    with pytest.raises(ValueError, match="and 2992 more]"):
        mixing.check_law(mixing.Ambient(), many)


def test_make_sources_errors():
    with pytest.raises(ValueError, match=r"source weights are \[1.0, -1.0\]"):
        mixing.make_sources([1, -1], [True, False])
    with pytest.raises(ValueError, match="one of them > 0"):
        mixing.make_sources([0.0], [True])
    with pytest.raises(ValueError, match="finite"):
        mixing.make_sources([np.nan, 1.0], [True, False])
    with pytest.raises(ValueError, match="sigma_min at index 1 is 2.0"):
        mixing.make_sources([1, 1], [True, False], [0.0, 2.0])
    with pytest.raises(ValueError, match=r"sigma_min has shape \(3,\).*each of the 2 sources"):
        mixing.make_sources([1, 1], [True, False], [0.0, 0.1, 0.2])
    with pytest.raises(ValueError, match=r"clean has shape \(1,\).*each of the 2 sources"):
        mixing.make_sources([1, 1], [True])
    sources = mixing.make_sources([2, 6], [True, False], [0.0, 0.4])
    np.testing.assert_allclose(sources.weight, [0.25, 0.75])
    np.testing.assert_array_equal(sources.sigma_max, [1, 0])


def test_get_errors():
    assert mixing.get("reweighted", alpha=0.3) == mixing.Reweighted(0.3)
    with pytest.raises(ValueError, match=r"law is 'ambiant'.*did you mean 'ambient'\?"):
        mixing.get("ambiant")
    with pytest.raises(ValueError, match=r"'reweighted' is 'alhpa'.*did you mean 'alpha'\?"):
        mixing.get("reweighted", alhpa=0.3)
    with pytest.raises(ValueError, match="'filtering' is 'alpha', expected one of .none."):
        mixing.get("filtering", alpha=0.3)
    with pytest.raises(ValueError, match="law 'ben_david' with options .*n_corrupt"):
        mixing.get("ben_david", n_clean=3)
    with pytest.raises(ValueError, match="alpha is 1.5, expected a share in"):
        mixing.Reweighted(1.5)
    with pytest.raises(ValueError, match="expected a share"):
        mixing.Ambient(-0.1)
    with pytest.raises(ValueError, match="expected two or more increasing noise levels"):
        mixing.Soft((0.0, 0.0), (1.0, 0.0))
    with pytest.raises(ValueError, match="alphas is 0.5, expected two or more numbers"):
        mixing.get("soft", sigmas=(0.0, 1.0), alphas=0.5)
    with pytest.raises(ValueError, match="as many values"):
        mixing.Soft((0.0, 0.5, 1.0), (1.0, 0.0))
    with pytest.raises(ValueError, match=r"expected all in \[0, 1\]"):
        mixing.Soft((0.0, 1.0), (2.0, 0.0))
    with pytest.raises(ValueError, match="n_clean 0, .* expected all > 0"):
        mixing.BenDavid(0, 10, (0.0, 1.0), (1.0, 0.0))
