"""Targets against closed forms, an independent derivation in NumPy, and Monte Carlo."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax import corruption, schedules, targets

SCHEDULES = ("vp", "cosine", "rectified_flow", "edm")
PREDICTIONS = ("x0", "eps", "v", "velocity")
LEVELS = (0.01, 0.2, 0.5, 0.8, 0.99)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def scales(name, sigma):
    """(alpha, noise) of a schedule at the canonical level sigma, in NumPy."""
    a = np.sqrt(1 - np.float64(sigma) ** 2)
    return {
        "vp": (a, sigma),
        "cosine": (a, sigma),
        "rectified_flow": (a / (a + sigma), sigma / (a + sigma)),  # alpha + noise = 1
        "edm": (1.0, sigma / a),
    }[name]


def combine(kind, x0, eps, alpha, noise):
    """The target of a kind, from the definitions."""
    return {
        "x0": x0,
        "eps": eps,
        "v": (alpha * eps - noise * x0) / np.hypot(alpha, noise),
        "velocity": eps - x0,
        "score": -eps / noise,
    }[kind]


def gaussian_means(x_t, alpha, noise, mean=0.7, var=0.3):
    """E[x0 | x_t], E[eps | x_t] for x0 ~ N(mean, var)."""
    innovation = (x_t - alpha * mean) / (alpha**2 * var + noise**2)
    return mean + alpha * var * innovation, noise * innovation


def two_point_means(x_t, alpha, noise, points=(-1.0, 2.0), probabilities=(0.3, 0.7)):
    """E[x0 | x_t], E[eps | x_t] for x0 on two points."""
    logs = [
        np.log(p) - (x_t - alpha * c) ** 2 / (2 * noise**2)
        for c, p in zip(points, probabilities, strict=True)
    ]
    right = 1 / (1 + np.exp(np.clip(logs[0] - logs[1], -700, 700)))
    x0 = points[0] + (points[1] - points[0]) * right
    return x0, (x_t - alpha * x0) / noise


@pytest.mark.parametrize("source", targets.CONVERTIBLE)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_posterior_mean_converts_to_every_kind_float64(schedule, source, x64):
    x_t = np.linspace(-3, 3, 21)
    for sigma in LEVELS:
        alpha, noise = scales(schedule, sigma)
        x0, eps = gaussian_means(x_t, alpha, noise)
        given = combine(source, x0, eps, alpha, noise)
        for target in targets.CONVERTIBLE:
            got = targets.convert(
                given, x_t, sigma, source=source, target=target, schedule=schedules.get(schedule)
            )
            assert got.dtype == jnp.float64
            want = combine(target, x0, eps, alpha, noise)
            np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("source", targets.CONVERTIBLE)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_posterior_mean_converts_to_every_kind_float32(schedule, source):
    """float32: 5e-5 relative to the size of the target, at levels from 0.2 to 0.8."""
    x_t = np.linspace(-3, 3, 21)
    for sigma in (0.2, 0.5, 0.8):
        alpha, noise = scales(schedule, sigma)
        x0, eps = gaussian_means(x_t, alpha, noise)
        given = combine(source, x0, eps, alpha, noise)
        for target in targets.CONVERTIBLE:
            got = targets.convert(
                given.astype(np.float32),
                x_t.astype(np.float32),
                sigma,
                source=source,
                target=target,
                schedule=schedules.get(schedule),
            )
            assert got.dtype == jnp.float32
            want = combine(target, x0, eps, alpha, noise)
            np.testing.assert_allclose(got, want, rtol=5e-5, atol=5e-5 * np.abs(want).max())


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_score_is_the_gradient_of_the_log_density(schedule, x64):
    """For x0 ~ N(0.7, 0.3), p(x_t) = N(0.7 alpha, 0.3 alpha^2 + noise^2)."""
    x_t = np.linspace(-3, 3, 9)
    alpha, noise = scales(schedule, 0.6)
    x0, _ = gaussian_means(x_t, alpha, noise)
    got = targets.convert(
        x0, x_t, 0.6, source="x0", target="score", schedule=schedules.get(schedule)
    )
    want = jax.vmap(
        jax.grad(lambda x: -((x - 0.7 * alpha) ** 2) / (2 * (0.3 * alpha**2 + noise**2)))
    )(jnp.asarray(x_t))
    np.testing.assert_allclose(got, want, rtol=1e-10)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_denoising_targets_are_the_definitions_and_convert_into_each_other(schedule, x64):
    rng = np.random.default_rng(0)
    x0, eps = rng.normal(size=(2, 5, 3))
    option = {"schedule": schedules.get(schedule)}
    for sigma in LEVELS:
        alpha, noise = scales(schedule, sigma)
        x_t = alpha * x0 + noise * eps
        kinds = {
            kind: targets.denoising_target(x0, eps, sigma, prediction=kind, **option)
            for kind in targets.CONVERTIBLE
        }
        for kind, value in kinds.items():
            np.testing.assert_allclose(value, combine(kind, x0, eps, alpha, noise), rtol=1e-10)
        for source, target in itertools.product(kinds, kinds):
            got = targets.convert(kinds[source], x_t, sigma, source=source, target=target, **option)
            np.testing.assert_allclose(got, kinds[target], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_v_is_the_same_in_every_schedule_and_velocity_is_the_flow(schedule, x64):
    x0, eps, sigma = 0.4, -1.3, 0.6
    v = targets.denoising_target(x0, eps, sigma, prediction="v", schedule=schedules.get(schedule))
    np.testing.assert_allclose(v, 0.8 * eps - 0.6 * x0, rtol=1e-12)
    flow = schedules.rectified_flow()

    def path(t):
        return corruption.add_noise(x0, eps, flow.sigma(t), schedule=flow)

    velocity = targets.denoising_target(x0, eps, sigma, prediction="velocity")
    np.testing.assert_allclose(jax.grad(path)(flow.time(sigma)), velocity, rtol=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_conversions_at_the_ends_are_finite(schedule):
    value, x_t = jnp.array([0.5, -2.0]), jnp.array([1.0, 3.0])
    option = {"schedule": schedules.get(schedule)}
    for source, target in itertools.product(targets.CONVERTIBLE, repeat=2):
        for sigma in (0.0, 1.0):
            got = targets.convert(value, x_t, sigma, source=source, target=target, **option)
            assert np.isfinite(got).all(), (source, target, sigma)
    # What the level does not hide is exact: x0 from v and from velocity at either end.
    x0, eps = jnp.array([0.5, -2.0]), jnp.array([1.0, 3.0])
    for sigma in (0.0, 1.0):
        x_t = corruption.add_noise(x0, eps, sigma, **option)
        for kind in ("v", "velocity"):
            given = targets.denoising_target(x0, eps, sigma, prediction=kind, **option)
            got = targets.convert(given, x_t, sigma, source=kind, target="x0", **option)
            np.testing.assert_allclose(got, x0, atol=1e-4)


def derived_ambient(kind, x_min, x_t, alpha_t, noise_t, alpha_m, noise_m):
    """The ambient target by Tweedie's formula at two levels, independent of the package.

    The bridge x_t = r x_min + N(0, s2) gives score(x_t) = E[(r x_min - x_t) / s2 | x_t]; Tweedie
    gives E[x0 | x_t] = (x_t + noise_t^2 score(x_t)) / alpha_t. Drop the expectation.
    """
    r = alpha_t / alpha_m
    s2 = noise_t**2 - r**2 * noise_m**2
    score = (r * x_min - x_t) / s2
    x0 = (x_t + noise_t**2 * score) / alpha_t
    return combine(kind, x0, -noise_t * score, alpha_t, noise_t)


@pytest.mark.parametrize("kind", targets.CONVERTIBLE)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ambient_target_is_the_derived_one(schedule, kind, x64):
    rng = np.random.default_rng(1)
    x_min, z = rng.normal(size=(2, 4, 3))
    for sigma_min, sigma in itertools.combinations((0.0, 0.05, 0.3, 0.6, 0.9, 0.98), 2):
        (alpha_t, noise_t), (alpha_m, noise_m) = (scales(schedule, s) for s in (sigma, sigma_min))
        r = alpha_t / alpha_m
        x_t = r * x_min + np.sqrt(noise_t**2 - r**2 * noise_m**2) * z
        want = derived_ambient(kind, x_min, x_t, alpha_t, noise_t, alpha_m, noise_m)
        option = {"prediction": kind, "schedule": schedules.get(schedule)}
        got = targets.ambient_target(x_min, z, sigma, sigma_min, **option)
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10)
        scaled, ratio = targets.scaled_ambient_target(x_min, z, sigma, sigma_min, **option)
        np.testing.assert_allclose(scaled, ratio * want, rtol=1e-10, atol=1e-10)


def talk_coefficients(kind, sigma, sigma_min):
    """(of x_min, of x_t) in the variance-preserving ambient targets, as the talks write them."""
    a, b = np.sqrt(1 - sigma**2), np.sqrt(1 - sigma_min**2)
    delta = sigma**2 - sigma_min**2
    return {
        "x0": (sigma**2 * b / delta, -(sigma_min**2) * a / delta),
        "eps": (-sigma * a * b / delta, sigma * b**2 / delta),
        "v": (-sigma * b / delta, sigma * a / delta),
        # both talks' slide: sigma / sqrt(1 - sigma^2) times too large in x_t
        "erratum": (-sigma * a * b / delta, sigma**2 * b**2 / (delta * a)),
    }[kind]


@pytest.mark.parametrize("kind", ("x0", "eps", "v"))
def test_ambient_target_is_the_variance_preserving_formula(kind, x64):
    rng = np.random.default_rng(2)
    x_min, z = rng.normal(size=(2, 6))
    for sigma_min, sigma in itertools.combinations((0.1, 0.4, 0.7, 0.95), 2):
        x_t = corruption.renoise(x_min, z, sigma, sigma_min)
        on_min, on_t = talk_coefficients(kind, sigma, sigma_min)
        got = targets.ambient_target(x_min, z, sigma, sigma_min, prediction=kind)
        np.testing.assert_allclose(got, on_min * x_min + on_t * x_t, rtol=1e-9, atol=1e-10)


def worst_z(residual, x_t):
    """Largest |z| of E[residual f(x_t)] = 0 over features f: unbiasedness given x_t."""
    x = (x_t - x_t.mean()) / x_t.std()
    features = [np.ones_like(x), x, x**2, np.tanh(3 * x), np.cos(2 * x), (x > 0.5) * 1.0]
    products = [residual * f for f in features]
    return max(abs(p.mean()) / p.std() * np.sqrt(p.size) for p in products)


def draw(law, schedule, sigma, sigma_min, n=200_000, seed=5):
    """x_min, z, x_t of the bridge, the wrongly coupled x_t, and the posterior-mean function."""
    rng = np.random.default_rng([seed, SCHEDULES.index(schedule), int(1000 * sigma)])
    e, z, other = rng.normal(size=(3, n))
    if law == "gaussian":
        x0, means = 0.7 + np.sqrt(0.3) * rng.normal(size=n), gaussian_means
    else:
        x0, means = np.where(rng.random(n) < 0.3, -1.0, 2.0), two_point_means
    (alpha_t, noise_t), (alpha_m, noise_m) = (scales(schedule, s) for s in (sigma, sigma_min))
    r = alpha_t / alpha_m
    x_min = alpha_m * x0 + noise_m * e
    v = np.sqrt(noise_t**2 - r**2 * noise_m**2)
    x_t, wrong = r * x_min + v * z, alpha_t * x0 + noise_t * other
    return x_min, z, x_t, wrong, (wrong - r * x_min) / v, lambda x: means(x, alpha_t, noise_t)


@pytest.mark.parametrize("law", ("gaussian", "two_point"))
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ambient_targets_are_unbiased_given_x_t(schedule, law, x64):
    """Monte Carlo: T minus the closed-form posterior mean is uncorrelated with features of x_t."""
    for sigma_min, sigma in ((0.2, 0.3), (0.5, 0.8), (0.1, 0.95)):
        x_min, z, x_t, wrong, wrong_z, means = draw(law, schedule, sigma, sigma_min)
        scale = scales(schedule, sigma)
        for kind in PREDICTIONS:
            option = {"prediction": kind, "schedule": schedules.get(schedule)}
            got = np.asarray(targets.ambient_target(x_min, z, sigma, sigma_min, **option))
            assert worst_z(got - combine(kind, *means(x_t), *scale), x_t) < 4.5
        # The same test rejects x_t made from x0 with independent noise, for every kind (the bias
        # itself is too small to see where sigma is far above sigma_min).
        for kind in PREDICTIONS if sigma_min >= 0.2 else ():
            option = {"prediction": kind, "schedule": schedules.get(schedule)}
            got = np.asarray(targets.ambient_target(x_min, wrong_z, sigma, sigma_min, **option))
            assert worst_z(got - combine(kind, *means(wrong), *scale), wrong) > 10


@pytest.mark.parametrize("law", ("gaussian", "two_point"))
def test_the_talks_eps_target_fails_the_same_test(law):
    for sigma_min, sigma in ((0.2, 0.3), (0.5, 0.8)):
        x_min, _, x_t, _, _, means = draw(law, "vp", sigma, sigma_min)
        z = {}
        for kind in ("eps", "erratum"):
            on_min, on_t = talk_coefficients(kind, sigma, sigma_min)
            z[kind] = worst_z(on_min * x_min + on_t * x_t - means(x_t)[1], x_t)
        assert z["eps"] < 4.5 and z["erratum"] > 30


@pytest.mark.parametrize("kind", ("x0", "eps", "v"))
def test_ambient_targets_are_exactly_unbiased_with_the_closed_form_variance(kind, x64):
    """Everything is linear in (x0, e, z), so evaluating on unit vectors gives a proof.

    T minus the denoising target of the same x_t has no x0 part and is uncorrelated with x_t given
    x0; its variance is sigma_min^2 / Delta times sigma^2, 1 - sigma^2 and 1 for x0, eps and v.
    """
    x0, e, z = np.eye(3)
    for sigma_min, sigma in itertools.combinations((0.1, 0.4, 0.7, 0.95), 2):
        x_min = corruption.add_noise(x0, e, sigma_min)
        x_t = corruption.renoise(x_min, z, sigma, sigma_min)
        eps = (x_t - np.sqrt(1 - sigma**2) * x0) / sigma
        residual = targets.ambient_target(
            x_min, z, sigma, sigma_min, prediction=kind
        ) - targets.denoising_target(x0, eps, sigma, prediction=kind)
        np.testing.assert_allclose(residual[0], 0, atol=1e-10)
        np.testing.assert_allclose(residual[1:] @ x_t[1:], 0, atol=1e-10)
        factor = {"x0": sigma**2, "eps": 1 - sigma**2, "v": 1.0}[kind]
        want = factor * sigma_min**2 / (sigma**2 - sigma_min**2)
        np.testing.assert_allclose(residual[1:] @ residual[1:], want, rtol=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", PREDICTIONS)
def test_ambient_becomes_denoising(kind, schedule):
    """Equal to the last bit at sigma_min = 0, and in the limit."""
    x0, eps = jax.random.normal(jax.random.key(0), (2, 4, 3))
    option = {"prediction": kind, "schedule": schedules.get(schedule)}
    for sigma in (0.0, 1e-6, 0.3, 0.9, 1.0):
        want = targets.denoising_target(x0, eps, sigma, **option)
        np.testing.assert_array_equal(targets.ambient_target(x0, eps, sigma, 0.0, **option), want)
    want = targets.denoising_target(x0, eps, 0.5, **option)
    e = jax.random.normal(jax.random.key(1), x0.shape)
    errors = []
    for sigma_min in (1e-1, 1e-2, 1e-3):
        # the same x_t from both sides: eps is what the two noises add up to
        x_min = corruption.add_noise(x0, e, sigma_min, schedule=option["schedule"])
        x_t = corruption.renoise(x_min, eps, 0.5, sigma_min, schedule=option["schedule"])
        both = targets.convert(x0, x_t, 0.5, source="x0", target="eps", schedule=option["schedule"])
        want = targets.denoising_target(x0, both, 0.5, **option)
        errors.append(
            np.abs(targets.ambient_target(x_min, eps, 0.5, sigma_min, **option) - want).max()
        )
    assert errors[0] > 5 * errors[1] > 25 * errors[2]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_noise_ratio_is_shared_by_the_schedules(schedule, x64):
    for sigma_min, sigma in itertools.combinations((0.01, 0.2, 0.5, 0.8, 0.99), 2):
        (alpha_t, noise_t), (alpha_m, noise_m) = (scales(schedule, s) for s in (sigma, sigma_min))
        v = np.sqrt(noise_t**2 - (alpha_t / alpha_m) ** 2 * noise_m**2)
        got = targets.noise_ratio(sigma, sigma_min, schedule=schedules.get(schedule))
        np.testing.assert_allclose(got, v / noise_t, rtol=1e-10)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_noise_ratio_and_scaled_targets_are_finite_everywhere(schedule):
    grid = jnp.asarray([0.0, 1e-30, 1e-12, 1e-6, 0.1, 0.1000001, 0.5, 0.9999, 0.9999999, 1.0])
    sigma, sigma_min = (g.ravel() for g in jnp.meshgrid(grid, grid, indexing="ij"))
    ratio = targets.noise_ratio(sigma, sigma_min, schedule=schedules.get(schedule))
    assert np.isfinite(ratio).all() and (ratio >= 0).all() and (ratio <= 1).all()
    assert (np.asarray(ratio)[np.asarray(sigma_min) == 0] == 1).all()
    below = np.asarray((sigma <= sigma_min) & (sigma_min > 0))
    assert (np.asarray(ratio)[below] == 0).all()
    for kind in targets.PREDICTIONS:
        option = {"prediction": kind, "schedule": schedules.get(schedule)}
        scaled, _ = targets.scaled_ambient_target(1.5, -0.5, sigma, sigma_min, **option)
        assert np.isfinite(scaled).all(), kind
        above = np.asarray(sigma >= sigma_min)
        raw = targets.ambient_target(1.5, -0.5, sigma, sigma_min, **option)
        assert np.isfinite(raw[above]).all(), kind


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_jit_and_vmap_agree_with_a_loop(schedule):
    keys = jax.random.split(jax.random.key(1), 2)
    x_min, z = (jax.random.normal(k, (5, 4, 2)) for k in keys)
    sigma = jnp.asarray([0.3, 0.5, 0.7, 0.9, 1.0])
    for kind in PREDICTIONS:

        def target(x, n, s, kind=kind):
            return targets.ambient_target(
                x, n, s, 0.2, prediction=kind, schedule=schedules.get(schedule)
            )

        got = jax.jit(jax.vmap(target))(x_min, z, sigma)
        want = jnp.stack([target(*row) for row in zip(x_min, z, sigma, strict=True)])
        np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-5)


def test_unknown_kinds_name_the_nearest():
    x = jnp.zeros((2, 2))
    with pytest.raises(ValueError, match=r"prediction is 'epss'.*did you mean 'eps'\?"):
        targets.denoising_target(x, x, 0.5, prediction="epss")
    with pytest.raises(ValueError, match=r"prediction is 'velocty'.*did you mean 'velocity'\?"):
        targets.ambient_target(x, x, 0.5, 0.1, prediction="velocty")
    with pytest.raises(ValueError, match="source is 'noise', expected one of x0, eps"):
        targets.convert(x, x, 0.5, source="noise", target="x0")
    with pytest.raises(ValueError, match=r"target is 'scor'.*did you mean 'score'\?"):
        targets.convert(x, x, 0.5, source="eps", target="scor")
