"""A policy of a mixture loads and acts where no reader of data sets is installed."""

import os
import pathlib
import subprocess
import sys

import jax
import ml_collections
import numpy as np
import pytest

from ambient_jax.data import statistics
from ambient_jax.open_x import fixtures
from ambient_jax.train import checkpoint, trainer
from ambient_jax.train import config as config_lib

ROOT = pathlib.Path(__file__).parents[2]
ROW = "berkeley_mvp_converted_externally_to_rlds"
ACT = """
import importlib.machinery
import sys

HIDDEN = ("pyarrow", "tensorflow", "tensorflow_datasets", "array_record", "grain", "simplejpeg")


class WithoutReaders(importlib.machinery.PathFinder):
    # As if the hidden packages were not installed.

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in HIDDEN else super().find_spec(name, path, target)


finders = [f for f in sys.meta_path if f is not importlib.machinery.PathFinder]
sys.meta_path[:] = [*finders, WithoutReaders]
import jax, numpy as np
from ambient_jax.policy import control, policy, solvers

trained = policy.Policy.from_checkpoint(sys.argv[1], source=sys.argv[2])
loop = control.RecedingHorizon(trained, execute=2)
rng, place = np.random.default_rng(0), np.zeros((2, trained.dims["state"]), np.float32)
for seed in range(2):
    frames = rng.integers(0, 255, (2, 12, 16, 3), np.uint8)
    seen = {"state": place, "image_wrist": frames, "instruction": ["open the drawer", ""]}
    for action in loop(seen, jax.random.key(seed)).swapaxes(0, 1):
        assert np.isfinite(action).all() and action.shape == (2, 8), action
        place[:, :8] += 0.1 * action
        loop.observe(seen | {"state": place})
assert not set(HIDDEN) & {name.split(".")[0] for name in sys.modules}
print("acted")
"""


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    root = tmp_path_factory.mktemp("light")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(statistics.CACHE_VARIABLE, str(root / "cache"))
        config = config_lib.default()
        path = fixtures.write_fixture(root, ROW, lengths=(4, 3))
        config.data.sources.mine = config_lib.source(str(path), "clean", open_x=ROW)
        config.data.placement, config.data.history, config.data.horizon = "stream", 1, 2
        form = config.data.open_x
        form.cameras, form.image_size, form.workers = ("wrist",), (8, 8), 0
        form.instruction_bytes, form.action_width, form.state_width = 8, 8, 9
        config.augmentation.crop = (6, 6)
        config.model = ml_collections.ConfigDict({"name": "unet", "features": (8,), "groups": 2})
        config.model.encoder = {
            "width": 8,
            "vision": {"widths": (4,), "group_size": 2},
            "language": {"width": 8, "depth": 1},
        }
        config.policy.execute, config.policy.steps = 2, 2
        parts = trainer.assemble(config, None)
    rng = np.random.default_rng(0)
    state = jax.tree.map(lambda a: (0.1 * rng.normal(size=a.shape)).astype(a.dtype), parts.shapes)
    chain = parts.mixture.chain.cropped(config.augmentation.crop)
    saver = checkpoint.Checkpointer(root / "run" / "checkpoints")
    saver.save(1, state, checkpoint.make_assets(config, chain.to_json()))
    saver.close()
    return root / "run"


def test_a_policy_of_a_mixture_acts_without_readers_of_data(workdir):
    env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", ACT, str(workdir), "mine"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "acted"
