"""The files of a report: they are read back as a user would."""

import csv
import dataclasses
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from ambient_jax import mixing
from ambient_jax.annotate.candidates import Candidate
from ambient_jax.annotate.pile import config as pile_config
from ambient_jax.annotate.pile import files as pile_files
from ambient_jax.annotate.pile import results as pile_results
from ambient_jax.cli import config_file
from ambient_jax.data import bounds
from ambient_jax.data import mixture as mixtures
from ambient_jax.train import config as train_config
from tests.annotate.pile import piles


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder of the files, results, mixture, config) of the two data sets."""
    root = tmp_path_factory.mktemp("files")
    data = piles.write(root, 10)
    request = pile_config.Request((data["good"],), (data["shaky"], data["turned"]), horizon=8)
    found, clean = pile_config.open_all(request)
    config = pile_config.make(request, found, clean)
    mixture = mixtures.open_mixture(config.data, mixing.CoTraining())
    results = piles.results(folder=str(root))
    steps = {}
    for finding in results.findings:
        source = mixture.datasets[finding.name]
        finding.scores.episode[:] = source.episode_ids
        lengths = [len(source[i]["steps"]["action"]) for i in range(len(source))]
        columns = (
            np.repeat(source.episode_ids, lengths),
            np.concatenate(list(map(np.arange, lengths))),
        )
        steps[finding.name] = (source.fingerprint, *columns)
    for finding, where in zip(results.findings, (data["shaky"], data["turned"]), strict=True):
        object.__setattr__(finding, "directory", where)
    (root / "out").mkdir()
    pile_files.write(root / "out", results, config, steps)
    return root / "out", results, mixture, config, steps


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_tables(made):
    folder, results, *_ = made
    shaky, turned = rows(folder / "datasets.csv")
    assert shaky["data_set"] == "shaky" and turned["verdict"] == "leave it out: it harms"
    assert float(shaky["sigma_min"]) == 0.3
    ends = [float(shaky[f"loss_change_percent_{e}"]) for e in ("low", "value", "high")]
    assert ends == sorted(ends) and ends[-1] < 0
    assert shaky["helps_at_sigma"].endswith("to 0.9981")
    episodes = rows(folder / "episodes.csv")
    assert len(episodes) == 60 and sum(int(e["suspect"]) for e in episodes) >= 2
    broken = [e for e in episodes if e["data_set"] == "shaky" and int(e["episode"]) in piles.BROKEN]
    assert all(int(e["suspect"]) and float(e["influence_robust_z"]) < -3.5 for e in broken)


def test_results_are_json(made):
    stored = json.loads((made[0] / "results.json").read_text())
    assert set(stored["pile"]) == {"shaky", "turned"} and stored["settings"]["seed"] == 0
    low, high = (np.asarray(stored["pile"]["turned"]["log_ratio"][end]) for end in ("low", "high"))
    assert np.all(low > 0) and np.all(low <= high)
    assert stored["learning_curve"]["episodes"] == [1.25, 2.5, 5.0]


def test_bounds_join_and_broken_episodes_train_nowhere(made):
    folder, results, _, config, _ = made
    data = config.data.copy_and_resolve_references()
    data.bounds = str(folder / "bounds.parquet")
    mixture = mixtures.open_mixture(data, mixing.Ambient())
    assert set(mixture.bounds) == {"shaky", "turned"}
    table = bounds.read(data.bounds)
    own = table.rows("shaky")
    out = np.isin(table.episode[own], piles.BROKEN)
    assert np.all(table.sigma_min[own][out] == 1) and np.all(table.sigma_max[own][out] == 0)
    assert np.any(table.sigma_min[own] == np.float32(0.3))
    assert np.all(table.sigma_min[table.rows("turned")] == 1)


def test_config_trains_on_what_helps(made):
    folder, results, mixture, made_from, _ = made
    config = config_file.load(str(folder / "config.py"))
    train_config.check(config)
    assert set(config.data.sources) == {"good", "shaky"}
    assert config.data.sources.shaky.sigma_min == 0.3
    assert config.law.to_dict() == {"name": "ambient", "alpha": 0.5}
    for name in ("model", "schedule", "train", "objective"):
        assert config[name].to_dict() == made_from[name].to_dict()
    assert config.data.delta == () and config.data.horizon == 8
    opened = mixtures.open_mixture(config.data, mixing.Ambient(alpha=0.5))
    assert opened.fingerprints["shaky"] == mixture.fingerprints["shaky"]


def test_weights_of_frames(made, tmp_path):
    _, results, _, _, steps = made
    _, episode, step = steps["shaky"]
    index, keep = 1000 + np.arange(len(step)), np.linspace(0, 1, len(step))
    columns = index[::-1], episode[::-1], step[::-1], keep[::-1]  # in any order
    path = pile_files.write_weights(tmp_path / "l" / "w.parquet", results.findings[0], *columns)
    table = pq.read_table(path).to_pydict()
    assert table["index"] == index.tolist() and table["frame_index"] == step.tolist()
    out = np.isin(episode, piles.BROKEN)
    weight, progress = np.asarray(table["weight"]), np.asarray(table["progress_sparse"])
    assert np.all(weight[out] == 0) and np.allclose(weight[~out], keep[~out])
    inside = np.diff(step) == 1  # a frame and the next one of its episode
    assert np.all(np.diff(progress)[inside & out[1:]] == -1)
    assert np.all(np.diff(progress)[inside & ~out[1:]] == 1)


def chosen(finding, low, high, alpha=0.5):
    candidate = Candidate(alpha, low, corrupt=(finding.name,))
    choice = dataclasses.replace(finding.choice, candidate=candidate, sigma_max=high)
    return dataclasses.replace(finding, choice=choice)


@pytest.mark.parametrize(
    ("low", "high", "alpha", "text", "bounds_of"),
    [
        (0.3, 1.0, 0.5, "use it above sigma 0.3", (0.3, 0.0)),
        (0.1, 0.6, 0.5, "use it between sigma 0.1 and 0.6", (1.0, 0.0)),
        (0.0, 0.2, 0.5, "use it below sigma 0.2", (1.0, 0.2)),
        (0.0, 1.0, 0.5, "use it at every noise level", (0.0, 1.0)),
        (0.0, 1.0, 1.0, "leave it out: it harms", (1.0, 0.0)),
    ],
)
def test_verdicts(made, low, high, alpha, text, bounds_of):
    turned = chosen(made[1].findings[1], low, high, alpha)
    assert pile_results.verdict(turned) == text and pile_results.bounds(turned) == bounds_of


def test_config_of_a_band_and_of_nothing(made, tmp_path):
    _, results, _, config, _ = made
    shaky, turned = results.findings
    for findings, law, names in (
        ((chosen(shaky, 0.1, 0.6), turned), "soft", {"good", "shaky"}),
        ((chosen(shaky, 0.1, 0.6), chosen(turned, 0.3, 1.0)), "ambient", {"good", "turned"}),
        ((turned,), "ambient", {"good"}),
    ):
        text = pile_files.config_text(config, dataclasses.replace(results, findings=findings))
        (tmp_path / "config.py").write_text(text)
        made_config = config_file.load(str(tmp_path / "config.py"))
        assert made_config.law.name == law and set(made_config.data.sources) == names
        train_config.check(made_config)
        mixtures.weighted_sources(made_config.data, train_config.build(mixing, made_config.law))
