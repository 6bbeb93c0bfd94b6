"""Influence against explicit gradients of every chunk, and against the step that it predicts."""

import dataclasses

import flax.linen as nn
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ambient_jax import schedules, targets
from ambient_jax.annotate import influence
from ambient_jax.evaluate.evaluation import Chunks
from ambient_jax.models.layers import Dense, mish
from ambient_jax.policy.policy import Policy
from ambient_jax.transforms.normalizer import Normalizer

H, D, T = 3, 2, 2
LEVELS = (0.1, 0.5, 0.9)


class Tiny(nn.Module):
    """One hidden layer over x_t, sigma and the observation."""

    @nn.compact
    def __call__(self, x_t, sigma, observation):
        seen = [x_t.reshape(len(x_t), -1), observation["state"].reshape(len(x_t), -1)]
        hidden = nn.tanh(nn.Dense(8)(jnp.concatenate([*seen, sigma[:, None]], 1)))
        return nn.Dense(H * D)(hidden).reshape(x_t.shape)


def policy_of(prediction="eps", shift=0.3):
    names = {"action": D, "observation/state": 3}
    maps = [{n: np.full(d, value, np.float32) for n, d in names.items()} for value in (shift, 2.0)]
    args = jnp.zeros((1, H, D)), jnp.ones(1), {"state": jnp.zeros((1, T, 3))}
    params = Tiny().init(jax.random.key(3), *args)["params"]
    if jax.config.read("jax_enable_x64"):
        params = jax.tree.map(lambda p: p.astype(jnp.float64), params)
    return Policy(
        Tiny(), params, Normalizer("gaussian", *maps), horizon=H, history=T, prediction=prediction
    )


def chunks_of(n, seed=0, past_the_end=True):
    rng = np.random.default_rng(seed)
    mask = np.arange(H) < rng.integers(1 if past_the_end else H, H + 1, (n, 1))
    observation = {"state": rng.normal(size=(n, T, 3))}
    return Chunks(observation, rng.normal(size=(n, H, D)).astype(np.float32), mask)


def loss_of(policy, params, chunks, i, sigma, seed, draws):
    """The loss of one chunk, written out: the definition that the kernel must agree with."""
    x0 = (jnp.asarray(chunks.action)[i] - 0.3) / 2
    state = (jnp.float32(chunks.observation["state"])[i] - 0.3) / 2
    mask = jnp.asarray(chunks.mask)[i]
    total = 0.0
    for draw in range(draws):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), draw), i)
        eps = jax.random.normal(key, (H, D))
        x_t = schedules.signal(sigma) * x0 + sigma * eps
        level = jnp.asarray(sigma, x_t.dtype)[None]
        h = Tiny().apply({"params": params}, x_t[None], level, {"state": state[None]})[0]
        square = (h - targets.denoising_target(x0, eps, sigma, prediction=policy.prediction)) ** 2
        total += jnp.sum(square * mask[:, None]) / (D * mask.sum())
    return total / draws


def explicit(policy, chunks, levels, seed, draws):
    """Per-sample gradients [L, N, P]."""

    def one(sigma, i):
        loss = lambda p: loss_of(policy, p, chunks, i, sigma, seed, draws)  # noqa: E731
        return jax.flatten_util.ravel_pytree(jax.grad(loss)(policy.params))[0]

    every = jax.vmap(jax.vmap(one, (None, 0)), (0, None))
    return np.asarray(jax.jit(every)(jnp.array(levels), jnp.arange(len(chunks.action))))


@pytest.mark.parametrize("x64, prediction, draws", [(False, "eps", 1), (True, "v", 2)])
def test_it_is_the_inner_product_of_explicit_gradients(x64, prediction, draws):
    with jax.enable_x64(x64):
        check(x64, prediction, draws)


