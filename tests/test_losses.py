"""Losses: values against NumPy, minimisers by Monte Carlo, masks that hold whatever they hide."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

from ambient_jax import corruption, losses, schedules, targets

SCHEDULES = ("vp", "cosine", "rectified_flow", "edm")
PREDICTIONS = ("x0", "eps", "v", "velocity")
MASK = np.array([True, True, False, True, False])


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def sample(n=3, shape=(5, 2), seed=0):
    return np.random.default_rng(seed).normal(size=(n, *shape))


def ambient_reference(x_min, x_t, sigma, sigma_min, kind):
    """The variance-preserving ambient targets as they are written in x_min and x_t."""
    a, b = np.sqrt(1 - sigma**2), np.sqrt(1 - sigma_min**2)
    delta = sigma**2 - sigma_min**2
    x0 = (sigma**2 * b * x_min - sigma_min**2 * a * x_t) / delta
    eps = sigma * b / delta * (b * x_t - a * x_min)
    return {"x0": x0, "eps": eps, "v": a * eps - sigma * x0, "velocity": eps - x0}[kind]


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_denoising_loss_is_the_mean_square_over_valid_entries(kind, x64):
    h, x0, eps = sample()
    sigma = 0.6
    target = {"x0": x0, "eps": eps, "v": 0.8 * eps - 0.6 * x0, "velocity": eps - x0}[kind]
    for mask, rows in ((None, slice(None)), (MASK, MASK)):
        for name in SCHEDULES:
            got = losses.denoising_loss(
                h, x0, eps, sigma, mask=mask, prediction=kind, schedule=schedules.get(name)
            )
            np.testing.assert_allclose(got, np.mean((h - target)[rows] ** 2), rtol=1e-12)


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_ambient_loss_values(kind, x64):
    """unit: rho^2 ||h - T||^2. buffered: ||h - T||^2, inside the buffer S rho^2 ||h - T||^2."""
    h, x_min, z = sample()
    for sigma_min, sigma in itertools.combinations((0.1, 0.4, 0.45, 0.7, 0.95, 1.0), 2):
        x_t = corruption.renoise(x_min, z, sigma, sigma_min)
        target = ambient_reference(x_min, x_t, sigma, sigma_min, kind)
        square = np.mean((h - target)[MASK] ** 2)
        rho2 = (sigma**2 - sigma_min**2) / (sigma**2 * (1 - sigma_min**2))
        call = (h, x_min, z, sigma, sigma_min, None, MASK)
        got = losses.ambient_loss(*call, prediction=kind)
        np.testing.assert_allclose(got, rho2 * square, rtol=1e-9)
        for buffer in (1.5, 4.0):
            got = losses.ambient_loss(*call, prediction=kind, weighting="buffered", buffer=buffer)
            np.testing.assert_allclose(got, min(1, buffer * rho2) * square, rtol=1e-9)


def test_the_buffer_starts_where_the_published_one_does(x64):
    """S = 4: rho^2 = 1/4 at s = sqrt(S / (S - 1)) s_min of the variance-exploding process, and
    there T_x0's published weight sigma^4 / Delta^2 (in s) is S^2."""
    s_min = 0.7
    s = np.sqrt(4 / 3) * s_min
    sigma, sigma_min = (v / np.hypot(1, v) for v in (s, s_min))
    np.testing.assert_allclose(targets.noise_ratio(sigma, sigma_min) ** 2, 1 / 4, rtol=1e-10)
    np.testing.assert_allclose(s**4 / (s**2 - s_min**2) ** 2, 16, rtol=1e-10)
    h, x_min, z = sample()
    for factor, equal in ((1.001, True), (0.999, False)):
        level = s * factor / np.hypot(1, s * factor)
        x_t = corruption.renoise(x_min, z, level, sigma_min)
        raw = np.mean((h - ambient_reference(x_min, x_t, level, sigma_min, "x0")) ** 2)
        got = losses.ambient_loss(
            h, x_min, z, level, sigma_min, prediction="x0", weighting="buffered"
        )
        assert np.isclose(got, raw, rtol=1e-9) == equal and got <= raw * (1 + 1e-9)


