"""An exported policy is the policy: same chunks, any batch, without this library."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from ambient_jax import schedules
from ambient_jax.models.denoiser import build_denoiser
from ambient_jax.policy import export, solvers
from ambient_jax.policy.policy import Policy
from ambient_jax.transforms.chain import Chain
from ambient_jax.transforms.normalizer import Normalizer
from ambient_jax.transforms.steps import Crop, Images, Mask, Role, Text

ROOT = pathlib.Path(__file__).parents[2]
HORIZON, HISTORY = 4, 2


def normalizer(**dims):
    rng = np.random.default_rng(0)
    shift = {name.replace("__", "/"): rng.normal(size=d) for name, d in dims.items()}
    shift = {name: value.astype(np.float32) for name, value in shift.items()}
    scale = {name: np.abs(value) + np.float32(0.5) for name, value in shift.items()}
    return Normalizer("bounds", shift, scale)


def trained(chain, config, **options):
    """A policy with a network of random weights."""
    model = build_denoiser(ml_collections.ConfigDict(config), chain.inputs(HISTORY))
    policy = Policy(
        model, None, chain, HORIZON, HISTORY, **{"steps": 3, "prediction": "v", **options}
    )
    rng = np.random.default_rng(1)
    shapes = policy.parameter_shapes()
    params = jax.tree.map(lambda s: jnp.asarray(0.2 * rng.normal(size=s.shape), s.dtype), shapes)
    return dataclasses.replace(policy, params=params)


UNET = {"name": "unet", "features": (8,), "groups": 2, "blocks": 1, "embed_dim": 8}


def state_policy(**options):
    chain = Chain(normalizer(action=2, observation__state=3, observation__goal=2))
    return trained(chain, UNET, **options)


def states(batch, seed=0):
    rng = np.random.default_rng(seed)
    return {n: rng.normal(size=(batch, HISTORY, d)) for n, d in (("state", 3), ("goal", 2))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return export.save(state_policy(), tmp_path_factory.mktemp("exported") / "here")


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "solver",
    [pytest.param(n, marks=() if n == "dpmpp_2m" else SLOW) for n in solvers.SOLVERS],
)
def test_the_same_chunk_for_the_same_key_with_every_solver(tmp_path, solver):
    policy = state_policy(solver=solver, clip=1.5, schedule=schedules.cosine())
    loaded = export.load(export.save(policy, tmp_path / "exported", platforms=("cpu",)))
    for batch in (1, 3):
        want = policy(states(batch), jax.random.key(7))
        np.testing.assert_allclose(loaded(states(batch), seed=7), want, rtol=3e-6, atol=3e-6)


def test_keys_are_seeds_or_their_raw_data(folder):
    policy, loaded, seen = state_policy(), export.load(folder), states(3)
    key = jax.random.split(jax.random.key(5))[1]
    got = loaded(seen, np.asarray(jax.random.key_data(key)))
    np.testing.assert_allclose(got, policy(seen, key), rtol=3e-6, atol=3e-6)
    rows = jax.random.split(key, 3)
    got = loaded(seen, np.asarray(jax.random.key_data(rows)))
    np.testing.assert_allclose(got, policy(seen, rows), rtol=3e-6, atol=3e-6)
    assert np.abs(got - loaded(seen, 5)).max() > 1e-3


@pytest.mark.parametrize("name", ("unet", pytest.param("transformer", marks=SLOW)))
def test_images_and_texts(tmp_path, name):
    """What the chain does on the host comes first, and its defaults are in the export."""
    masks = {"action": np.array([True, True, False]), "observation/state": np.array([True, False])}
    steps = (
        Mask(masks),
        Role(("good", "bad"), (True, False)),
        Images(("wrist", "top"), (8, 8)),
        Text(12),
        Crop((6, 6)),
    )
    chain = Chain(normalizer(action=3, observation__state=2), steps)
    backbone = UNET if name == "unet" else {"name": name, "width": 8, "depth": 1, "heads": 2}
    encoder = {"width": 8, "vision": {"widths": (4,), "group_size": 2}}
    encoder["language"] = {"width": 8, "depth": 1}
    policy = trained(chain, {**backbone, "encoder": {"name": "multimodal", **encoder}})
    rng = np.random.default_rng(2)
    seen = {
        "state": rng.normal(size=(2, HISTORY, 2)),
        "image_wrist": rng.integers(0, 255, (2, HISTORY, 8, 8, 3), np.uint8),
        "image_top": rng.integers(0, 255, (2, HISTORY, 8, 8, 3), np.uint8),
        "instruction": ["open it", ""],
    }
    loaded = export.load(export.save(policy, tmp_path, platforms=("cpu",)))
    encoded = seen | {"instruction": policy.chain.check(seen, (HISTORY,))["instruction"]}
    want = np.asarray(policy(seen, jax.random.key(1)))
    np.testing.assert_allclose(loaded(encoded, 1), want, rtol=3e-6, atol=3e-6)
    np.testing.assert_array_equal(want[..., 2], 0)
    # everything that the chain hands over, and a camera that is missing
    seen.pop("image_top")
    handed = policy.chain.check(seen, (HISTORY,))
    want = policy(seen, jax.random.key(1))
    np.testing.assert_allclose(loaded(handed, 1), want, rtol=3e-6, atol=3e-6)
    with pytest.raises(ValueError, match="'image_top' is missing, expected state, image_wrist"):
        loaded(seen | {"instruction": encoded["instruction"]})
    with pytest.raises(ValueError, match="'image_wrist' has type float64, expected uint8"):
        loaded(encoded | {"image_wrist": encoded["image_wrist"] / 255})
    with pytest.raises(ValueError, match=r"'instruction' has shape \(2,\), expected \(2, 12\)"):
        loaded(encoded | {"instruction": ["open it", ""]})


def test_a_small_range_about_a_large_value_keeps_its_digits(tmp_path):
    class Seen:
        def apply(self, variables, x_t, sigma, observation):
            return jnp.broadcast_to(observation["time"].mean((1, 2))[:, None, None], x_t.shape)

    maps = Normalizer(
        "bounds",
        {"action": np.zeros(1), "observation/time": np.array([1.7e9 + 5])},
        {"action": np.ones(1, np.float32), "observation/time": np.array([5], np.float32)},
    )
    policy = Policy(Seen(), {}, maps, horizon=2, history=1, prediction="x0", steps=2)
    loaded = export.load(export.save(policy, tmp_path, platforms=("cpu",)))
    time = 1.7e9 + np.array([1.25, 7.5]).reshape(2, 1, 1)
    got = loaded({"time": time})
    np.testing.assert_allclose(got[:, 0, 0], [-0.75, 0.5], atol=1e-6)
    np.testing.assert_array_equal(got, policy({"time": time}, 0))


ALONE = """
import importlib.machinery
import sys

