"""Annotation as a library call and as a command: from data to a bounds file that training joins."""

import json

import numpy as np
import pytest

from ambient_jax import annotate, mixing
from ambient_jax.annotate import command
from ambient_jax.annotate import config as annotate_config
from ambient_jax.cli import report
from ambient_jax.data import bounds, write
from ambient_jax.data import mixture as mixtures
from ambient_jax.train import config as train_config


def walks(rng, count, jitter):
    """Smooth walks of 30 steps in the plane, with white noise on top."""
    last = np.arange(30) == 29
    for _ in range(count):
        way = np.cumsum(rng.normal(size=(1, 2)) + 0.1 * rng.normal(size=(30, 2)), 0) / 30
        action = (way + jitter * rng.normal(size=way.shape)).astype(np.float32)
        yield {
            "steps": {
                "observation": {"state": action},
                "action": action,
                "is_first": np.arange(30) == 0,
                "is_last": last,
                "is_terminal": last,
                "reward": last.astype(np.float32),
                "discount": np.ones(30, np.float32),
            }
        }


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    rng, vector = np.random.default_rng(0), np.zeros(2, np.float32)
    for name, count, jitter in (("smooth", 24, 0.0), ("jagged", 48, 0.05)):
        features = write.rlds_features({"state": vector}, vector)
        episodes = walks(rng, count, jitter)
        write.write_dataset(root, name=name, version="1.0.0", features=features, episodes=episodes)
    config = annotate_config.default()
    config.data.root = str(root)
    config.data.sources.smooth = train_config.source("smooth", "clean")
    config.data.sources.jagged = train_config.source("jagged", "corrupt")
    config.data.observation = ("state",)
    config.data.horizon = 8
    config.task.update(dict(folds=2, steps=200, levels=6, bucket=50, compared=400))
    config.task.update(dict(features=(16, 16), batch_size=128))
    config.task.update(dict(crops=(4,), crop_steps=20, field_chunks=500, field_steps=100))
    config.task.granularity = ("dataset", "random_episode", "ordered", "datapoint")
    return config


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("annotation")
    command.run(config, str(folder))
    return folder


@pytest.mark.slow
def test_jitter_bars_low_noise_only_and_the_file_joins_training(config, workdir):
    made = bounds.read(workdir / "bounds" / "dataset.parquet")
    (low,) = set(made.sigma_min.tolist())
    assert 0.01 < low < 0.6 and len(made) == 48 * 29  # without fillers
    data = config.data.copy_and_resolve_references()
    data.sources.jagged.bounds = str(workdir / "bounds" / "datapoint.parquet")
    mixture = mixtures.open_mixture(data, mixing.Ambient())
    assert list(mixture.bounds) == ["jagged"]


@pytest.mark.slow
def test_report_has_what_the_bounds_come_from(workdir):
    report = workdir / "report"
    results = json.loads((report / "results.json").read_text())
    tv = results["total_variation"]["jagged"]["value"]
    assert tv[0] > 0.5 and tv[-1] < 0.3
    assert np.all(np.diff(results["locality"]["field"]["smooth"][:4]) >= 0)
    # Jitter of 0.05 is white: its spectrum is flatter than the walk's.
    spectra = results["spectrum"]["sources"]
    assert spectra["jagged"]["exponent"] < spectra["smooth"]["exponent"] - 0.5
    noise = results["bucket_noise"]["jagged"]["std"]
    assert noise[0] > 2 * noise[1] > 0
    for name in ("curves", "sigma_min", "quality", "spectra", "locality", "chunks_jagged"):
        assert (report / f"{name}.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_second_run_finds_the_first(config, workdir, caplog):
    path = workdir / "bounds" / "dataset.parquet"
    before = path.stat().st_mtime_ns
    command.run(config, str(workdir))
    assert path.stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_damaged_report_is_made_again(tmp_path):
    about = {"config": {"seed": 0}}
    report.write(tmp_path, ["x"], [["1"]], "", about)
    assert command.is_done(tmp_path, about)
    with (tmp_path / "results.json").open("r+") as file:
        file.truncate(10)
    assert not command.is_done(tmp_path, about)


def test_a_report_of_the_same_data_stands_wherever_they_lie(tmp_path, config):
    about = {"config": command.settings(config), "data": {"smooth": "1", "jagged": "2"}}
    report.write(tmp_path, ["x"], [["1"]], "", about)
    moved = config.copy_and_resolve_references()
    moved.data.root, moved.data.sources.jagged.path = "elsewhere", "renamed"
    assert command.is_done(tmp_path, about | {"config": command.settings(moved)})
    moved.data.horizon = 9
    assert not command.is_done(tmp_path, about | {"config": command.settings(moved)})
    assert not command.is_done(tmp_path, about | {"data": {"smooth": "1", "jagged": "3"}})


def test_the_template_asks_for_its_paths(tmp_path):
    config = annotate_config.default()
    for role in ("clean", "corrupt"):
        config.data.sources[role] = train_config.source("", role)
    config.data.sources.clean.path = str(tmp_path)
    with pytest.raises(ValueError, match="config.data.sources.corrupt.path is missing"):
        command.run(config, str(tmp_path))


def test_one_role_alone_is_refused(config, tmp_path):
    other = config.copy_and_resolve_references()
    other.data.sources.jagged.role = "clean"
    with pytest.raises(ValueError, match="corrupt sources have 0 episodes"):
        command.run(other, str(tmp_path))


@pytest.fixture(scope="module")
def called(config, tmp_path_factory):
    """The bounds of the data set by the library call."""
    settings = config.copy_and_resolve_references().task
    settings.update(dict(granularity=("dataset",), crops=(), analyses=()))
    mixture = mixtures.open_mixture(config.data, mixing.CoTraining())
    options = annotate.Options.from_config(settings)
    annotations = annotate.annotate(mixture, options, progress=False)
    return bounds.read(annotations.write(tmp_path_factory.mktemp("called"))["dataset"])


def test_jitter_bars_low_noise_only_by_the_library_call(called):
    (low,) = set(called.sigma_min.tolist())
    assert 0.01 < low < 0.6 and len(called) == 48 * 29


@pytest.mark.slow
def test_the_library_call_makes_the_bounds_of_the_command(called, workdir):
    command_bounds = bounds.read(workdir / "bounds" / "dataset.parquet")
    np.testing.assert_array_equal(called.sigma_min, command_bounds.sigma_min)
