"""Linear denoisers against Wiener filters, finite differences and relative entropies."""

import numpy as np
import pytest

from experiments.annotate import linear, rules

LEVELS = np.array([0.1, 0.4, 0.8])


def chunks(mean, root, count=200_000, seed=0):
    rng = np.random.default_rng(seed)
    return mean + rng.normal(size=(count, len(root))) @ np.transpose(root)


ROOT = np.array([[1.0, 0.0], [0.6, 0.5]])
CLEAN = linear.moments(chunks(np.zeros(2), ROOT), LEVELS)
MOVED = linear.moments(chunks(np.array([0.5, 0.0]), ROOT, seed=1), LEVELS)
WIDE = linear.moments(chunks(np.zeros(2), 2 * ROOT, seed=2), LEVELS)


def test_the_fit_to_one_source_is_its_wiener_filter():
    found = linear.fit(linear.stack([MOVED]), np.ones(1))
    covariance, mean = ROOT @ ROOT.T, np.array([0.5, 0])
    for k, sigma in enumerate(LEVELS):
        alpha = np.sqrt(1 - sigma**2)
        noised = alpha**2 * covariance + sigma**2 * np.eye(2)
        gain = alpha * covariance @ np.linalg.inv(noised)
        np.testing.assert_allclose(found[k, :, :2], gain, atol=0.01)
        np.testing.assert_allclose(found[k, :, 2], mean - alpha * gain @ mean, atol=0.01)
        error = np.trace(covariance - alpha * gain @ covariance) / 2
        assert linear.losses(MOVED, found)[k] == pytest.approx(error, rel=0.02)


def test_gradients_are_those_of_the_losses_and_vanish_at_the_fit():
    both = linear.stack([CLEAN, WIDE])
    policy = linear.fit(both, np.array([0.3, 0.7]))
    found = linear.gradients(both, policy)
    np.testing.assert_allclose(0.3 * found[0] + 0.7 * found[1], 0, atol=1e-10)
    step = np.zeros_like(policy)
    step[:, 1, 0] = 1e-4
    change = linear.losses(both, policy + step) - linear.losses(both, policy - step)
    np.testing.assert_allclose(change / 2e-4, found[:, :, 1, 0], rtol=1e-6, atol=1e-9)


def test_influence_of_the_other_source_of_a_fit_is_negative_at_every_level():
    pair = linear.stack([CLEAN, MOVED])
    policy = linear.fit(pair, np.array([0.25, 0.75]))
    found = linear.influence(pair, CLEAN, CLEAN, policy)
    assert np.all(found[0] > 0) and np.all(found[1] < 0)
    np.testing.assert_allclose(found[0], found[2])  # the clean law again
    np.testing.assert_allclose(found[1], -found[0] / 3)  # 0.25 g + 0.75 g' = 0


def test_group_dro_weighs_the_source_that_a_mixture_serves_worst():
    """Of two laws on either side of the clean one, the farther gets more weight; with the losses of
    their own policies as reference a wide law is not favoured for being wide alone."""
    far = linear.moments(chunks(np.array([-2.0, 0.0]), ROOT, seed=3), LEVELS)
    three = linear.stack([CLEAN, MOVED, far])
    own = np.stack([linear.losses(m, linear.fit(linear.stack([m]), np.ones(1))) for m in
                    (CLEAN, MOVED, far)])  # fmt: skip
    weight = linear.group_dro(three, own, 2.0, 20, own.mean(0))
    np.testing.assert_allclose(weight.sum(-1), 1)
    assert np.all(np.argmax(weight, -1) == 2)
    equal = linear.group_dro(linear.stack([CLEAN, CLEAN]), own[:2], 0.0, 3, own.mean(0))
    np.testing.assert_allclose(equal, 0.5)


def test_excess_over_the_own_denoiser_is_the_relative_entropy_and_unbiased_for_few_chunks():
    levels = np.geomspace(0.02, 0.999, 60)
    clean = linear.moments(chunks(np.zeros(2), ROOT), levels)
    shift = np.array([0.3, 0.0])
    draws = []
    for seed in range(200):
        x0 = chunks(shift, ROOT, count=40, seed=10 + seed)
        halves = tuple(linear.stack([linear.moments(part, levels)]) for part in (x0[::2], x0[1::2]))
        draws.append(rules.nats(levels, linear.excess_over_own(halves, clean), 2)[0])
    alpha2 = 1 - levels**2
    noised = alpha2[:, None, None] * (ROOT @ ROOT.T) + levels[:, None, None] ** 2 * np.eye(2)
    want = 0.5 * alpha2 * np.einsum("i,lij,j->l", shift, np.linalg.inv(noised), shift)
    bias = np.mean(draws, 0) - want
    # Of the whole data, an own policy fitted and measured there would give d / (2 n) = 5 / 80 more.
    at = levels > 0.1
    error = np.std(draws, 0)[at] / np.sqrt(len(draws))
    assert np.all(np.abs(bias[at]) < 4 * error + 0.02)


def test_excess_of_a_pair_is_the_jensen_shannon_divergence_of_near_laws():
    """To second order it is KL / 4, and a law on itself has 0."""
    levels = np.geomspace(0.02, 0.999, 60)
    whole = [chunks(np.array([m, 0.0]), ROOT, seed=s) for m, s in ((0, 0), (0.2, 1), (0, 5))]
    parts = [[linear.moments(x[k::2], levels) for k in (0, 1)] for x in whole]
    halves = tuple(linear.stack([moved, same]) for _, moved, same in zip(*parts, strict=True))
    found = rules.nats(levels, linear.excess_of_pair(halves, tuple(parts[0])), 2)
    at = levels > 0.1
    shift, alpha2 = np.array([0.2, 0.0]), 1 - levels**2
    noised = alpha2[:, None, None] * (ROOT @ ROOT.T) + levels[:, None, None] ** 2 * np.eye(2)
    want = 0.125 * alpha2 * np.einsum("i,lij,j->l", shift, np.linalg.inv(noised), shift)
    np.testing.assert_allclose(found[0][at], want[at], rtol=0.05, atol=5e-4)
    np.testing.assert_allclose(found[1][at], 0, atol=2e-4)