def check(x64, prediction, draws):
    policy, clean, pile = policy_of(prediction), chunks_of(5), chunks_of(7, seed=1)
    found = influence.influence(
        policy, clean, pile, levels=LEVELS, draws=draws, seed=4, batch=3
    )  # 5 and 7 chunks in batches of 3: the last ones are filled up
    assert found.shape == (3, 7) and found.dtype == (np.float64 if x64 else np.float32)
    direction = explicit(policy, clean, LEVELS, 4, draws).mean(1)
    exact = np.einsum("lnp,lp->ln", explicit(policy, pile, LEVELS, 5, draws), direction)
    rtol, atol = (1e-6, 1e-7) if x64 else (2e-4, 1e-4)
    np.testing.assert_allclose(found, exact, rtol=rtol, atol=atol * abs(exact).max())


def test_positive_means_that_a_step_on_the_chunk_lowers_the_clean_loss():
    with jax.enable_x64(True):
        policy, clean, pile = policy_of(), chunks_of(6), chunks_of(4, seed=1)
        found = influence.influence(policy, clean, pile, levels=(0.4,))[0]
        h = 1e-5
        start, unravel = jax.flatten_util.ravel_pytree(policy.params)
        of_clean = jax.vmap(lambda p, i: loss_of(policy, p, clean, i, 0.4, 0, 1), (None, 0))
        clean_loss = jax.jit(lambda p: of_clean(unravel(p), jnp.arange(6)).mean())
        for i, slope in enumerate(explicit(policy, pile, [0.4], 1, 1)[0]):
            lowered = (clean_loss(start + h * slope) - clean_loss(start - h * slope)) / (2 * h)
            np.testing.assert_allclose(found[i], lowered, rtol=1e-4, atol=1e-8)
        assert found.min() < 0 < found.max()


def test_the_clean_chunk_itself_helps_and_its_opposite_harms():
    """A network that is one number per action: l = (b - x0)^2 + const, grad = 2 (b - x0)."""

    class Constant(nn.Module):
        @nn.compact
        def __call__(self, x_t, sigma, observation):
            b = self.param("b", nn.initializers.zeros, (D,))
            return jnp.broadcast_to(b, x_t.shape)

    names = {"action": D, "observation/state": 3}
    maps = [{n: np.full(d, value, np.float32) for n, d in names.items()} for value in (0.0, 1.0)]
    policy = Policy(
        *(Constant(), {"b": jnp.zeros(D)}, Normalizer("gaussian", *maps)),
        **dict(horizon=H, history=T, prediction="x0"),
    )
    x0 = np.full((1, H, D), 0.5, np.float32)
    observation = {"state": np.zeros((1, T, 3))}
    clean = Chunks(observation, x0, np.ones((1, H), bool))
    pile = Chunks(
        {"state": np.zeros((4, T, 3))},
        np.concatenate([x0, -x0, 0 * x0, x0]),
        np.array([[True] * H] * 3 + [[False] * H]),
    )
    found = influence.influence(policy, clean, pile, levels=LEVELS)
    # d/db_k mean over H D of (b - x0)^2 at b = 0 is -2 x0 / D; the inner product sums D of them.
    unit = D * (2 * 0.5 / D) ** 2
    np.testing.assert_allclose(found, np.tile([unit, -unit, 0, 0], (3, 1)), rtol=1e-5)
    # Half the influence where the optimiser takes half the step in every parameter.
    half = influence.influence(policy, clean, pile, levels=LEVELS, preconditioner={"b": 0.5})
    np.testing.assert_allclose(half, found / 2, rtol=1e-6)
    # Adam's factors: the step of the first dimension is ten times that of the second.
    adam = {"b": jnp.array([1.0, 0.1])}
    scaled = influence.influence(policy, clean, pile, levels=LEVELS, preconditioner=adam)
    np.testing.assert_allclose(scaled, found * 0.55, rtol=1e-5)


