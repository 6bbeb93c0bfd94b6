import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from ambient_jax import observations
from ambient_jax.models.denoiser import build_denoiser
from ambient_jax.models.multimodal import MultimodalEncoder
from ambient_jax.models.observation import ObservationEncoder

UNET = {"name": "unet", "features": [8, 16], "groups": 4, "embed_dim": 8}
TRANSFORMER = {"name": "transformer", "width": 16, "depth": 1, "heads": 2}


def inputs(batch=2):
    observation = {"agent": jnp.ones((batch, 2, 2)), "goal": jnp.zeros((batch, 1, 2))}
    return jnp.ones((batch, 4, 3)), jnp.linspace(0, 1, batch), observation


def filled(module, *args):
    """Parameters of order one over the fan-in; compiling the real initialisation takes seconds."""
    rng = np.random.default_rng(0)

    def fill(leaf):
        size = 1 / np.sqrt(np.prod(leaf.shape[:-1])) if leaf.ndim > 1 else 0.2
        return jnp.asarray(size * rng.normal(size=leaf.shape), leaf.dtype)

    return jax.tree.map(fill, jax.eval_shape(module.init, jax.random.key(0), *args))


@pytest.mark.parametrize("fields", [UNET, TRANSFORMER], ids=["unet", "transformer"])
def test_config_to_prediction(fields):
    denoiser = build_denoiser(ml_collections.ConfigDict(fields))
    x_t, sigma, observation = inputs()
    params = filled(denoiser, x_t, sigma, observation)
    y = denoiser.apply(params, x_t, sigma, observation)
    assert y.shape == x_t.shape
    encoder = {"params": params["params"]["encoder"]}
    condition = ObservationEncoder().apply(encoder, observation)
    inner = {"params": params["params"]["backbone"]}
    expected = denoiser.backbone.apply(inner, x_t, sigma, condition)
    np.testing.assert_allclose(y, expected, atol=1e-6)


def test_the_last_layer_does_not_start_at_zero():
    denoiser = build_denoiser(UNET)

    @jax.jit
    def last_kernel(key):
        return denoiser.init(key, *inputs())["params"]["backbone"]["out"]["kernel"]

    assert np.abs(last_kernel(jax.random.key(0))).max() > 1e-2


def test_dtype_by_name():
    assert build_denoiser({**UNET, "dtype": "bfloat16"}).backbone.dtype == jnp.bfloat16
    assert build_denoiser(UNET).backbone.dtype == jnp.float32


def test_it_is_pure_under_vmap_over_parameters():
    denoiser, args = build_denoiser(UNET), inputs()
    params = filled(denoiser, *args)
    pair = jax.tree.map(lambda p: jnp.stack([p, 0.9 * p]), params)
    ensemble = jax.jit(jax.vmap(lambda p: denoiser.apply(p, *args)))(pair)
    second = denoiser.apply(jax.tree.map(lambda p: 0.9 * p, params), *args)
    np.testing.assert_allclose(ensemble[1], second, atol=1e-5)


@pytest.mark.parametrize(
    "config, message",
    [
        ({}, "model is None, expected one of unet, transformer"),
        ({"name": "unett"}, "model is 'unett'.*did you mean 'unet'"),
        (
            {"name": "unet", "feature": (8,)},
            "model 'unet' is 'feature'.*did you mean 'features'",
        ),
        ({"name": "transformer", "groups": 8}, "option of model 'transformer' is 'groups'"),
        (
            {"name": "unet", "encoder": {"widht": 8}},
            "option of encoder 'observation' is 'widht'.*'width'",
        ),
        (
            {"name": "unet", "encoder": {"name": "multimodel"}},
            "encoder is 'multimodel'.*'multimodal'",
        ),
        (
            {"name": "unet", "encoder": {"name": "multimodal", "vision": {"widht": 8}}},
            "vision has an unknown field 'widht'",
        ),
        ({"name": "unet", "encoder": {"width": -8}}, "ObservationEncoder width is -8"),
        ({"name": "unet", "parent": None}, "option of model 'unet' is 'parent'"),
        (
            {"name": "unet", "dtype": "float3"},
            "model 'unet' is 'float3'.*did you mean 'float32'",
        ),
        ({"name": "unet", "features": (12,)}, "12 is not a multiple of groups = 8"),
        ({"name": "unet", "features": 64}, "features is 64; expected a list of widths"),
        ({"name": "transformer", "width": 10}, "width: 10 is not a multiple of heads = 4"),
    ],
)
def test_bad_configs_are_named(config, message):
    with pytest.raises(ValueError, match=message):
        build_denoiser(config)


def test_importing_the_package_imports_no_flax():
    code = "import sys, ambient_jax.models; sys.exit('flax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_config_chooses_the_encoder_of_images_and_instructions():
    vision = {"widths": [8, 8], "blocks": 1, "group_size": 8, "keypoints": 4}
    language = {"width": 8, "depth": 1, "heads": 2}
    encoder = {"name": "multimodal", "width": 16, "vision": vision, "language": language}
    config = {"name": "unet", "features": (8, 16), "groups": 2, "encoder": encoder}
    denoiser = build_denoiser(ml_collections.ConfigDict(config))
    observation = {
        "state": jnp.zeros((2, 2, 3)),
        "image_primary": jnp.zeros((2, 2, 32, 32, 3), jnp.uint8),
        "instruction": jnp.zeros((2, 16), jnp.uint8),
    }
    inputs = jnp.zeros((2, 8, 4)), jnp.ones(2) / 2, observation
    shape = jax.eval_shape(
        lambda key: denoiser.apply(denoiser.init(key, *inputs), *inputs), jax.random.key(0)
    )
    assert shape.shape == (2, 8, 4)


def test_an_encoder_without_a_name_is_the_one_that_the_observation_needs():
    state = jax.ShapeDtypeStruct((2, 7), jnp.float32)
    image = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.uint8)
    text = jax.ShapeDtypeStruct((16,), jnp.uint8)
    named = {"name": "observation"}
    for observation, given, encoder in (
        (None, {}, ObservationEncoder),
        ({"state": state}, {}, ObservationEncoder),
        ({"state": state, "image_wrist": image}, {}, MultimodalEncoder),
        ({"state": state, "instruction": text}, {"width": 8}, MultimodalEncoder),
        ({"state": state, "image_wrist": image}, named, ObservationEncoder),
    ):
        found = build_denoiser({**UNET, "encoder": given}, observation).encoder
        assert type(found) is encoder and found.width == given.get("width", 256)


def test_without_a_level_observations_count_as_free_of_noise():
    denoiser = build_denoiser({**TRANSFORMER, "noised": ["agent"]})
    assert denoiser.noised == ("agent",)
    x_t, sigma, observation = inputs()
    params = filled(denoiser, x_t, sigma, observation)
    at = lambda rho: denoiser.apply(  # noqa: E731
        params, x_t, sigma, observation | {observations.LEVEL: jnp.full((2, 1, 1), rho)}
    )
    np.testing.assert_array_equal(denoiser.apply(params, x_t, sigma, observation), at(0.0))
    assert not np.allclose(at(0.0), at(0.7))


def test_noised_names_an_observation():
    shapes = {"agent": jax.ShapeDtypeStruct((2, 2), jnp.float32)}
    with pytest.raises(ValueError, match="'gent'.*did you mean 'agent'"):
        build_denoiser({**TRANSFORMER, "noised": ("gent",)}, shapes)
    with pytest.raises(ValueError, match="noised"):
        build_denoiser({**TRANSFORMER, "noised": "agent"}, shapes)