ALLOWED = {"jax", "jaxlib", "numpy", "ml_dtypes", "opt_einsum", "scipy", "load_policy"}
STANDARD = set(sys.stdlib_module_names)


class OnlyJax(importlib.machinery.PathFinder):
    # As if jax, with what it needs itself, were all that is installed.

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        known = name.split(".")[0] in ALLOWED | STANDARD
        return super().find_spec(name, path, target) if known else None


finders = [f for f in sys.meta_path if f is not importlib.machinery.PathFinder]
sys.meta_path[:] = [*finders, OnlyJax]
for name in ("ambient_jax", "flax", "orbax", "ml_collections", "flatbuffers", "absl"):
    try:
        __import__(name)
        raise SystemExit(f"{name} can be imported")
    except ImportError:
        pass
sys.path.insert(0, sys.argv[1])
import numpy as np
from load_policy import load

with np.load(sys.argv[2]) as seen:
    seen = dict(seen)
np.save(sys.argv[3], load(sys.argv[1])(seen, seed=11))
"""


def test_it_acts_in_a_process_that_has_jax_and_numpy_only(folder, tmp_path):
    np.savez(tmp_path / "seen.npz", **states(5))
    command = [sys.executable, "-c", ALONE, folder, tmp_path / "seen.npz", tmp_path / "out.npy"]
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    env.pop("PYTHONPATH", None)
    done = subprocess.run(
        command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    want = state_policy()(states(5), jax.random.key(11))
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), want, rtol=3e-6, atol=3e-6)


def test_the_description_says_what_goes_in_and_comes_out(folder):
    about = json.loads((folder / "policy.json").read_text())
    assert about["inputs"]["state"]["shape"] == ["batch", HISTORY, 3]
    assert about["inputs"]["state"]["dtype"] == "float32" and about["inputs"]["state"]["units"]
    assert about["output"]["shape"] == ["batch", HORIZON, 2]
    assert about["platforms"] == ["cpu", "cuda", "tpu"]
    assert about["solver"] == {"solver": "ddim", "steps": 3, "clip": None, "eta": 0.0}


def test_bad_inputs_are_named(folder):
    loaded, seen = export.load(folder), states(2)
    with pytest.raises(ValueError, match="observation 'stat' is unknown, expected state, goal"):
        loaded(seen | {"stat": 0})
    with pytest.raises(ValueError, match="observation 'goal' is missing, expected state, goal"):
        loaded({"state": seen["state"]})
    with pytest.raises(ValueError, match=r"'state' has shape \(2, 3\), expected \(2, 2, 3\)"):
        loaded(seen | {"state": seen["state"][:, 0]})
    with pytest.raises(ValueError, match=r"'state' has shape \(0, 2, 3\), expected \(B, 2, 3\)"):
        loaded(states(0))
    with pytest.raises(ValueError, match=r"'goal' has shape \(1, 2, 2\), expected \(2, 2, 2\)"):
        loaded(seen | {"goal": seen["goal"][:1]})
    with pytest.raises(ValueError, match="'state' has type <U1, expected float32"):
        loaded(seen | {"state": np.full((2, HISTORY, 3), "a")})
    seen["goal"][1, 0, 0] = np.nan
    with pytest.raises(ValueError, match="'goal' of row 1 is not finite"):
        loaded(seen)
    with pytest.raises(ValueError, match="seed is an array of float64 and shape .., expected a"):
        loaded(states(2), 1.5)
    with pytest.raises(ValueError, match=r"of uint32 and shape \(3, 2\), .* or uint32 \(2, 2\)"):
        loaded(states(2), np.zeros((3, 2), np.uint32))


def test_bad_folders_and_platforms_are_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="is no exported policy: it has no policy.json"):
        export.load(tmp_path)
    for name in export.load_policy.FILES:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    about = json.loads((tmp_path / "policy.json").read_text())
    (tmp_path / "policy.json").write_text(json.dumps(about | {"format": 9}))
    with pytest.raises(ValueError, match="has format 9, expected 1"):
        export.load(tmp_path)
    with pytest.raises(ValueError, match=r"platform is 'gpu', expected one of cpu, cuda"):
        export.save(state_policy(), tmp_path, platforms=("gpu",))
    with pytest.raises(ValueError, match="the export is 'gs://b/x', expected a local path"):
        export.save(state_policy(), "gs://b/x")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file is a file, expected a folder"):
        export.save(state_policy(), tmp_path / "file")
