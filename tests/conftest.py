"""Shared data sets and the worker process of the training tests."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent
# All processes of one test run share what they compile, which is most of their time. The name is
# that of the controller's run, whose workers inherit the variable.
_COMPILED = pathlib.Path(tempfile.gettempdir()) / f"ambient-jax-tests-{os.getpid()}"
_OWNER = "PYTEST_XDIST_WORKER" not in os.environ
if _OWNER:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(_COMPILED)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"


def pytest_unconfigure():
    if _OWNER:
        shutil.rmtree(_COMPILED, ignore_errors=True)


def _episodes(seed, count, noise):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        steps = int(rng.integers(6, 20))
        goal = rng.uniform(-1, 1, 2)
        line = np.linspace(0, 1, steps + 1)[:, None] * goal
        path = (line + noise * rng.normal(size=(steps + 1, 2))).astype(np.float32)
        last = np.arange(steps) == steps - 1
        yield {
            "steps": {
                "observation": {
                    "state": path[:-1],
                    "goal": np.tile(goal.astype(np.float32), (steps, 1)),
                },
                "action": path[1:],
                "is_first": np.arange(steps) == 0,
                "is_last": last,
                "is_terminal": last,
                "reward": last.astype(np.float32),
                "discount": np.ones(steps, np.float32),
            },
            "episode_metadata": {},
        }


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory):
    """Two small RLDS data sets: straight lines ("good") and jagged ones ("bad")."""
    from ambient_jax.data.write import rlds_features, write_dataset

    vector = np.zeros(2, np.float32)
    root = tmp_path_factory.mktemp("toy")
    paths = {}
    for seed, (name, count, noise) in enumerate([("good", 12, 0.0), ("bad", 40, 0.1)]):
        path = write_dataset(
            root,
            name=name,
            version="1.0.0",
            features=rlds_features({"state": vector, "goal": vector}, vector),
            episodes=_episodes(seed, count, noise),
            shards=4,
        )
        paths[name] = str(path)
    return paths


@pytest.fixture(scope="session")
def recorded_data():
    """Folder of robot data that others recorded, which the project does not hold."""
    folder = os.environ.get("AMBIENT_JAX_RECORDED_DATA") or ROOT.parent / "shared" / "data"
    if not pathlib.Path(folder).is_dir():
        pytest.skip(f"no recorded data at {folder} (AMBIENT_JAX_RECORDED_DATA)")
    return pathlib.Path(folder)


@pytest.fixture(scope="session")
def worker():
    """Starts ``tests/train/worker.py`` on a job, on some CPU devices; returns a function that waits
    for its end, checks the return code and returns what it printed."""

    def start(job, devices=1):
        env = {
            **os.environ,
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        # A file, not a pipe: a process whose pipe nobody reads stops when it is full.
        output = tempfile.TemporaryFile("w+")
        script = ROOT / "tests" / "train" / "worker.py"
        process = subprocess.Popen(
            [sys.executable, str(script), json.dumps(job)],
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
        )

        def finish(returncode=0):
            try:
                process.wait(timeout=240)
            finally:
                process.kill()
                output.seek(0)
                text = output.read()
                output.close()
            assert returncode is None or process.returncode == returncode, text
            return text

        finish.process = process
        return finish

    return start
