"""Inpainting against Gaussian data, whose denoiser and conditional law are known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax import schedules, targets
from ambient_jax.policy import inpainting, solvers
from ambient_jax.policy.inpainting import Inpainting

H, KNOWN, ROWS = 8, 3, 512
TIME = np.arange(H)
MEAN = 0.3 * np.sin(TIME / 3)
# A smooth chunk: neighbours are correlated over some 3 steps.
COVARIANCE = 0.25 * np.exp(-0.5 * ((TIME[:, None] - TIME) / 3.0) ** 2) + 1e-3 * np.eye(H)


def denoise(x, sigma):
    """The exact v-prediction of chunks N(MEAN, COVARIANCE), [B, H, 1]."""
    a = schedules.signal(sigma)
    gain = a * jnp.linalg.solve(a**2 * COVARIANCE + sigma**2 * jnp.eye(H), jnp.asarray(COVARIANCE))
    centre = MEAN[:, None]
    x0 = centre + jnp.einsum("ji,bjd->bid", gain, x - a * centre)
    return targets.convert(x0, x, sigma, source="x0", target="v")


def conditional(known):
    """Mean [U] and covariance [U, U] of the free entries given the first ``KNOWN``."""
    k, u = slice(KNOWN), slice(KNOWN, None)
    gain = np.linalg.solve(COVARIANCE[k, k], COVARIANCE[k, u]).T
    mean = MEAN[u] + gain @ (known - MEAN[k])
    return mean, COVARIANCE[u, u] - gain @ COVARIANCE[k, u]


def draw(how, solver="ddim", weights=None, known=None, steps=40, rows=ROWS, denoise=denoise):
    known = jnp.broadcast_to(jnp.zeros(H) if known is None else known, (rows, H))[..., None]
    weights = np.broadcast_to(TIME < KNOWN if weights is None else weights, (rows, H)) * 1.0

    def sample(keys):
        guided = inpainting.guide(denoise, known, weights, prediction="v", how=how)
        return solvers.solve(guided, keys, (H, 1), solver=solver, prediction="v", steps=steps)

    return np.asarray(jax.jit(sample)(jax.random.split(jax.random.key(0), rows)))[..., 0]


@pytest.mark.parametrize("solver", solvers.SOLVERS)
def test_conditional_mean(solver):
    """The error of the conditional mean in the conditional law's standard deviations, of a prefix
    one deviation from its mean. Projection: 4.5 standard errors of 512 rows (0.2) and the grid's
    error, 0.05. Guidance by the identity is off by more, and replacement by most."""
    with jax.enable_x64(True):
        prefix = np.linalg.cholesky(COVARIANCE) @ np.ones(H) + MEAN
        mean, covariance = conditional(prefix[:KNOWN])
        errors = {}
        for how in (
            Inpainting("projection", iterations=4, noise=0),
            Inpainting("guidance"),
            "replacement",
        ):
            how = Inpainting(how) if isinstance(how, str) else how
            got = draw(how, solver, known=prefix)
            np.testing.assert_allclose(
                got[:, :KNOWN], np.tile(prefix[:KNOWN], (ROWS, 1)), atol=1e-9
            )
            error = (got[:, KNOWN:].mean(0) - mean) / np.sqrt(np.diag(covariance))
            errors[how.method] = np.abs(error).max()
        assert errors["projection"] < 0.25
        assert errors["projection"] < errors["guidance"] < errors["replacement"]
        assert errors["guidance"] > 0.5


def test_conditional_covariance():
    """The spread of ddpm's samples about it, 400 steps: 15% of the largest deviation."""
    with jax.enable_x64(True):
        how = Inpainting("projection", iterations=4, noise=0)
        got = draw(how, "ddpm", known=MEAN, steps=400, rows=2000)
        _, covariance = conditional(MEAN[:KNOWN])
        off = np.cov(got[:, KNOWN:].T) - covariance
        assert np.abs(off).max() < 0.15 * covariance.max()


@pytest.mark.parametrize("method", inpainting.METHODS)
@pytest.mark.parametrize("solver", solvers.SOLVERS)
def test_weight_zero_changes_nothing(solver, method):
    """Bit for bit where all weights are 0; beside rows that are guided, up to rounding."""
    plain = lambda k: solvers.solve(denoise, k, (H, 1), solver=solver, prediction="v", steps=6)  # noqa: E731
    want = np.asarray(jax.jit(plain)(jax.random.split(jax.random.key(0), 4)))[..., 0]
    draw_known = lambda w: draw(Inpainting(method), solver, w, 3 + 0 * TIME, 6, 4)  # noqa: E731
    np.testing.assert_array_equal(draw_known(np.zeros((4, H))), want)
    got = draw_known(np.where(np.arange(4)[:, None] < 2, 0.0, 1.0) * np.ones(H))
    np.testing.assert_allclose(got[:2], want[:2], atol=1e-5)
    assert (np.abs(got[2:] - want[2:]).max(1) > 0.05).all()


@pytest.mark.parametrize("method", ("guidance", "projection"))
def test_more_weight_pulls_nearer(method):
    """Independent entries N(0, 1), all known as 1: from the prior's mean towards the known one."""

    def independent(x, sigma):
        return targets.convert(schedules.signal(sigma) * x, x, sigma, source="x0", target="v")

    def mean(weight):
        weights = weight * np.ones(H)
        return draw(
            Inpainting(method), "ddim", weights, 1 + 0 * TIME, 10, denoise=independent
        ).mean()

    means = [mean(weight) for weight in (0.0, 0.05, 0.2, 0.9)]
    assert abs(means[0]) < 0.07 and (np.diff(means) > 0.02).all() and means[-1] < 1.01


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match=r"method is 'project'.*did you mean 'projection'\?"):
        Inpainting("project")
    with pytest.raises(ValueError, match="iterations is 0, expected at least 1"):
        Inpainting(iterations=0)
    known, weights, shape = np.zeros((2, H, 1)), np.zeros((2, H)), (2, H, 1)
    assert inpainting.check(None, None, shape) == inpainting.check(known, weights, shape) == {}
    with pytest.raises(ValueError, match="known actions need weights"):
        inpainting.check(known, None, shape)
    with pytest.raises(ValueError, match=r"weights has shape \(8,\), expected \(2, 8\)"):
        inpainting.check(known, weights[0], shape)
    with pytest.raises(ValueError, match="known has entries that are not finite"):
        inpainting.check(known + np.nan, weights, shape)
    with pytest.raises(ValueError, match="weights are from 0 to 1.5, expected from 0 to 1"):
        inpainting.check(known, weights + [[0] * H, [1.5] * H], shape)