@pytest.mark.parametrize("weighting", losses.WEIGHTINGS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_ambient_is_denoising_at_sigma_min_zero(name, weighting):
    h, x0, eps = sample().astype(np.float32)
    for kind, sigma in itertools.product(PREDICTIONS, (0.0, 1e-5, 0.5, 1.0)):
        option = {"prediction": kind, "schedule": schedules.get(name)}
        want = losses.denoising_loss(h, x0, eps, sigma, **option)
        got = losses.ambient_loss(h, x0, eps, sigma, 0.0, weighting=weighting, **option)
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("weighting", losses.WEIGHTINGS)
@pytest.mark.parametrize("kind", PREDICTIONS)
def test_the_minimiser_is_the_posterior_mean(kind, weighting):
    """The gradient at the closed-form posterior mean of x0 ~ N(0.7, 0.3) averages to 0 against
    any feature of (x_t, sigma), over levels down to sigma_min; 0.1 beside it, it does not."""
    rng = np.random.default_rng(0)
    n, sigma_min = 100_000, np.float32(0.3)
    sigma = rng.uniform(sigma_min + 1e-4, 1, n).astype(np.float32)
    x0 = 0.7 + np.sqrt(0.3) * rng.normal(size=n)
    e, z = rng.normal(size=(2, n))
    x_min = np.sqrt(1 - sigma_min**2) * x0 + sigma_min * e
    a = np.sqrt(1 - sigma**2)
    x_t = np.asarray(jax.vmap(corruption.renoise, (0, 0, 0, None))(x_min, z, sigma, sigma_min))
    innovation = (x_t - 0.7 * a) / (0.3 * a**2 + sigma**2)
    mean_x0, mean_eps = 0.7 + 0.3 * a * innovation, sigma * innovation
    best = {
        "x0": mean_x0,
        "eps": mean_eps,
        "v": a * mean_eps - sigma * mean_x0,
        "velocity": mean_eps - mean_x0,
    }[kind]
    x = (x_t - x_t.mean()) / x_t.std()
    features = np.stack([np.ones(n), x, x**2, np.tanh(3 * x), sigma, (sigma < 0.4) * 1.0])

    @jax.jit
    def gradient(h):
        def total(h):
            columns = (a.reshape(-1, 1, 1) for a in (h, x_min.astype("f"), z.astype("f")))
            return losses.batch_ambient_loss(
                *columns, sigma, sigma_min, prediction=kind, weighting=weighting
            ).sum()

        return jax.grad(total)(h)

    def worst(h):
        products = np.asarray(gradient(jnp.asarray(h, jnp.float32)), np.float64) * features
        return (np.abs(products.mean(1)) / products.std(1)).max() * np.sqrt(n)

    assert worst(best) < 4.5
    assert worst(best + 0.1) > 10


@pytest.mark.parametrize("weighting", losses.WEIGHTINGS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_value_and_gradient_are_finite_at_every_level(name, weighting):
    """All levels in [sigma_min, 1], sigma_min itself, sigma_min = 0 and 1; both weightings."""
    grid = np.float32([0, 1e-30, 1e-7, 1e-3, 0.3, 0.3 + 3e-8, 0.5, 0.999, 1 - 2.0**-24, 1])
    fine = np.linspace(0.3, 1, 400, dtype=np.float32)
    bounds, level = map(np.ravel, np.meshgrid(grid, grid))
    bounds = np.concatenate([bounds, np.full(400, 0.3, np.float32)])
    level = np.concatenate([level, fine])
    h, x_min, z = sample(shape=(len(level), 2, 2)).astype(np.float32)
    for kind in PREDICTIONS:
        option = {"prediction": kind, "schedule": schedules.get(name), "weighting": weighting}

        def total(h, option=option):
            loss = losses.batch_ambient_loss(h, x_min, z, level, bounds, **option)
            return loss.sum(), loss

        (_, loss), grad = jax.value_and_grad(total, has_aux=True)(h)
        assert np.isfinite(loss).all() and np.isfinite(grad).all()
        out = np.asarray(level <= bounds) & (bounds > 0)
        assert (np.asarray(loss)[out] == 0).all() and (np.asarray(grad)[out] == 0).all()
        # bounded near sigma_min: no row weighs more than S^2-fold noise would
        if kind in ("x0", "eps"):
            plain = (level >= 0.3) & (level < 0.999) & (bounds == np.float32(0.3))
            assert np.asarray(loss)[plain].max() < 400


@pytest.mark.parametrize("bad", (np.inf, -np.inf, np.nan))
@pytest.mark.parametrize("loss", ("denoising", "unit", "buffered"))
def test_what_a_masked_row_holds_does_not_matter(loss, bad):
    """Row 1 is not admissible, row 2 has a NaN level, row 3 has padded steps, row 4 is all padding;
    all hold inf or NaN where masked."""
    h, x, z = sample(shape=(6, 5, 2)).astype(np.float32)
    sigma = np.float32([0.5, 0.2, np.nan, 0.5, 0.5, 0.9])
    sigma_min = np.float32([0.3, 0.4, 0.3, 0.0, 0.3, 0.3])
    mask = np.ones((6, 5), bool)
    mask[3], mask[4] = MASK, False
    hidden = ~mask
    hidden[1:3] = True

    def run(h, x, z, sigma):
        call = (h, x, z, sigma, sigma_min, None, mask)
        if loss == "denoising":
            value = losses.batch_denoising_loss(*call)
        else:
            value = losses.batch_ambient_loss(*call, weighting=loss)
        keep = losses.batch_keep_mask(sigma, sigma_min, None, mask)
        return losses.masked_mean(value, keep), (value, keep)

    def dirty(a):
        return np.where(hidden[..., None], np.float32(bad), a)

    function = jax.jit(jax.value_and_grad(run, has_aux=True))
    (want, _), want_grad = function(h, x, z, sigma)
    (got, (value, keep)), grad = function(dirty(h), dirty(x), dirty(z), sigma)
    np.testing.assert_array_equal(keep, [True, False, False, True, False, True])
    np.testing.assert_array_equal(np.asarray(value)[~np.asarray(keep)], 0)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(grad, want_grad)
    assert np.isfinite(got) and np.isfinite(grad).all() and got > 0
    np.testing.assert_array_equal(np.asarray(grad)[hidden], 0)
    assert (np.asarray(grad)[~hidden] != 0).all()

    (got, _), grad = function(dirty(h), dirty(x), dirty(z), np.full(6, np.nan, np.float32))
    assert got == 0 and (np.asarray(grad) == 0).all()


@pytest.mark.parametrize("bad", (0.0, np.inf, np.nan))
def test_a_mask_of_dimensions(bad):
    """A sample that lacks a dimension: the mean is over those that it has, and only they learn."""
    h, x, z = sample(shape=(3, 5, 2)).astype(np.float32)
    mask = np.ones((3, 5, 2), bool)
    mask[0, :, 1], mask[1, 2:], mask[2] = False, False, False
    dirty = lambda a: np.where(mask, a, np.float32(bad))  # noqa: E731
    keep = losses.batch_keep_mask(np.full(3, 0.6, "f"), 0.2, None, mask)
    np.testing.assert_array_equal(keep, [True, True, False])

    def run(h):
        plain = losses.batch_denoising_loss(h, dirty(x), dirty(z), 0.6, mask=mask)
        ambient = losses.batch_ambient_loss(h, dirty(x), dirty(z), 0.6, 0.2, None, mask)
        return jnp.sum(plain) + jnp.sum(ambient), (plain, ambient)

    (_, (plain, ambient)), grad = jax.value_and_grad(run, has_aux=True)(dirty(h))
    for i, valid in enumerate(mask[:2]):
        np.testing.assert_allclose(plain[i], np.mean((h - z)[i][valid] ** 2), rtol=1e-5)
        rows = (a[i, :, :1] if i == 0 else a[i, :2] for a in (h, x, z))
        np.testing.assert_allclose(ambient[i], losses.ambient_loss(*rows, 0.6, 0.2), rtol=1e-5)
    assert plain[2] == ambient[2] == 0
    np.testing.assert_array_equal(np.asarray(grad)[~mask], 0)
    assert (np.asarray(grad)[mask] != 0).all()


def test_a_batch_that_admits_nothing_gives_zero_and_zero_gradient():
    h, x, z = sample(shape=(4, 5, 2)).astype(np.float32)

    def mean(h):
        value = losses.batch_ambient_loss(h, x, z, 0.5, 1.0)
        return losses.masked_mean(value, losses.batch_keep_mask(jnp.full(4, 0.5), 1.0))

    value, grad = jax.value_and_grad(mean)(h)
    assert value == 0 and (np.asarray(grad) == 0).all()


def test_low_band_is_the_denoising_loss():
    """Omni below sigma_max: x_min holds x0 (the anchor is level 0), the noise is all of x_t's."""
    h, x0, eps = sample().astype(np.float32)
    for weighting in losses.WEIGHTINGS:
        for kind in PREDICTIONS:
            option = {"prediction": kind}
            got = losses.ambient_loss(h, x0, eps, 0.1, 0.7, 0.2, weighting=weighting, **option)
            np.testing.assert_array_equal(got, losses.denoising_loss(h, x0, eps, 0.1, **option))
    assert losses.ambient_loss(h, x0, eps, 0.4, 0.7, 0.2) == 0
    assert losses.denoising_loss(h, x0, eps, 0.4, 0.7, 0.2) == 0
    assert losses.denoising_loss(h, x0, eps, 0.1, 0.7, 0.2) > 0
    assert losses.denoising_loss(h, x0, eps, 0.8, 0.7, 0.2) > 0


@pytest.mark.parametrize("with_mask", (False, True))
@pytest.mark.parametrize("name", SCHEDULES)
def test_batch_forms_are_the_loop_over_kernels(name, with_mask):
    b = 6
    h, x, z = sample(shape=(b, 5, 2)).astype(np.float32)
    rng = np.random.default_rng(1)
    sigma = rng.random(b).astype(np.float32)
    low, high = np.float32([0, 0.3, 0.7, 1, 0.2, 0.5]), np.float32([1, 0, 0.2, 0, 0, 0.1])
    mask = rng.random((b, 5)) < 0.6 if with_mask else None
    counted = losses.batch_keep_mask(sigma, low, high, mask)
    for kind in ("eps", "v"):
        option = {"prediction": kind, "schedule": schedules.get(name)}
        got = losses.batch_denoising_loss(h, x, z, sigma, low, high, mask, **option)
        ambient = losses.batch_ambient_loss(h, x, z, sigma, low, high, mask, **option)
        assert got.shape == ambient.shape == counted.shape == (b,)
        for i in range(b):
            row = (h[i], x[i], z[i], sigma[i], low[i], high[i], None if mask is None else mask[i])
            np.testing.assert_allclose(got[i], losses.denoising_loss(*row, **option), rtol=1e-5)
            np.testing.assert_allclose(ambient[i], losses.ambient_loss(*row, **option), rtol=1e-4)
            assert counted[i] == losses.keep_mask(*row[3:])
    # scalars are shared by the batch
    np.testing.assert_allclose(
        losses.batch_ambient_loss(h, x, z, 0.8, 0.3),
        losses.batch_ambient_loss(h, x, z, np.full(b, 0.8, "f"), np.full(b, 0.3, "f")),
        rtol=1e-6,
    )


class VariantsTest(chex.TestCase):
    """The kernels mean the same with and without jit, and mapped over a device axis."""

    @chex.variants(with_jit=True, without_jit=True, with_device=True, without_device=True)
    @parameterized.parameters(*PREDICTIONS)
    def test_kernels(self, kind):
        h, x_min, z = sample().astype(np.float32)
        for loss in (losses.denoising_loss, losses.ambient_loss):
            function = self.variant(lambda *a, loss=loss: loss(*a, prediction=kind))
            got = function(h, x_min, z, np.float32(0.6), np.float32(0.2))
            want = loss(h, x_min, z, 0.6, 0.2, prediction=kind)
            np.testing.assert_allclose(got, want, rtol=1e-5)


def test_reduction():
    values, keep = jnp.array([1.0, 2.0, jnp.inf, 1.0]), jnp.array([True, True, False, True])
    total, count = losses.masked_sum(values, keep)
    assert total == 4 and count == 3 and count.dtype == values.dtype
    np.testing.assert_allclose(losses.masked_mean(values, keep), 4 / 3, rtol=1e-6)
    # a weight multiplies the value and not the count; a masked weight may be anything
    weight = jnp.array([2.0, 0.5, jnp.nan, 1.0])
    np.testing.assert_allclose(losses.masked_mean(values, keep, weight), 4 / 3, rtol=1e-6)
    np.testing.assert_allclose(losses.masked_mean(values, keep, 3 * weight), 4, rtol=1e-6)
    assert losses.masked_mean(values, jnp.zeros(4, bool)) == 0
    # sums over shards, divided once, are the mean; the mean of masked means is not (1.25)
    shards = [losses.masked_sum(values[i : i + 2], keep[i : i + 2]) for i in (0, 2)]
    np.testing.assert_allclose(
        sum(s for s, _ in shards) / sum(c for _, c in shards), 4 / 3, rtol=1e-6
    )


def test_half_precision_network_output_is_compared_in_float32():
    h, x0, eps = sample().astype(np.float32)
    low = jnp.asarray(h, jnp.bfloat16)
    got = losses.denoising_loss(low, x0, eps, 0.5)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, losses.denoising_loss(h, x0, eps, 0.5), rtol=2e-2)


@pytest.mark.parametrize("loss", (losses.denoising_loss, losses.ambient_loss))
def test_a_kernel_refuses_a_batch(loss):
    x = jnp.zeros((4, 5, 2))
    with pytest.raises(ValueError, match=r"h has shape \(4, 5, 2\).*one sample \[H, D\].*batch_"):
        loss(x, x, x, 0.5, 0.1)
    with pytest.raises(ValueError, match=r"h has shape \(5,\), expected one sample"):
        loss(x[0, :, 0], x[0, :, 0], x[0, :, 0], 0.5, 0.1)
    with pytest.raises(ValueError, match=r"sigma has shape \(4,\), expected a scalar"):
        loss(x[0], x[0], x[0], jnp.zeros(4), 0.1)
    with pytest.raises(ValueError, match=r"sigma_min has shape \(5, 1\), expected a scalar"):
        loss(x[0], x[0], x[0], 0.5, jnp.zeros((5, 1)))
    with pytest.raises(ValueError, match=r"z|eps has shape \(5, 1\), expected h's \(5, 2\)"):
        loss(x[0], x[0], x[0, :, :1], 0.5, 0.1)
    with pytest.raises(ValueError, match=r"mask has shape \(5, 3\).*one entry per time step"):
        loss(x[0], x[0], x[0], 0.5, 0.1, None, jnp.ones((5, 3), bool))


@pytest.mark.parametrize("loss", (losses.batch_denoising_loss, losses.batch_ambient_loss))
def test_a_batch_form_refuses_what_does_not_fit(loss):
    x = jnp.zeros((4, 5, 2))
    with pytest.raises(ValueError, match=r"h has shape \(5,\), expected one sample"):
        loss(x[:, :, 0], x[:, :, 0], x[:, :, 0], jnp.zeros(4), 0.1)
    with pytest.raises(ValueError, match=r"sigma has shape \(3,\), expected a first axis of 4"):
        loss(x, x, x, jnp.zeros(3), 0.1)
    with pytest.raises(ValueError, match=r"sigma has shape \(1,\), expected a scalar"):
        loss(x, x, x, jnp.zeros((4, 1)), 0.1)
    with pytest.raises(ValueError, match=r"sigma_min has shape \(5,\).*h has shape \(4, 5, 2\)"):
        loss(x, x, x, 0.5, jnp.zeros(5))
    with pytest.raises(ValueError, match=r"has shape \(5, 1\), expected h's \(5, 2\)"):
        loss(x, x[..., :1], x, 0.5, 0.1)
    with pytest.raises(ValueError, match=r"mask has shape \(\), expected one entry per time step"):
        loss(x, x, x, 0.5, 0.1, None, jnp.ones(4, bool))


def test_option_errors():
    x = jnp.zeros((5, 2))
    with pytest.raises(ValueError, match=r"prediction is 'epsilon', expected one of x0, eps"):
        losses.denoising_loss(x, x, x, 0.5, prediction="epsilon")
    with pytest.raises(ValueError, match="prediction is 'score'"):
        losses.ambient_loss(x, x, x, 0.5, 0.1, prediction="score")
    with pytest.raises(ValueError, match=r"weighting is 'bufferd'.*did you mean 'buffered'\?"):
        losses.ambient_loss(x, x, x, 0.5, 0.1, weighting="bufferd")
    with pytest.raises(ValueError, match="buffer is 1.0, expected S > 1"):
        losses.ambient_loss(x, x, x, 0.5, 0.1, weighting="buffered", buffer=1.0)
    with pytest.raises(ValueError, match="sigma is a scalar, expected a batch"):
        losses.batch_keep_mask(0.5)
    with pytest.raises(ValueError, match=r"keep has shape \(2,\), expected values's \(3,\)"):
        losses.masked_mean(jnp.zeros(3), jnp.ones(2, bool))
