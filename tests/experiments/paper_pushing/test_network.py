"""The encoder: it sees every camera, the newest picture only, and where a thing is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.paper_pushing.network import CameraEncoder


@pytest.fixture(scope="module")
def encode():
    rng = np.random.default_rng(0)
    observation = {
        "state": rng.normal(size=(2, 2, 2)).astype(np.float32),
        "image_primary": rng.integers(0, 255, (2, 2, 60, 60, 3)).astype(np.uint8),
        "image_wrist": rng.integers(0, 255, (2, 2, 60, 60, 3)).astype(np.uint8),
        "image_wrist_mask": np.ones((2, 2), bool),
    }
    model = CameraEncoder(widths=(8, 8, 4), keypoints=4, width=16)
    params = model.init(jax.random.key(0), observation)
    return jax.jit(lambda o: model.apply(params, o)), observation


@pytest.mark.parametrize("name", ["state", "image_primary", "image_wrist"])
def test_each_input_matters(encode, name):
    apply, observation = encode
    value = observation[name].copy()
    value[0, -1] = value[1, -1]
    changed = apply(observation | {name: value})
    assert changed.shape == (2, 16) and changed.dtype == jnp.float32
    assert not np.allclose(changed[0], apply(observation)[0])
    np.testing.assert_allclose(changed[1], apply(observation)[1], atol=1e-5)


def test_older_pictures_are_not_used(encode):
    apply, observation = encode
    older = observation["image_primary"].copy()
    older[:, 0] = 0
    same = apply(observation | {"image_primary": older})
    np.testing.assert_array_equal(same, apply(observation))
