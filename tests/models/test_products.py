import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax.models.products import product


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
