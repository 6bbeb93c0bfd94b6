"""The annotation from data to a bounds file that training joins, and the thought experiment."""

import json

import ml_collections
import numpy as np
import pytest

from ambient_jax import mixing
from ambient_jax.annotate import command as library
from ambient_jax.cli import report
from ambient_jax.data import bounds, write
from ambient_jax.data import mixture as mixtures
from ambient_jax.train import config as train_config
from experiments.annotate import __main__ as command
from experiments.annotate import config as annotate_config


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
    config = annotate_config.get_config("rlds")
    config.data.root = str(root)
    config.data.sources = ml_collections.ConfigDict()
    config.data.sources.smooth = train_config.source("smooth", "clean")
    config.data.sources.jagged = train_config.source("jagged", "corrupt")
    config.data.observation = ("state",)
    config.data.horizon = 8
    config.task.update(dict(folds=2, steps=200, levels=6, bucket=50, compared=400))
    config.task.update(dict(crops=(4,), crop_steps=20, field_chunks=500, field_steps=100))
    config.task.granularity = ("dataset", "random_episode", "ordered", "datapoint")
    return config


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("annotation")
    command.run(config, str(folder))
    return folder


def test_jitter_bars_low_noise_only_and_the_file_joins_training(config, workdir):
    made = bounds.read(workdir / "bounds" / "dataset.parquet")
    (low,) = set(made.sigma_min.tolist())
    assert 0.01 < low < 0.6 and len(made) == 48 * 29  # without fillers
    data = config.data.copy_and_resolve_references()
    data.sources.jagged.bounds = str(workdir / "bounds" / "datapoint.parquet")
    mixture = mixtures.open_mixture(data, mixing.Ambient())
    assert list(mixture.bounds) == ["jagged"]


def test_report_has_what_the_bounds_come_from(workdir):
    report = workdir / "report"
    results = json.loads((report / "results.json").read_text())
    tv = results["total_variation"]["jagged"]["value"]
    assert tv[0] > 0.7 and tv[-1] < 0.3
    assert np.all(np.diff(results["locality"]["field"]["smooth"][:4]) >= 0)
    # Jitter of 0.05 is white: its spectrum is flatter than the walk's.
    spectra = results["spectrum"]["sources"]
    assert spectra["jagged"]["exponent"] < spectra["smooth"]["exponent"] - 0.5
    noise = results["bucket_noise"]["jagged"]["std"]
    assert noise[0] > 2 * noise[1] > 0
    for name in ("curves", "sigma_min", "quality", "spectra", "locality", "chunks_jagged"):
        assert (report / f"{name}.png").stat().st_size > 10_000


def test_a_second_run_finds_the_first(config, workdir, caplog):
    path = workdir / "bounds" / "dataset.parquet"
    before = path.stat().st_mtime_ns
    command.run(config, str(workdir))
    assert path.stat().st_mtime_ns == before


def test_a_damaged_report_is_made_again(tmp_path):
    about = {"config": {"seed": 0}}
    report.write(tmp_path, ["x"], [["1"]], "", about)
    assert library.is_done(tmp_path, about)
    with (tmp_path / "results.json").open("r+") as file:
        file.truncate(10)
    assert not library.is_done(tmp_path, about)


def test_a_report_of_the_same_data_stands_wherever_they_lie(tmp_path, config):
    about = {"config": library.settings(config), "data": {"smooth": "1", "jagged": "2"}}
    report.write(tmp_path, ["x"], [["1"]], "", about)
    moved = config.copy_and_resolve_references()
    moved.data.root, moved.data.sources.jagged.path = "elsewhere", "renamed"
    assert library.is_done(tmp_path, about | {"config": library.settings(moved)})
    moved.data.horizon = 9
    assert not library.is_done(tmp_path, about | {"config": library.settings(moved)})
    assert not library.is_done(tmp_path, about | {"data": {"smooth": "1", "jagged": "3"}})


def test_the_template_asks_for_its_paths(tmp_path):
    config = annotate_config.get_config("rlds")
    config.data.sources.clean.path = str(tmp_path)
    with pytest.raises(ValueError, match="config.data.sources.corrupt.path is missing"):
        command.run(config, str(tmp_path))


def test_one_role_alone_is_refused(config, tmp_path):
    other = config.copy_and_resolve_references()
    other.data.sources.jagged.role = "clean"
    with pytest.raises(ValueError, match="corrupt sources have 0 episodes"):
        command.run(other, str(tmp_path))


def test_three_points_drift_per_datapoint_and_not_per_data_set(tmp_path):
    config = annotate_config.get_config("three_points")
    config.task.update(dict(tau=(0.05,), corrupt=(1000,), repeats=40, pairs=2, draws=20_000))
    command.run(config, str(tmp_path))
    results = json.loads((tmp_path / "report" / "results.json").read_text())
    share = {row["assignment"]: row["drawn"][1] for row in results["rows"]}
    for row in results["rows"]:
        gap = np.abs(np.subtract(row["drawn"], row["exact"]))
        assert np.all(gap < 4.5 * np.array(row["standard_error"]) + 1e-4), row["assignment"]
    assert share["datapoint"] > 0.9 and share["ordered"] > 0.9
    assert abs(share["dataset"] - 0.5) < 0.05 and abs(share["bucket"] - 0.5) < 0.05
    assert (tmp_path / "report" / "three_points.png").exists()
