"""Shared data sets and the worker process of the training tests."""

import functools
import gc
import io
import logging as python_logging
import os
import pathlib
import shutil

import numpy as np
import PIL.Image
import pytest
from absl import logging

from tests import speed

ROOT = pathlib.Path(__file__).parent.parent
_OWNER = "PYTEST_XDIST_WORKER" not in os.environ  # the process that starts the others
if _OWNER:
    speed.set_environment()


# After the environment is set, as they import JAX.
from ambient_jax.data import bucket, statistics, write  # noqa: E402
from ambient_jax.open_x import fixtures, registry  # noqa: E402
from ambient_jax.train import config as train_config  # noqa: E402
from tests import emulated, forked  # noqa: E402
from tests.train import worker as work  # noqa: E402


def pytest_collection_modifyitems(items):
    if not _OWNER:
        speed.order(items)


def pytest_collection_finish():
    # What is there now stays: to look through it for garbage, again and again, takes seconds.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def log():
    """Gives the log back as it was: a command that runs in this process sets its own."""
    root, handler = python_logging.getLogger(), logging.get_absl_handler()
    before = logging.get_verbosity(), handler in root.handlers, handler.filters[:]
    format_ = handler.formatter
    yield
    if logging.get_verbosity() != before[0]:
        logging.set_verbosity(before[0])
    if handler in root.handlers and not before[1]:
        root.removeHandler(handler)
    handler.filters[:] = before[2]
    handler.setFormatter(format_)


def pytest_unconfigure():
    if _OWNER:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


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
    started = []

    def start(job, devices=1):
        flags = os.environ.get("XLA_FLAGS", "")
        env = {
            **os.environ,
            "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}",
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        process = forked.Process(work.main, job, environment=env)
        started.append(process)

        def finish(returncode=0):
            try:
                process.wait(timeout=600)
            finally:
                process.kill()
                text = process.close()
            assert returncode is None or process.poll() == returncode, text
            return text

        finish.process = process
        return finish

    yield start
    for process in started:
        process.kill()


def numbered_episode(number, length):
    """Every value tells where it comes from: state and action are (episode, step)."""
    where = np.stack([np.full(length, number), np.arange(length)], -1).astype(np.float32)
    flags = {n: np.zeros(length, bool) for n in ("is_first", "is_last", "is_terminal")}
    rewards = {n: np.zeros(length, np.float32) for n in ("reward", "discount")}
    observation = {"state": where, "goal": where[:, :1] + 0.5}
    return {"steps": {"observation": observation, "action": where + 0.25, **flags, **rewards}}


@pytest.fixture
def write_source(tmp_path):
    """``write_source(name, episodes or lengths) -> path`` of a data set of its own."""

    def write_one(name, episodes, **options):
        episodes = [
            numbered_episode(i, e) if isinstance(e, int) else e for i, e in enumerate(episodes)
        ]
        steps = episodes[0]["steps"]
        features = write.rlds_features(
            {n: v[0] for n, v in steps["observation"].items()}, steps["action"][0]
        )
        return str(
            write.write_dataset(
                tmp_path / "data",
                name=name,
                version="1.0.0",
                features=features,
                episodes=episodes,
                **options,
            )
        )

    return write_one


@pytest.fixture
def make_config(write_source, tmp_path, monkeypatch):
    """``make_config({name: (lengths, role, options)}, **fields)``: a data section and its data."""
    monkeypatch.setenv(statistics.CACHE_VARIABLE, str(tmp_path / "cache"))

    def make(sources, file_format="array_record", shards=2, **fields):
        config = train_config.default().data
        config.root = str(tmp_path / "data")
        config.observation = ("state", "goal")
        config.history, config.horizon, config.normalization = 2, 4, "none"
        for name, (episodes, role, options) in sources.items():
            stored = dict(file_format=file_format, shards=min(shards, len(episodes)))
            write_source(name, episodes, overwrite=True, **stored)
            config.sources[name] = train_config.source(name, role, **options)
        for name, value in fields.items():
            config[name] = value
        return config

    return make


@pytest.fixture
def make_common(tmp_path, monkeypatch):
    """``make_common({name: (folder, open_x, options)}, form, **fields)``: a data section of sources
    in the common form; ``form`` are fields of ``config.data.open_x``."""
    monkeypatch.setenv(statistics.CACHE_VARIABLE, str(tmp_path / "cache"))

    def make(sources, form, **fields):
        config = train_config.default().data
        config.placement, config.normalization = "stream", "none"
        config.history, config.horizon, config.prefetch = 2, 3, 0
        for name, (path, open_x, options) in sources.items():
            role = "corrupt" if "sigma_min" in options else "clean"
            options = {"last_step": "keep"} | options  # fixtures have actions in every step
            config.sources[name] = train_config.source(str(path), role, open_x=open_x, **options)
        section = {"image_size": (8, 8), "workers": 0, "action_width": 8, "state_width": 9} | form
        config.open_x.on_problem.update(section.pop("on_problem", {}))
        for name, value in section.items():
            config.open_x[name] = value
        for name, value in fields.items():
            config[name] = value
        return config

    return make


def small_images(name, episode, number):
    """Replaces the camera images of an episode of a registry row by 8x8 ones that differ: their
    colours tell the episode's number, the step and the camera."""
    for field, (kind, _) in fixtures.schema(name).items():
        if kind == "jpeg":
            steps = episode["steps"]["observation"]
            steps[field.removeprefix("steps/observation/")] = [
                solid_jpeg(10 + 60 * (number % 4), 5 + 12 * t, 40 + 9 * (len(field) % 20))
                for t in range(len(episode["steps"]["is_first"]))
            ]
    return episode


@functools.cache
def solid_jpeg(red, green, blue):
    pixels = np.full((8, 8, 3), (red, green, blue), np.uint8)
    pixels[2:4, 1:5] = 255 - pixels[2:4, 1:5]
    out = io.BytesIO()
    PIL.Image.fromarray(pixels).save(out, "JPEG", quality=95, subsampling=0)
    return out.getvalue()


@pytest.fixture
def write_row(tmp_path):
    """``write_row(row, lengths, **options) -> path``: a fixture of a registry row whose images are
    small and differ; ``change(number, episode)`` makes it different still."""

    def make(row, lengths, folder=None, change=None, version=None, **options):
        episodes = [fixtures.episode(row, n, i) for i, n in enumerate(lengths)]
        for i, episode in enumerate(episodes):
            small_images(row, episode, i)
            if change:
                change(i, episode)
        return write.write_dataset(
            tmp_path / "data",
            name=folder or fixtures.folder(row),
            version=version or registry.get(row).version or "0.1.0",
            features=fixtures.features(row),
            episodes=episodes,
            **options,
        )

    return make


@pytest.fixture(scope="module", params=["gs", pytest.param("s3", marks=pytest.mark.slow)])
def emulator(request):
    """(URL of a bucket in an emulated store, its faults)"""
    with emulated.store(request.param) as running:
        yield running


@pytest.fixture
def place(emulator, request, monkeypatch, tmp_path):
    """(a folder of the test in an emulated bucket, the store's faults)"""
    monkeypatch.setattr(bucket, "FIRST_WAIT", 0.001)
    monkeypatch.setenv(statistics.CACHE_VARIABLE, str(tmp_path / "cache"))
    url, faults = emulator
    faults.reset()
    name = request.node.name.translate(str.maketrans("[]", "__"))
    yield bucket.BucketPath.of(url) / name, faults
    faults.reset()
