"""The wheel in an environment and a folder of its own: what a user without the clone runs."""

import os
import pathlib
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]

DATA = """
import numpy as np
from ambient_jax.data import write

rng = np.random.default_rng(0)
ends = {n: np.arange(n) == n - 1 for n in (9,)}
features = write.rlds_features({"state": np.zeros(2, np.float32)}, np.zeros(2, np.float32))


def episode(noise):
    path = np.linspace(0, 1, 10)[:, None] * rng.uniform(-1, 1, 2)
    path = (path + noise * rng.normal(size=path.shape)).astype(np.float32)
    flags = {"is_first": np.arange(9) == 0, "is_last": ends[9], "is_terminal": ends[9]}
    rewards = {name: np.zeros(9, np.float32) for name in ("reward", "discount")}
    steps = {"observation": {"state": path[:-1]}, "action": path[1:], **flags, **rewards}
    return {"steps": steps, "episode_metadata": {}}


for name, count, noise in (("good", 6, 0.0), ("bad", 12, 0.1)):
    episodes = (episode(noise) for _ in range(count))
    write.write_dataset("data", name=name, version="1.0.0", features=features, episodes=episodes)
"""
CONFIG = """
from ambient_jax.train import config as train_config


def get_config():
    config = train_config.default()
    config.name = "mine"
    config.data.root = "data"
    config.data.observation = ("state",)
    config.data.history, config.data.horizon, config.policy.execute = 1, 4, 2
    config.data.sources.good = train_config.source("good/1.0.0", "clean")
    config.data.sources.bad = train_config.source("bad/1.0.0", "corrupt", sigma_min=0.3)
    config.model.update({"features": (8,), "groups": 2, "blocks": 1})
    config.train.update(dict(steps=4, warmup=1, batch_size=8, log_every=2, checkpoint_every=2))
    return config
"""
ANNOTATION = """
import my_config
from ambient_jax.annotate import config as annotate_config


def get_config():
    config = annotate_config.completed(my_config.get_config())
    config.data.delta = ()
    config.task.update(dict(granularity=("dataset",), folds=2, steps=4, evaluate_every=4, levels=3))
    config.task.update(dict(features=(8,), crops=(), analyses=("spectrum",)))
    return config
"""
# As if the data had the fields of a data set of the registry: compilation does not read them.
COMMON = """
import my_config


def get_config():
    config = my_config.get_config()
    for source in config.data.sources.values():
        source.open_x = "bridge_orig"
    config.data.placement = "stream"
    return config
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    # A folder of its own for what setuptools leaves beside the sources.
    copied = ("ambient_jax", "experiments", "setup.py", "pyproject.toml", "README.md", "LICENSE")
    source = tmp_path_factory.mktemp("source")
    for name in copied:
        os.symlink(ROOT / name, source / name)
    offline = ("--no-isolation", "--skip-dependency-check")
    command = [sys.executable, "-m", "build", "--wheel", *offline, "--outdir", folder, source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_holds_the_library_with_its_tables_and_no_experiments(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    in_clone = [p for p in (ROOT / "ambient_jax").rglob("*") if p.suffix in (".py", ".csv")]
    assert {str(path.relative_to(ROOT)) for path in in_clone} <= names
    assert "ambient_jax/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"ambient_jax"}


@pytest.mark.slow
def test_the_tools_work_outside_of_the_clone(wheel, tmp_path):
    environment = tmp_path / "venv"
    # Dependencies are those of this environment, whose own ambient_jax the wheel's comes before.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    (packages,) = environment.glob("lib/*/site-packages")
    zipfile.ZipFile(wheel).extractall(packages)
    others = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "dependencies.pth").write_text("\n".join(others))
    home = tmp_path / "project"
    home.mkdir()
    texts = {"my_data": DATA, "my_config": CONFIG, "my_annotation": ANNOTATION, "my_common": COMMON}
    for name, text in texts.items():
        (home / f"{name}.py").write_text(text)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "XLA_"))}
    env |= {"JAX_PLATFORMS": "cpu", "AMBIENT_JAX_CACHE": str(tmp_path / "cache")}

    def run(*command):
        options = dict(cwd=home, env=env, capture_output=True, text=True, timeout=600)
        done = subprocess.run([python, *command], check=False, **options)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert str(packages) in run("-c", "import ambient_jax; print(ambient_jax.__file__)")
    missing = "import importlib.util as u; print(u.find_spec('experiments'))"
    assert run("-c", missing) == "None\n"
    run("my_data.py")
    run("-m", "ambient_jax.train", "--config=my_config.py")
    assert (home / "runs/train/mine/checkpoints/4").is_dir()
    assert "| good " in run("-m", "ambient_jax.evaluate", "--checkpoint=runs/train/mine")
    run("-m", "ambient_jax.evaluate", "--checkpoint=runs/train/mine", "--best", "--samples=16")
    assert (home / "runs/train/mine/best.json").exists()
    assert "| bad " in run("-m", "ambient_jax.annotate", "--config=my_annotation.py")
    assert (home / "runs/annotate/mine/bounds/dataset.parquet").exists()
    told = run("-m", "ambient_jax.compile", "--config=my_common.py", "--devices=1")
    assert "parameters" in told and (home / "runs/compile/mine/table.md").exists()