def test_batches_and_chunks_that_do_not_count_change_nothing():
    policy, clean, pile = policy_of(), chunks_of(5), chunks_of(6, seed=1)
    whole = influence.influence(policy, clean, pile, levels=LEVELS)
    parts = influence.influence(policy, clean, pile, levels=LEVELS, batch=4)
    np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-6)
    # Appended clean chunks without a valid step leave the mean loss as it is.
    grown = Chunks(
        {"state": np.concatenate([clean.observation["state"], np.ones((2, T, 3))])},
        np.concatenate([clean.action, np.full((2, H, D), 9, np.float32)]),
        np.concatenate([clean.mask, np.zeros((2, H), bool)]),
    )
    np.testing.assert_allclose(
        influence.influence(policy, grown, pile, levels=LEVELS), whole, rtol=1e-4, atol=1e-6
    )


def test_one_clean_gradient_serves_several_data_sets_and_other_parameters():
    policy, clean, pile = policy_of(), chunks_of(5), chunks_of(6, seed=1)
    slope = influence.gradient(policy, clean, levels=LEVELS)
    whole = influence.influence(policy, clean, pile, levels=LEVELS)
    np.testing.assert_array_equal(influence.along(policy, slope, pile, levels=LEVELS), whole)
    other = jax.tree.map(lambda p: 1.5 * p, policy.params)
    moved = influence.influence(policy, clean, pile, levels=LEVELS, params=other)
    own = dataclasses.replace(policy, params=other)
    np.testing.assert_array_equal(influence.influence(own, clean, pile, levels=LEVELS), moved)
    assert not np.allclose(moved, whole)


def test_impossible_input_is_named():
    policy, clean = policy_of(), chunks_of(2)
    empty = Chunks({"state": np.zeros((0, T, 3))}, np.zeros((0, H, D)), np.zeros((0, H), bool))
    with pytest.raises(ValueError, match="0 chunks in batches of 512, expected at least 1"):
        influence.influence(policy, clean, empty)
    with pytest.raises(ValueError, match="none of the 2 chunks has a step inside"):
        influence.gradient(policy, clean._replace(mask=np.zeros((2, H), bool)))
    with pytest.raises(ValueError, match=r"levels are \(0.0, 0.5\), expected noise levels"):
        influence.influence(policy, clean, clean, levels=(0.0, 0.5))
    with pytest.raises(ValueError, match="draws is 0"):
        influence.influence(policy, clean, clean, draws=0)
    with pytest.raises(ValueError, match="observation 'state' is missing"):
        influence.influence(policy, clean._replace(observation={}), clean)


class Own(nn.Module):
    """One hidden layer of the library's own operations, which have no forward mode."""

    @nn.compact
    def __call__(self, x_t, sigma, observation):
        seen = [x_t.reshape(len(x_t), -1), observation["state"].reshape(len(x_t), -1)]
        hidden = mish(Dense(8)(jnp.concatenate([*seen, sigma[:, None]], 1)))
        return Dense(H * D)(hidden).reshape(x_t.shape)


def test_a_network_with_a_backward_pass_of_its_own():
    """Against differences of the losses."""
    args = jnp.zeros((1, H, D)), jnp.ones(1), {"state": jnp.zeros((1, T, 3))}
    params = Own().init(jax.random.key(0), *args)["params"]
    policy = dataclasses.replace(policy_of("v"), model=Own(), params=params)
    pile, how = chunks_of(6, seed=2), dict(levels=(0.5,), draws=1)
    slope = influence.gradient(policy, chunks_of(9), **how)
    found = influence.along(policy, slope, pile, **how)[0]
    step = 1e-2 / optax.global_norm(slope)
    (rows,) = influence._batches(policy, pile, 1, 512)  # with the noise of ``along``
    losses = jax.jit(
        lambda h: influence._losses(
            policy, jax.tree.map(lambda p, s: p + h * s[0], params, slope), rows, 0.5, 0
        )
    )
    expected = (losses(step) - losses(-step)) / (2 * step)
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.01 * np.abs(found).max())
