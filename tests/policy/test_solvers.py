"""Solvers against distributions whose denoisers and flow maps are known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax import corruption, schedules, targets
from ambient_jax.policy import solvers

SCHEDULES = ("vp", "cosine", "rectified_flow", "edm")
# A schedule is nothing but a grid to a solver: every solver on one, every grid with one solver.
PAIRS = [
    ("ddpm", "vp"),
    ("heun", "vp"),
    ("dpmpp_2m", "vp"),
    *(("ddim", name) for name in SCHEDULES),
]
MEAN, VAR = 0.4, 0.09


def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


def as_prediction(x0_hat, prediction):
    """A denoiser of any kind from one of x0, in variance-preserving x_t."""

    def denoise(x, sigma):
        return targets.convert(x0_hat(x, sigma), x, sigma, source="x0", target=prediction)

    return denoise


def gaussian(x, sigma):
    """E[x0 | x_t] for x0 ~ N(MEAN, VAR), elementwise."""
    a = schedules.signal(sigma)
    return MEAN + VAR * a * (x - a * MEAN) / (a**2 * VAR + sigma**2)


def two_points(x, sigma):
    """E[x0 | x_t] for x0 = +0.8 with probability 0.7 and -0.8 with 0.3, std 0.05 about each."""
    a, var = schedules.signal(sigma), 0.05**2
    total = a**2 * var + sigma**2
    right = jax.nn.sigmoid(jnp.log(0.7 / 0.3) + 2 * a * 0.8 * x / total)
    centre = 0.8 * (2 * right - 1)
    return centre + var * a * (x - a * centre) / total


def flow_map(x):
    """Where the probability flow takes x at sigma = START, for the Gaussian: linear in x."""
    a, sigma = np.sqrt(1 - solvers.START**2), solvers.START
    return MEAN + (np.asarray(x, np.float64) / a - MEAN) * np.sqrt(VAR / (VAR + (sigma / a) ** 2))


def solve(denoise, n=64, shape=(4, 2), **options):
    return jax.jit(lambda k: solvers.solve(denoise, k, shape, **options))(keys(n))


@pytest.mark.parametrize("name", SCHEDULES)
def test_grid(name):
    grid = np.asarray(solvers.levels(schedules.get(name), 30))
    assert grid.shape == (31,) and grid[-1] == 0 and (np.diff(grid) < 0).all()
    np.testing.assert_allclose(grid[0], solvers.START, rtol=1e-5)
    times = np.asarray(schedules.get(name).time(grid[:-1]))
    np.testing.assert_allclose(np.diff(times), np.diff(times).mean(), rtol=1e-2)
    one = np.asarray(solvers.levels(schedules.get(name), 1))
    np.testing.assert_allclose(one, [solvers.START, 0], rtol=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("heun", 2)])
def test_order_of_convergence(solver, order, schedule):
    """Against the closed-form flow map, in float64: twice the steps, 1 / 2^order of the error."""
    with jax.enable_x64(True):
        want = flow_map(solvers.initial_noise(keys(64), (4, 2)))
        errors = []
        for steps in (128, 256):
            got = solve(
                as_prediction(gaussian, "eps"),
                solver=solver,
                steps=steps,
                schedule=schedules.get(schedule),
            )
            errors.append(np.abs(got - want).max())
        assert errors[1] < 0.05
        assert order - 0.35 < np.log2(errors[0] / errors[1]) < order + 0.6


@pytest.mark.parametrize("solver", solvers.SOLVERS)
def test_predictions_are_interchangeable(solver):
    """The same exact denoiser, stated as any kind, gives the same samples."""
    got = [
        solve(as_prediction(gaussian, kind), prediction=kind, solver=solver, steps=12)
        for kind in targets.PREDICTIONS
    ]
    for other in got[1:]:
        np.testing.assert_allclose(other, got[0], atol=2e-4)


@pytest.mark.parametrize(("solver", "schedule"), PAIRS)
def test_a_perfect_denoiser_of_one_sample_returns_it(solver, schedule):
    x0 = jax.random.uniform(jax.random.key(5), (4, 2), minval=-1)
    for steps in (1, 5):
        got = solve(
            as_prediction(lambda x, s: jnp.broadcast_to(x0, x.shape), "eps"),
            n=3,
            solver=solver,
            steps=steps,
            schedule=schedules.get(schedule),
        )
        np.testing.assert_allclose(got, np.broadcast_to(x0, got.shape), atol=1e-4)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ddpm_reaches_mean_and_covariance(schedule):
    """x0 ~ N(m, C) in two correlated dimensions, 400 steps, 20k samples: 4.5 standard errors of
    sampling, and 2% (of the scale) for the grid."""
    m, c = np.array([0.5, -0.3]), np.array([[0.2, 0.12], [0.12, 0.1]])

    def x0_hat(x, sigma):
        a = schedules.signal(sigma)
        gain = a * c @ jnp.linalg.inv(a**2 * c + sigma**2 * jnp.eye(2))
        return m + (x - a * m) @ gain.T

    n = 20_000
    got = np.asarray(
        solve(
            as_prediction(x0_hat, "v"),
            n=n,
            shape=(1, 2),
            solver="ddpm",
            steps=400,
            prediction="v",
            schedule=schedules.get(schedule),
        )
    ).reshape(n, 2)
    assert (np.abs(got.mean(0) - m) < 4.5 * np.sqrt(np.diag(c) / n) + 0.02 * 0.45).all()
    spread = np.sqrt((np.outer(np.diag(c), np.diag(c)) + c**2) / n)
    assert (np.abs(np.cov(got.T) - c) < 4.5 * spread + 0.02 * 0.2).all()


@pytest.mark.parametrize(("solver", "schedule"), PAIRS)
def test_two_modes_with_their_shares(solver, schedule):
    n = 4000
    got = np.asarray(
        solve(
            as_prediction(two_points, "eps"),
            n=n,
            shape=(1, 1),
            solver=solver,
            steps=100,
            schedule=schedules.get(schedule),
        )
    ).ravel()
    # all at a mode, 70% at the right one (3% for the start at 0.998 and the grid)
    assert np.mean(np.abs(np.abs(got) - 0.8) < 0.25) > 0.99
    assert abs(np.mean(got > 0) - 0.7) < 4.5 * np.sqrt(0.21 / n) + 0.03
    for side in (got[got > 0], -got[got < 0]):
        assert abs(np.median(side) - 0.8) < 0.01 and 0.03 < side.std() < 0.09


def test_ddim_with_eta_one_is_ddpm_and_eta_zero_draws_no_noise():
    denoise = as_prediction(gaussian, "eps")
    ddpm = solve(denoise, solver="ddpm", steps=10)
    np.testing.assert_array_equal(solve(denoise, solver="ddim", eta=1.0, steps=10), ddpm)
    half = solve(denoise, solver="ddim", eta=0.5, steps=10)
    none = solve(denoise, solver="ddim", steps=10)
    assert not np.allclose(half, ddpm) and not np.allclose(half, none)
    # deterministic: monotone in the initial noise, which ancestral sampling is not
    order = np.argsort(np.ravel(solvers.initial_noise(keys(64), (4, 2))))
    assert (np.diff(np.ravel(none)[order]) >= 0).all()
    assert not (np.diff(np.ravel(half)[order]) >= 0).all()


@pytest.mark.parametrize("solver", solvers.SOLVERS)
def test_a_row_does_not_depend_on_its_batch(solver):
    many = keys(7)
    denoise = as_prediction(two_points, "eps")
    whole = solvers.solve(denoise, many, (3, 2), solver=solver, steps=5)
    part = solvers.solve(denoise, many[4:5], (3, 2), solver=solver, steps=5)
    np.testing.assert_allclose(part[0], whole[4], atol=1e-5)
    assert not np.allclose(whole[0], whole[1])


@pytest.mark.parametrize("solver", solvers.SOLVERS)
def test_clip(solver):
    """Bounds samples of an unbounded denoiser; changes nothing where x0_hat is inside."""
    wild = as_prediction(lambda x, s: 3 * x, "eps")
    got = solve(wild, solver=solver, steps=10, clip=1.0)
    assert np.isfinite(got).all() and np.abs(got).max() <= 1
    assert np.abs(solve(wild, solver=solver, steps=10)).max() > 1.5
    tame = as_prediction(gaussian, "v")
    option = {"solver": solver, "steps": 10, "prediction": "v"}
    np.testing.assert_allclose(solve(tame, clip=50.0, **option), solve(tame, **option), atol=2e-4)


@pytest.mark.parametrize(
    ("solver", "expected"), [("ddpm", 6), ("ddim", 6), ("heun", 12), ("dpmpp_2m", 6)]
)
def test_the_network_is_asked_as_often_as_documented_and_never_at_zero(solver, expected):
    seen = []

    def denoise(x, sigma):
        jax.debug.callback(lambda s: seen.append(float(s)), sigma)
        return gaussian(x, sigma)

    jax.block_until_ready(
        solvers.solve(denoise, keys(2), (1, 1), solver=solver, steps=6, prediction="x0")
    )
    jax.effects_barrier()
    assert len(seen) == expected and min(seen) > 0 and max(seen) <= solvers.START + 1e-6


@pytest.mark.parametrize("solver", solvers.SOLVERS)
def test_the_trace_is_what_the_denoiser_said_on_the_way(solver):
    """It starts at the mean of the data and ends as the sample."""
    denoise = as_prediction(gaussian, "eps")
    plain = solve(denoise, solver=solver, steps=12)
    x0, path = solve(denoise, solver=solver, steps=12, trace=True)
    np.testing.assert_array_equal(x0, plain)
    assert path.shape == (12, *x0.shape)
    np.testing.assert_allclose(path[0], MEAN, atol=0.03)
    error = np.sqrt(np.mean((np.asarray(path) - x0) ** 2, axis=(1, 2, 3)))
    assert error[0] > error[6] > error[-1]
    np.testing.assert_allclose(path[-1], x0, atol=1e-6)  # the last step ends with x0_hat


def test_one_step_is_the_first_guess():
    x = solvers.initial_noise(keys(5), (4, 2))
    for solver in ("ddpm", "ddim", "dpmpp_2m"):
        got = solvers.solve(gaussian, keys(5), (4, 2), solver=solver, steps=1, prediction="x0")
        np.testing.assert_allclose(got, gaussian(x, solvers.START), rtol=1e-5)


@pytest.mark.parametrize("solver", ("ddim", "heun", "dpmpp_2m"))
def test_given_noise_takes_the_place_of_keys(solver):
    option = dict(solver=solver, steps=3, prediction="x0")
    noise = solvers.initial_noise(keys(5), (4, 2))
    got = solvers.solve(gaussian, None, (4, 2), noise=noise, **option)
    np.testing.assert_array_equal(got, solvers.solve(gaussian, keys(5), (4, 2), **option))
    with pytest.raises(ValueError, match="keys is None"):
        solvers.solve(gaussian, None, (4, 2), **option)
    with pytest.raises(ValueError, match="keys is None"):
        solvers.solve(gaussian, None, (4, 2), noise=noise, **{**option, "solver": "ddpm"})


def test_one_step_of_heun_is_the_midpoint_rule():
    """By hand, in y = x / alpha and s = sigma / alpha, where dy/ds = (y - x0_hat) / s."""
    with jax.enable_x64(True):
        x = np.asarray(solvers.initial_noise(keys(5), (4, 2)))
        got = solvers.solve(gaussian, keys(5), (4, 2), solver="heun", steps=1, prediction="x0")
        alpha = np.sqrt(1 - solvers.START**2)
        y, s = x / alpha, solvers.START / alpha

        def slope(y, s):
            sigma = s / np.hypot(1, s)
            return (y - np.asarray(gaussian(y * np.sqrt(1 - sigma**2), sigma))) / s

        want = y - s * slope(y - s / 2 * slope(y, s), s / 2)
        np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_dpmpp_2m_is_the_papers(schedule):
    """A transcription of algorithm 2 of arXiv 2211.01095, step by step, with a last step of first
    order: lambda = log(alpha / sigma), h its step, r = h of the step before / h."""
    with jax.enable_x64(True):
        option = dict(steps=6, schedule=schedules.get(schedule))
        grid = np.asarray(solvers.levels(option["schedule"], 6), np.float64)
        x = np.asarray(solvers.initial_noise(keys(5), (4, 2)))
        alpha, before, h_before = np.sqrt(1 - grid**2), None, None
        for i in range(5):
            x0 = np.asarray(two_points(x, grid[i]))
            h = np.log(alpha[i + 1] / grid[i + 1]) - np.log(alpha[i] / grid[i])
            drawn = x0
            if i:
                r = h_before / h
                drawn = (1 + 1 / (2 * r)) * x0 - before / (2 * r)
            x = grid[i + 1] / grid[i] * x - alpha[i + 1] * np.expm1(-h) * drawn
            before, h_before = x0, h
        got = solvers.solve(
            two_points, keys(5), (4, 2), solver="dpmpp_2m", prediction="x0", **option
        )
        np.testing.assert_allclose(got, two_points(x, grid[5]), rtol=1e-9)


@pytest.mark.parametrize("solver", solvers.SOLVERS)
def test_masked_dimensions_end_at_zero_and_half_precision_works(solver):
    mask = jnp.array([True, False])
    got = solve(lambda x, s: jnp.ones_like(x), solver=solver, steps=5, mask=mask, prediction="x0")
    np.testing.assert_allclose(got[..., 0], 1, atol=1e-5)
    np.testing.assert_array_equal(got[..., 1], 0)
    half = solve(lambda x, s: gaussian(x, s).astype(jnp.bfloat16), solver=solver, prediction="x0")
    np.testing.assert_allclose(half, solve(gaussian, solver=solver, prediction="x0"), atol=0.1)


def test_errors():
    def call(**options):
        return solvers.solve(gaussian, options.pop("keys", keys(2)), (4, 2), **options)

    with pytest.raises(ValueError, match=r"solver is 'dim'.*did you mean 'ddim'\?"):
        call(solver="dim")
    with pytest.raises(ValueError, match="prediction is 'score', expected one of x0, eps"):
        call(prediction="score")
    with pytest.raises(ValueError, match="steps is 0, expected at least 1"):
        call(steps=0)
    with pytest.raises(ValueError, match="clip is -1.0, expected a bound > 0"):
        call(clip=-1.0)
    with pytest.raises(ValueError, match=r"eta is 2.0, expected in \[0, 1\]"):
        call(eta=2.0)
    for solver in ("heun", "dpmpp_2m"):
        with pytest.raises(ValueError, match=f"eta is 0.5 with solver '{solver}', expected 0"):
            call(solver=solver, eta=0.5)
    with pytest.raises(ValueError, match=r"keys is one key, expected \[B\]"):
        call(keys=jax.random.key(0))


@pytest.mark.parametrize("solver", ["ddim", "ddpm"])
@pytest.mark.parametrize("colour", [-1.0, 1.5])
def test_coloured_noise_samples_the_covariance_of_gaussian_chunks(solver, colour):
    """With noise of covariance C, E[x0 | x_t] = a S (a^2 S + s^2 C)^-1 x_t for x0 ~ N(0, S)."""
    horizon = 5
    walk = np.tril(np.ones((horizon, horizon))) * 0.4
    data, matrix = jnp.asarray(walk @ walk.T), corruption.colour_matrix(horizon, colour)
    noise = jnp.asarray(matrix @ matrix)

    def denoise(x, sigma):
        a = schedules.signal(sigma)
        gain = a * data @ jnp.linalg.inv(a**2 * data + sigma**2 * noise)
        x0 = jnp.einsum("gh,bhd->bgd", gain, x)
        return targets.convert(x0, x, sigma, source="x0", target="v")

    options = dict(
        solver=solver, steps=120, prediction="v", schedule=schedules.cosine(colour=colour)
    )
    x = np.asarray(solve(denoise, 20_000, (horizon, 1), **options))[..., 0]
    np.testing.assert_allclose(np.cov(x.T), data, atol=0.05)
