"""Rules for many sources, each against a closed form."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax.annotate import influence, thresholds
from ambient_jax.evaluate.evaluation import Chunks
from ambient_jax.policy.policy import Policy
from ambient_jax.transforms.normalizer import Normalizer
from experiments.annotate import rules, tau
from experiments.annotate.known import Law

LEVELS = (0.2, 0.6, 0.9)


def test_crossing_is_that_of_sigma_min_in_any_unit():
    levels = np.array([0.1, 0.3, 0.5, 0.7])
    curve = np.array([[-4.0, 2.0, 0.0, 6.0], [1, 1, 2, 3], [-9, -8, -7, -6]])
    # The increasing fit is (-4, 1, 1, 6): 0 is at 4 / 5 of the way from 0.1 to 0.3.
    np.testing.assert_allclose(rules.crossing(levels, curve, 0.0), [0.26, 0, 1])
    c = np.array([0.1, 0.42, 0.46, 0.49])
    own = thresholds.sigma_min(levels, c, tau=0.05)
    assert rules.crossing(levels, c, 0.45) == pytest.approx(own)


def test_alignment_is_one_for_clean_chunks_and_where_there_is_no_gradient():
    clean = np.array([2.0, 4.0, -1.0])
    found = rules.alignment(np.array([clean, [-1.0, 1.0, 5.0]]), clean)
    np.testing.assert_allclose(found, [[1, 1, 1], [-0.5, 0.25, 1]])


def test_excess_loss_adds_up_to_the_relative_entropy_of_gaussians():
    """q = N(m, 1) in three numbers, p = N(0, 1): KL of the noised laws is 3 alpha^2 m^2 / 2."""
    levels = np.linspace(0.05, 0.999, 4000)
    shift = 0.7
    # D_q - D_p = (1 - alpha^2) m at every x_t.
    excess = (levels**2 * shift) ** 2
    found = rules.nats(levels, excess, 3)
    np.testing.assert_allclose(found, 1.5 * (1 - levels**2) * shift**2, atol=3e-3)


def test_tau_is_an_eighth_of_the_gap():
    assert [rules.tau_of(gap) for gap in (0.08, -0.1, 80)] == [pytest.approx(0.01), 0, 0.25]


def test_least_loss_is_that_of_the_wiener_filter():
    found = rules.least_loss(np.diag([2.0, 0.5]), np.array(LEVELS))
    alpha2, noise = 1 - np.square(LEVELS), np.square(LEVELS)
    np.testing.assert_allclose(found, sum(v * noise / (alpha2 * v + noise) for v in (2, 0.5)))


def test_linear_risk_is_the_excess_error_of_one_number():
    """H = 1: D = w x_t with w = alpha v / (alpha^2 v + sigma^2), around the fitted mean."""
    levels, variance, guess, middle = np.array(LEVELS), 2.0, 0.5, 0.3
    fitted = [(np.array([middle]), np.array([[guess]]))] * 3
    found = rules.linear_risk(np.zeros(1), np.array([[variance]]), levels, fitted)
    alpha2 = 1 - levels**2
    w, best = (np.sqrt(alpha2) * v / (alpha2 * v + levels**2) for v in (guess, variance))
    offset = middle * (1 - w * np.sqrt(alpha2))
    want = (w - best) ** 2 * (alpha2 * variance + levels**2) + offset**2
    np.testing.assert_allclose(found, want, rtol=1e-10)
    same = [(np.zeros(1), np.array([[variance]]))] * 3
    np.testing.assert_allclose(
        rules.linear_risk(np.zeros(1), np.array([[variance]]), levels, same), 0, atol=1e-20
    )


def test_more_clean_episodes_leave_less_to_corrupt_sources():
    laws = {"clean": Law(), "near": Law(offset=0.1), "far": Law(offset=3.0)}
    levels = np.linspace(0.05, 0.99, 40)
    curves = {"near": np.full(40, 0.499), "far": np.full(40, 0.1)}
    how = dict(taus=(0.0, 0.01, 0.45), horizon=4, steps=12, corrupt_episodes=2000, draws=6)
    found = tau.costs(laws, levels, curves, (5, 5000), **how)
    few, many = found[5], found[5000]
    assert np.argmin(few.together) == 1 and np.argmin(many.together) == 0
    assert few.together[0] > 100 * many.together[0]  # the error of moments falls with the episodes
    assert few.rule > 100 * many.rule
    # Tau 0.01 admits the near source alone, which saves nearly all, but half the means are of none.
    assert 0.5 < few.alone[1] / few.together[0] < 0.6
    assert few.alone[2] > few.alone[0]
    assert many.alone[0] == pytest.approx(many.together[0])


class Line(nn.Module):
    """Predicts x0_hat = w x_t + b of one number, the best form for a Gaussian."""

    @nn.compact
    def __call__(self, x_t, sigma, observation):
        w, b = (self.param(name, nn.initializers.zeros, ()) for name in "wb")
        return w * x_t + b


def test_influence_of_gaussians_on_a_linear_denoiser():
    """Sign and size for p = N(0, 1), q = N(m, v), and the policy that fits both best."""
    names = {"action": 1, "observation/o": 1}
    maps = [{n: np.full(d, value, np.float32) for n, d in names.items()} for value in (0.0, 1.0)]
    normalizer = Normalizer("gaussian", *maps)
    start = {name: jnp.float32(0) for name in "wb"}
    policy = Policy(Line(), start, normalizer, horizon=1, history=1, prediction="x0")
    rng, count = np.random.default_rng(0), 20_000
    laws = {"same": (0.0, 1.0), "beyond": (-0.6, 1.0), "other": (1.0, 1.0), "wide": (0.0, 4.0)}

    def chunks(name):
        mean, variance = laws[name]
        action = (mean + np.sqrt(variance) * rng.normal(size=(count, 1, 1))).astype(np.float32)
        return Chunks({"o": np.zeros((count, 1, 1))}, action, np.ones((count, 1), bool))

    def slope(name, w, b, sigma):
        """Gradient of E (w x_t + b - x0)^2 in (w, b)."""
        mean, variance = laws[name]
        alpha, second = np.sqrt(1 - sigma**2), variance + mean**2
        in_w = w * (alpha**2 * second + sigma**2) + b * alpha * mean - alpha * second
        return 2 * np.array([in_w, w * alpha * mean + b - mean])

    for sigma in LEVELS:
        # The least squares of equal parts of "same" (clean) and "other".
        zero, unit = np.zeros(2), np.eye(2)
        both = lambda x: 0.5 * (slope("same", *x, sigma) + slope("other", *x, sigma))  # noqa: B023, E731
        w, b = np.linalg.solve(np.stack([both(e) - both(zero) for e in unit], 1), -both(zero))
        params = {"w": jnp.float32(w), "b": jnp.float32(b)}
        how = dict(levels=(sigma,), batch=count, params=params)
        gradient = influence.gradient(policy, chunks("same"), **how)
        clean = slope("same", w, b, sigma)
        scale = clean @ clean
        exact = {n: clean @ slope(n, w, b, sigma) for n in laws}
        for name in laws:
            found = influence.along(policy, gradient, chunks(name), **how).mean()
            assert found == pytest.approx(exact[name], abs=0.1 * scale + 0.03 * np.sqrt(scale))
        # Where the policy fits both, gradients are opposite: the source it was fitted to never
        # helps, at any level, and one on the other side of the clean law helps more than clean
        # data. So the sign tells where a source lies relative to the mixture, not to the clean law.
        assert exact["other"] == pytest.approx(-scale)
        assert exact["beyond"] > exact["same"] == pytest.approx(scale)
