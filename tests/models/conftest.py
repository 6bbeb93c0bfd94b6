import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture
def fill():
    """Parameters of order one over the fan-in; compiling the real initialisation takes seconds."""

    def fill(module, *args, seed=0):
        rng = np.random.default_rng(seed)

        def leaf(path, shape):
            size = 1 / np.sqrt(np.prod(shape.shape[:-1])) if shape.ndim > 1 else 0.2
            centre = float(path[-1].key == "scale")
            return jnp.asarray(centre + size * rng.normal(size=shape.shape), shape.dtype)

        return jax.tree_util.tree_map_with_path(
            leaf, jax.eval_shape(module.init, jax.random.key(0), *args)
        )

    return fill
