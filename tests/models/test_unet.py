import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax.models.unet import UNet1D

# Narrow, so that it compiles fast; the convolution's own tests cover the wide way.
SMALL = UNet1D(features=(8, 12), groups=4, embed_dim=8)


def inputs(horizon, batch=3, dims=2, condition=5):
    keys = jax.random.split(jax.random.key(horizon), 2)
    x_t = jax.random.normal(keys[0], (batch, horizon, dims))
    return x_t, jnp.linspace(0, 1, batch), jax.random.normal(keys[1], (batch, condition))


def filled(module, *args):
    """Parameters of order one over the fan-in; compiling the real initialisation takes seconds."""
    rng = np.random.default_rng(0)

    def fill(leaf):
        size = 1 / np.sqrt(np.prod(leaf.shape[:-1])) if leaf.ndim > 1 else 0.2
        return jnp.asarray(size * rng.normal(size=leaf.shape), leaf.dtype)

    return jax.tree.map(fill, jax.eval_shape(module.init, jax.random.key(0), *args))


@pytest.mark.parametrize("horizon", [1, 2, 3, 5, 7, 15, 16])
def test_any_horizon_is_kept(horizon):
    module = UNet1D(features=(8, 8, 12), groups=4, embed_dim=8)
    args = inputs(horizon)
    params = filled(module, *args)
    y = jax.eval_shape(module.apply, params, *args)
    assert y.shape == (3, horizon, 2)
    assert y.dtype == jnp.float32
    if horizon in (1, 7):
        assert np.isfinite(jax.jit(module.apply)(params, *args)).all()


def test_parameters_do_not_depend_on_the_horizon():
    short = jax.eval_shape(SMALL.init, jax.random.key(0), *inputs(1))
    long = jax.eval_shape(SMALL.init, jax.random.key(0), *inputs(16))
    assert short == long


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_each_level_has_as_many_blocks_as_asked(blocks):
    module = UNet1D(features=(8, 12), groups=4, embed_dim=8, blocks=blocks)
    params = jax.eval_shape(module.init, jax.random.key(0), *inputs(4))["params"]
    expected = {f"{at}_{i}" for at in ("down_0", "down_1", "middle", "up_1") for i in range(blocks)}
    assert {n for n, p in params.items() if "conv_0" in p} == expected
    # Scale and shift of every block: 8 + 12 down, 12 in the middle, 8 up.
    assert params["film"]["kernel"].shape[1] == 2 * blocks * (8 + 12 + 12 + 8)


def test_one_level_is_a_network_without_resampling():
    module = UNet1D(features=(8,), groups=2, embed_dim=4)
    params = jax.eval_shape(module.init, jax.random.key(0), *inputs(4))["params"]
    assert not [name for name in params if "sample" in name or name.startswith("up")]


def test_samples_do_not_see_each_other_and_every_input_matters():
    x_t, sigma, condition = inputs(7)
    params = filled(SMALL, x_t, sigma, condition)
    apply = jax.jit(SMALL.apply)
    y = apply(params, x_t, sigma, condition)
    for changed in (
        (x_t.at[1, 6].add(1.0), sigma, condition),
        (x_t, sigma.at[1].add(0.1), condition),
        (x_t, sigma, condition.at[1].add(1.0)),
    ):
        moved = np.abs(apply(params, *changed) - y).max((1, 2))
        assert moved[1] > 1e-4
        np.testing.assert_allclose(moved[[0, 2]], 0, atol=1e-6)


def test_every_parameter_has_a_gradient():
    args = inputs(8)
    params = filled(SMALL, *args)
    grads = jax.jit(jax.grad(lambda p: (SMALL.apply(p, *args) ** 2).sum()))(params)
    dead = [path for path, g in jax.tree.leaves_with_path(grads) if not np.abs(g).max() > 0]
    assert not dead


def test_bfloat16_stays_close_with_float32_parameters_and_output():
    args = inputs(8)
    params = filled(SMALL, *args)
    low = SMALL.clone(dtype=jnp.bfloat16)
    assert jax.eval_shape(low.init, jax.random.key(0), *args) == jax.eval_shape(lambda: params)
    exact, rounded = (jax.jit(module.apply)(params, *args) for module in (SMALL, low))
    assert rounded.dtype == jnp.float32
    np.testing.assert_allclose(rounded, exact, atol=0.1 * float(jnp.abs(exact).max()))
    assert float(jnp.abs(rounded - exact).max()) > 0


@pytest.mark.parametrize(
    "index, value, message",
    [
        (0, jnp.zeros((3, 8)), r"x_t has shape \(3, 8\); expected \[B, H, D\]"),
        (0, jnp.zeros((3, 0, 2)), "H, D >= 1"),
        (1, jnp.zeros((3, 1)), r"sigma has shape \(3, 1\); expected \[3\]"),
        (1, jnp.float32(0.5), r"sigma has shape \(\); expected \[3\]"),
        (2, jnp.zeros((2, 5)), r"condition has shape \(2, 5\); expected \[3, C\]"),
    ],
)
def test_bad_shapes_are_named(index, value, message):
    args = list(inputs(8))
    args[index] = value
    with pytest.raises(ValueError, match=message):
        SMALL.init(jax.random.key(0), *args)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"features": (16, 20), "groups": 8}, "20 is not a multiple of groups = 8"),
        ({"features": ()}, r"features is \(\); expected a list of widths"),
        ({"kernel_size": 4}, "kernel_size is 4; expected an odd number"),
        ({"embed_dim": 7}, "embed_dim is 7; expected an even number"),
        ({"groups": 0}, "groups is 0; expected an integer >= 1"),
    ],
)
def test_bad_sizes_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        UNet1D(**fields).check_sizes()
    with pytest.raises(ValueError, match=message):
        UNet1D(**fields).init(jax.random.key(0), *inputs(8))
