"""The export command on a checkpoint as training leaves it."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ambient_jax.models.denoiser import build_denoiser
from ambient_jax.policy import export
from ambient_jax.policy.policy import Policy
from ambient_jax.train import checkpoint
from ambient_jax.train import config as config_lib
from ambient_jax.train import state as state_lib
from ambient_jax.transforms.normalizer import Normalizer

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    config = config_lib.default()
    config.model = {"name": "unet", "features": (8,), "groups": 2, "blocks": 1, "embed_dim": 8}
    config.data.horizon, config.data.history, config.policy.execute = 4, 2, 4
    config.policy.solver, config.policy.steps = "ddpm", 5
    maps = {"action": np.zeros(2), "observation/state": np.zeros(3)}
    normalizer = Normalizer("none", maps, {n: np.ones_like(v, "f") for n, v in maps.items()})
    model = build_denoiser(config.model)
    shapes = jax.eval_shape(
        model.init,
        *(jax.random.key(0), jnp.zeros((1, 4, 2)), jnp.zeros(1), {"state": jnp.zeros((1, 2, 3))}),
    )
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda a: 0.1 * rng.normal(size=a.shape).astype("f"), shapes["params"])
    folder = tmp_path_factory.mktemp("run")
    saver = checkpoint.Checkpointer(folder / "checkpoints")
    state = state_lib.create(params, optax.sgd(0.1), 1)
    saver.save(3, state, checkpoint.make_assets(config, normalizer.to_json()))
    saver.close()
    return folder


def command(*flags, code=0, path=""):
    run = [sys.executable, "-m", "ambient_jax.export", *map(str, flags)]
    env = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": f"{path}:{ROOT}"}
    done = subprocess.run(run, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_the_command_writes_what_its_folder_can_run(workdir, tmp_path):
    out = tmp_path / "exported"
    options = ["--solver=dpmpp_2m", "--steps=3", "--clip=2.0", "--platforms=cpu"]
    assert "wrote" in command(f"--checkpoint={workdir}", f"--out={out}", *options)
    about = json.loads((out / "policy.json").read_text())
    assert about["solver"] == {"solver": "dpmpp_2m", "steps": 3, "clip": 2.0, "eta": 0.0}
    policy = Policy.from_checkpoint(workdir, solver="dpmpp_2m", steps=3, clip=2.0)
    seen = {"state": np.random.default_rng(0).normal(size=(2, 2, 3))}
    np.testing.assert_allclose(export.load(out)(seen, 4), policy(seen, 4), rtol=3e-6, atol=3e-6)
    script = [sys.executable, "load_policy.py"]
    done = subprocess.run(script, cwd=out, capture_output=True, text=True, check=True)
    assert "state: float32 ['batch', 2, 3], data units" in done.stdout


def test_bad_commands_get_one_line(workdir, tmp_path):
    out = command(code=1)
    assert "expected --checkpoint=<workdir of a trained policy> --out=<folder>" in out
    out = command(f"--checkpoint={workdir}", f"--out={tmp_path}", "--solver=dpm", code=1)
    assert "solver is 'dpm', expected one of ddpm, ddim, heun, dpmpp_2m" in out
    assert "Traceback" not in out


def test_a_missing_package_is_one_line(tmp_path):
    (tmp_path / "huggingface_hub.py").write_text("raise ImportError('no hub')\n")
    told = command("--checkpoint=hf://a/b", "--out=x", code=1, path=f"{tmp_path}")
    line = "error: the hub needs the package 'huggingface_hub' (no hub): pip install 'ambient_jax["
    assert line in told and "Traceback" not in told
