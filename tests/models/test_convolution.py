import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax.models.convolution import conv1d, minimal_rule, product, traced_for
from ambient_jax.models.layers import Conv1D, UpConv1D


def reference(x, kernel, stride):
    half = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride,),
        [(half, half)],
        dimension_numbers=("NWC", "WIO", "NWC"),
        precision="highest",
    )


def inputs(length, channels, k, features=24):
    keys = jax.random.split(jax.random.key(length * 100 + k), 3)
    x = jax.random.normal(keys[0], (3, length, channels))
    kernel = jax.random.normal(keys[1], (k, channels, features)) / np.sqrt(k * channels)
    return x, kernel, keys[2]


# Lengths shorter than the kernel, no multiple of the tile, and long; channels under and over the
# size where minimal filtering starts.
CASES = (
    [(length, k, 32) for length in (1, 2, 3, 4, 5, 8, 15) for k in (3, 5)]
    + [(length, k, 32) for length in (2, 9) for k in (1, 7)]
    + [(length, 5, 2) for length in (1, 4, 16)]
)


@pytest.mark.parametrize("length, k, channels", CASES)
def test_equals_lax_convolution(length, k, channels):
    x, kernel, _ = inputs(length, channels, k)
    # Minimal filtering loses about two bits: outputs are of order one.
    np.testing.assert_allclose(conv1d(x, kernel), reference(x, kernel, 1), atol=3e-5)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 8])
def test_stride_two_equals_lax_convolution(length):
    x, kernel, _ = inputs(length, 32, 3)
    expected = reference(x, kernel, 2)
    assert expected.shape[1] == (length + 1) // 2
    np.testing.assert_allclose(conv1d(x, kernel, 2), expected, atol=1e-5)


@pytest.mark.parametrize("length, k", [(4, 5), (7, 5), (16, 5), (2, 5), (8, 3)])
def test_gradients_equal_those_of_lax_convolution(length, k):
    x, kernel, key = inputs(length, 32, k)
    g = jax.random.normal(key, (3, length, 24))
    ours = jax.jit(jax.vjp(conv1d, x, kernel)[1])(g)
    theirs = jax.vjp(lambda x, kernel: reference(x, kernel, 1), x, kernel)[1](g)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_vmap_over_kernels_is_a_loop():
    x, kernel, _ = inputs(8, 32, 5)
    kernels = jnp.stack([kernel, 2 * kernel])
    batched = jax.vmap(conv1d, in_axes=(None, 0))(x, kernels)
    np.testing.assert_allclose(batched[1], conv1d(x, 2 * kernel), atol=3e-5)


@pytest.mark.parametrize("tile, k", [(4, 3), (4, 5), (2, 3)])
def test_minimal_rule_correlates(tile, k):
    rng = np.random.default_rng(0)
    signal, taps = rng.normal(size=tile + k - 1), rng.normal(size=k)
    a, g, b = minimal_rule(tile, k)
    # numpy's "valid" correlation is the definition.
    expected = np.correlate(signal, taps, "valid")
    np.testing.assert_allclose(a @ ((g @ taps) * (b @ signal)), expected, atol=1e-12)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_up_convolution_is_the_transpose_of_a_strided_one(length):
    """A transposed convolution is, by definition, the adjoint of the convolution."""
    channels, features = 6, 4
    module = UpConv1D(features)
    x = jax.random.normal(jax.random.key(0), (2, length, channels))
    params = module.init(jax.random.key(1), x)
    kernel = params["params"]["kernel"]

    def down(y):
        return jax.lax.conv_general_dilated(
            y,
            kernel.transpose(0, 2, 1),
            (2,),
            [(1, 1)],
            dimension_numbers=("NWC", "WIO", "NWC"),
            precision="highest",
        )

    _, adjoint = jax.vjp(down, jnp.zeros((2, 2 * length, features)))
    np.testing.assert_allclose(module.apply(params, x), adjoint(x)[0], atol=1e-5)


def test_convolution_in_bfloat16_keeps_float32_parameters():
    module = Conv1D(32, 5, dtype=jnp.bfloat16)
    x = jax.random.normal(jax.random.key(0), (2, 8, 32))
    params = module.init(jax.random.key(1), x)
    y = module.apply(params, x)
    assert y.dtype == jnp.bfloat16
    assert params["params"]["kernel"].dtype == jnp.float32
    exact = Conv1D(32, 5).apply(params, x)
    np.testing.assert_allclose(y.astype(jnp.float32), exact, atol=0.05)


@pytest.mark.parametrize(("inner", "columns"), [(3, 7), (7, 3), (5, 5)])
def test_value_and_gradients_are_those_of_the_plain_product(inner, columns):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (2, 4, inner))
    w = jax.random.normal(keys[1], (inner, columns))
    weight = jax.random.normal(keys[2], (2, 4, columns))
    ours, plain = (
        jax.value_and_grad(lambda x, w, f=f: jnp.sum(weight * f(x, w)), (0, 1))(x, w)
        for f in (product, jnp.matmul)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), ours, plain)


def test_it_maps_over_an_ensemble_of_weights():
    x = jnp.arange(6.0).reshape(2, 3)
    w = jnp.stack([jnp.eye(3), 2 * jnp.eye(3)])
    np.testing.assert_array_equal(jax.vmap(product, (None, 0))(x, w)[1], 2 * x)


def test_a_program_for_another_platform_has_its_convolutions():
    x, kernel = jnp.ones((1, 8, 32)), jnp.ones((5, 32, 4))
    lower = lambda: jax.jit(lambda *a: conv1d(*a)).lower(x, kernel).as_text()  # noqa: E731
    with traced_for("tpu"):
        assert "stablehlo.convolution" in lower()
    assert "stablehlo.convolution" not in lower()
