import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax.models.layers import Attention, attend
from ambient_jax.models.transformer import TransformerDenoiser

SMALL = TransformerDenoiser(width=16, depth=2, heads=2)


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


@pytest.mark.parametrize("horizon", [1, 5, 16])
def test_any_horizon_is_kept(horizon):
    args = inputs(horizon)
    y = SMALL.apply(filled(SMALL, *args), *args)
    assert y.shape == (3, horizon, 2)
    assert y.dtype == jnp.float32
    assert np.isfinite(y).all()


def test_blocks_start_as_the_identity():
    args = inputs(5)
    params = jax.jit(SMALL.init)(jax.random.key(0), *args)
    shallow = {k: v for k, v in params["params"].items() if k[-1] != "1" and "mlp_1" not in k}
    width = SMALL.width
    shallow["film"] = jax.tree.map(lambda p: p[..., : 8 * width], shallow["film"])
    one = SMALL.clone(depth=1).apply({"params": shallow}, *args)
    np.testing.assert_allclose(SMALL.apply(params, *args), one, atol=1e-6)


def test_attention_equals_its_definition():
    x = jax.random.normal(jax.random.key(0), (2, 5, 16))
    y, params = Attention(2).init_with_output(jax.random.key(1), x)
    weights = params["params"]
    expected = np.zeros(x.shape)
    for b in range(2):
        q, k, v = np.split(np.asarray(x[b] @ weights["qkv"]["kernel"]), 3, axis=-1)
        for part in (slice(0, 8), slice(8, 16)):
            logits = q[:, part] @ k[:, part].T / np.sqrt(8)
            mass = np.exp(logits)
            expected[b, :, part] = mass / mass.sum(-1, keepdims=True) @ v[:, part]
    expected = expected @ np.asarray(weights["out"]["kernel"])
    np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_of_attention_are_those_of_its_formula(masked):
    keys = jax.random.split(jax.random.key(0), 4)
    q, k, v, g = (jax.random.normal(key, (2, 3, 5, 8)) for key in keys)
    mask = jnp.array([[True, True, False, True, False], [False] * 5]) if masked else None

    def formula(q, k, v):
        logits = jnp.einsum("bhid,bhjd->bhij", q, k) / np.sqrt(8)
        if masked:
            logits = jnp.where(mask[:, None, None], logits, -1e9)
        return jnp.einsum("bhij,bhjd->bhid", jax.nn.softmax(logits, -1), v)

    y, pull = jax.vjp(lambda *qkv: attend(*qkv, mask), q, k, v)
    expected, pull_expected = jax.vjp(formula, q, k, v)
    np.testing.assert_allclose(y, expected, atol=1e-6)
    for found, other in zip(pull(g), pull_expected(g), strict=True):
        np.testing.assert_allclose(found, other, atol=2e-6)


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


def test_every_parameter_has_a_gradient_once_the_gates_are_open():
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
    exact, rounded = jax.jit(SMALL.apply)(params, *args), jax.jit(low.apply)(params, *args)
    assert rounded.dtype == jnp.float32
    np.testing.assert_allclose(rounded, exact, atol=0.1 * float(jnp.abs(exact).max()))
    assert float(jnp.abs(rounded - exact).max()) > 0


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"width": 30, "heads": 4}, "width: 30 is not a multiple of heads = 4"),
        ({"width": 15, "heads": 3}, "width is 15; expected an even number"),
        ({"depth": 0}, "depth is 0; expected an integer >= 1"),
    ],
)
def test_bad_sizes_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        TransformerDenoiser(**fields).init(jax.random.key(0), *inputs(8))
