"""An ONNX model is the policy with its first noise given."""

import dataclasses

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from ambient_jax.models.denoiser import build_denoiser
from ambient_jax.policy import export_onnx, solvers
from ambient_jax.policy.policy import Policy
from ambient_jax.transforms.chain import Chain
from ambient_jax.transforms.normalizer import Normalizer
from ambient_jax.transforms.steps import Text


def state_policy(**options):
    maps = {"action": np.float32([1, -2]), "observation/state": np.float32([0.5, 0.5, 3])}
    chain = Chain(Normalizer("bounds", maps, {n: np.abs(v) + 1 for n, v in maps.items()}))
    config = {"name": "unet", "features": (8,), "groups": 2, "blocks": 1, "embed_dim": 8}
    model = build_denoiser(ml_collections.ConfigDict(config))
    options = {"steps": 3, "prediction": "v", "solver": "dpmpp_2m", **options}
    policy = Policy(model, None, chain, 4, 2, **options)
    rng, shapes = np.random.default_rng(1), policy.parameter_shapes()
    params = jax.tree.map(lambda s: jnp.asarray(0.2 * rng.normal(size=s.shape), s.dtype), shapes)
    return dataclasses.replace(policy, params=params)


@pytest.mark.parametrize("solver", ("ddim", "heun", "dpmpp_2m"))
def test_the_model_gives_the_policys_chunks(tmp_path, solver):
    pytest.importorskip("jax2onnx")
    runtime = pytest.importorskip("onnxruntime")
    policy = state_policy(solver=solver)
    file = export_onnx.save(policy, tmp_path / "policy.onnx")
    session = runtime.InferenceSession(str(file))
    assert {i.name for i in session.get_inputs()} == {"noise", "state"}
    keys = jax.random.split(jax.random.key(0), 5)
    seen = {"state": np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)}
    noise = np.asarray(solvers.initial_noise(keys, (4, 2)))
    (got,) = session.run(["action"], seen | {"noise": noise})
    np.testing.assert_allclose(got, policy(seen, keys), rtol=1e-5, atol=1e-5)


def test_what_onnx_cannot_hold_is_refused(tmp_path):
    for options in ({"solver": "ddpm"}, {"solver": "ddim", "eta": 0.5}):
        with pytest.raises(ValueError, match=r"which draws noise at each step; take dpmpp_2m"):
            export_onnx.save(state_policy(**options), tmp_path / "policy.onnx")
    policy = state_policy()
    with pytest.raises(ValueError, match="the ONNX file is 'gs://b/x.onnx', expected a local path"):
        export_onnx.save(policy, "gs://b/x.onnx")
    chain = Chain(policy.normalizer, (Text(8),))
    with pytest.raises(ValueError, match="the policy sees images, texts, masks or float64"):
        export_onnx.save(dataclasses.replace(policy, chain=chain), tmp_path / "policy.onnx")
