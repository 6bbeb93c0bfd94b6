import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ambient_jax.models.convolution import product
from ambient_jax.models.layers import (
    Dense,
    GroupNorm,
    NoiseEmbedding,
    check_positive,
    gelu,
    layer_norm,
    mish,
)


def mish_by_definition(x):
    return x * np.tanh(np.log1p(np.exp(x)))


def gelu_by_definition(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


@pytest.mark.parametrize(
    "ours, theirs",
    [(mish, mish_by_definition), (gelu, gelu_by_definition)],
    ids=["mish", "gelu"],
)
def test_activation_and_slope_match_their_definition(ours, theirs):
    x = np.linspace(-30, 30, 2001).astype(np.float32)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(ours(x), theirs(exact), rtol=1e-5, atol=1e-6)
    slopes = jax.jit(jax.vmap(jax.grad(ours)))(x)
    # The complex step gives the slope of an analytic function without cancellation.
    expected = theirs(exact + 1e-30j).imag / 1e-30
    np.testing.assert_allclose(slopes, expected, rtol=1e-4, atol=2e-6)
    far = jnp.array([-1e4, -100.0, 100.0, 1e4])
    np.testing.assert_allclose(ours(far), jnp.maximum(far, 0))
    np.testing.assert_allclose(jax.vmap(jax.grad(ours))(far), far > 0)


@pytest.mark.parametrize("shape, features", [((5, 8), 4), ((5, 4), 8), ((2, 3, 4), 6)])
def test_product_and_gradients_are_those_of_matmul(shape, features):
    keys = jax.random.split(jax.random.key(0), 3)
    x, w = jax.random.normal(keys[0], shape), jax.random.normal(keys[1], (shape[-1], features))
    g = jax.random.normal(keys[2], (*shape[:-1], features))
    y, backward = jax.vjp(product, x, w)
    expected, expected_backward = jax.vjp(jnp.matmul, x, w)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    for ours, theirs in zip(backward(g), expected_backward(g), strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_dense_equals_flax_dense():
    x = jax.random.normal(jax.random.key(0), (2, 3, 5))
    params = Dense(7).init(jax.random.key(1), x)
    np.testing.assert_allclose(Dense(7).apply(params, x), nn.Dense(7).apply(params, x), atol=1e-6)


@pytest.mark.parametrize("length", [1, 4, 16])
def test_group_norm_equals_flax_group_norm(length):
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (2, length, 24))
    params = GroupNorm(4).init(jax.random.key(1), x)
    params = jax.tree.map(lambda p: p + jnp.linspace(-1, 1, p.size), params)
    ours = GroupNorm(4).apply(params, x)
    theirs = nn.GroupNorm(4, epsilon=1e-5).apply(params, x[:, None])[:, 0]
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_group_norm_statistics_are_float32_for_bfloat16():
    # In bfloat16 the mean of values near 100 would be wrong by more than their spread.
    x = (100 + jax.random.normal(jax.random.key(0), (2, 16, 32))).astype(jnp.bfloat16)
    y, params = GroupNorm(8).init_with_output(jax.random.key(1), x)
    assert y.dtype == jnp.bfloat16
    groups = np.asarray(y, np.float32).reshape(2, 16, 8, 4)
    np.testing.assert_allclose(groups.mean((1, 3)), 0, atol=0.01)
    np.testing.assert_allclose(groups.std((1, 3)), 1, atol=0.02)


def test_group_norm_rejects_channels_that_do_not_divide():
    with pytest.raises(ValueError, match="12 channels and 8 groups"):
        GroupNorm(8).init(jax.random.key(0), jnp.zeros((1, 4, 12)))


def test_layer_norm_equals_flax_layer_norm():
    x = 5 + jax.random.normal(jax.random.key(0), (2, 3, 16))
    module = nn.LayerNorm(epsilon=1e-5, use_bias=False, use_scale=False)
    np.testing.assert_allclose(layer_norm(x), module.apply({}, x), atol=3e-5)


def test_noise_embedding_is_finite_and_tells_levels_apart():
    module = NoiseEmbedding(32)
    sigma = jnp.array([0.0, 0.002, 0.01, 0.5, 0.99, 1.0])
    params = module.init(jax.random.key(0), sigma)
    y = module.apply(params, sigma)
    assert y.shape == (6, 32)
    assert np.isfinite(y).all()
    distance = np.linalg.norm(y[:, None] - y[None], axis=-1) + 10 * np.eye(6)
    assert distance.min() > 1e-2
    slope = jax.grad(lambda s: module.apply(params, s).sum())(sigma)
    assert np.isfinite(slope).all()


@pytest.mark.parametrize("size", [0, -1, 2.0, True, "8"])
def test_check_positive_names_the_field(size):
    with pytest.raises(ValueError, match="Net width is .*expected an integer >= 1"):
        check_positive("Net", width=size)
