"""Candidates train on all folds of the clean data but one, and are measured on that one."""

import dataclasses
import shutil

import ml_collections
import numpy as np
import pytest

from ambient_jax import mixing
from ambient_jax.annotate import candidates
from ambient_jax.annotate.candidates import Candidate, Options
from ambient_jax.data import mixture as mixtures
from ambient_jax.data import write
from ambient_jax.train import config as train_config
from ambient_jax.train import sweep
from ambient_jax.train.trainer import Result
from tests.annotate import made

TRIED = (
    *(Candidate(1.0), Candidate(None), Candidate(0.5), Candidate(0.5, 0.4)),
    *(Candidate(0.5, 1.0, 0.3), Candidate(0.0), Candidate(0.5, corrupt=("jagged",))),
)
MEASURED = (Candidate(1.0), Candidate(None), Candidate(0.5, corrupt=("jagged",)))
OPTIONS = Options(steps=6, batch_size=8, chunks=40, levels=4)


def _episodes(rng, count, jitter):
    last = np.arange(20) == 19
    for _ in range(count):
        way = np.cumsum(rng.normal(size=(1, 2)) + 0.1 * rng.normal(size=(20, 2)), 0) / 20
        action = (way + jitter * rng.normal(size=way.shape)).astype(np.float32)
        steps = dict(is_first=np.arange(20) == 0, is_last=last, is_terminal=last)
        steps |= dict(reward=last.astype(np.float32), discount=np.ones(20, np.float32))
        yield {"steps": steps | {"observation": {"state": action}, "action": action}}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    features = write.rlds_features({"state": np.zeros(2, np.float32)}, np.zeros(2, np.float32))
    for name, count, jitter in (("smooth", 7, 0.0), ("jagged", 9, 0.1), ("spoilt", 5, 0.3)):
        episodes = _episodes(rng, count, jitter)
        write.write_dataset(root, name=name, version="1.0.0", features=features, episodes=episodes)
    config = train_config.default()
    config.data.root, config.data.horizon = str(root), 8
    config.data.sources.smooth = train_config.source("smooth", "clean", split="train[1:]")
    for name in ("jagged", "spoilt"):
        config.data.sources[name] = train_config.source(name, "corrupt")
    config.model.update({"features": (8, 16), "groups": 2, "blocks": 1})
    config.policy.execute = 4
    return config


@pytest.fixture(scope="module")
def mixture(config):
    return mixtures.open_mixture(config.data, mixing.CoTraining())


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("candidates")
    candidates.measure(config, MEASURED, OPTIONS, folder)
    return folder


def test_folds_hold_every_clean_episode_once(config, mixture):
    cut, folds = candidates.folded(config, mixture, 3)
    assert folds == [["smooth_0"], ["smooth_1"], ["smooth_2"]]
    assert set(cut.data.sources) == {"smooth_0", "smooth_1", "smooth_2", "jagged", "spoilt"}
    opened = mixtures.open_mixture(cut.data, mixing.CoTraining())
    ids = [opened.datasets[name].episode_ids.tolist() for [name] in folds]
    assert ids == [[1, 2], [3, 4], [5, 6]]
    assert "smooth" in config.data.sources  # the config itself is as before


def test_more_folds_than_episodes_are_refused(config, mixture):
    with pytest.raises(ValueError, match="'smooth' has 6 episodes, expected at least 7"):
        candidates.folded(config, mixture, 7)


@pytest.mark.parametrize("per", ["source", "group"])
def test_a_map_of_its_own_for_each_source_is_refused_before_anything_trains(config, per, tmp_path):
    own = ml_collections.ConfigDict(config.to_dict())
    own.data.normalize_per = per
    with pytest.raises(ValueError, match=f"normalize_per is '{per}', expected 'mixture'"):
        candidates.measure(own, MEASURED, OPTIONS, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_candidate_sets_weights_and_bounds(config, mixture):
    cut, folds = candidates.folded(config, mixture, 2)
    configs = candidates.policies(cut, folds, TRIED)
    assert len(configs) == 2 * len(TRIED)

    def sources(candidate, fold):
        law = mixing.get(**configs[f"{candidate.name}/{fold}"].law)
        section = configs[f"{candidate.name}/{fold}"].data
        resolved = mixtures.weighted_sources(section, law, opened.statistics)
        return lambda sigma: dict(
            zip(
                section.sources,
                np.asarray(mixing.source_probabilities(law, sigma, resolved)).round(4).tolist(),
                strict=True,
            )
        )

    opened = mixtures.open_mixture(cut.data, mixing.CoTraining())
    for fold, [left_out] in enumerate(folds):
        kept = "smooth_1" if left_out == "smooth_0" else "smooth_0"
        for candidate in TRIED:
            for sigma in (0.2, 0.35, 0.8):
                shares = sources(candidate, fold)(sigma)
                assert shares[left_out] == 0
                clean, corrupt = shares[kept], shares["jagged"] + shares["spoilt"]
                assert clean + corrupt == pytest.approx(1, abs=1e-3)
                if not made.admits(candidate, sigma) and candidate.alpha != 0:
                    assert clean == pytest.approx(1, abs=1e-3)
                elif candidate.alpha is not None:
                    assert clean == pytest.approx(candidate.alpha, abs=1e-3)
        assert sources(TRIED[-1], fold)(0.5)["spoilt"] == 0
    # By number of steps, of which the last of an episode is a filler: 3 of 17 episodes.
    assert sources(Candidate(None), 0)(0.5)["smooth_1"] == pytest.approx(3 / 17, abs=1e-3)


def test_names_of_candidates_differ():
    assert len({c.name for c in TRIED}) == len(TRIED)
    assert TRIED[-1].name == "jagged_alpha_0.5" and Candidate(1.0, 0.3).name == "clean"


def test_all_candidates_are_measured_on_the_same_unseen_chunks(config, workdir):
    measured = candidates.measure(config, MEASURED, OPTIONS, workdir)
    chunks = len(measured.episode)
    assert measured.losses.shape == (len(MEASURED), 2, 4, chunks)
    assert np.all(np.isfinite(measured.losses)) and np.all(measured.losses > 0)
    assert sorted(set(measured.episode.tolist())) == list(range(6))
    assert {f: len(set(measured.episode[measured.fold == f].tolist())) for f in (0, 1)} == {
        0: 3,
        1: 3,
    }
    assert measured.decisions == pytest.approx(19 / 4)  # without the filler
    assert 0 < measured.variance < 1
    assert measured.natural == pytest.approx(6 / 20)


def test_what_is_measured_is_kept_and_not_for_other_options(config, workdir, monkeypatch):
    monkeypatch.setattr(sweep, "train", lambda *args: pytest.fail("trained again"))
    candidates.measure(config, MEASURED, OPTIONS, workdir)
    with pytest.raises(pytest.fail.Exception):
        candidates.measure(config, MEASURED, dataclasses.replace(OPTIONS, steps=7), workdir)


def test_reading_trains_nothing(config, workdir, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "train", lambda *args: pytest.fail("trained"))
    kept = candidates.read(config, MEASURED, OPTIONS, workdir)
    measured = candidates.measure(config, MEASURED, OPTIONS, workdir)
    np.testing.assert_array_equal(kept.losses, measured.losses)
    other = dataclasses.replace(OPTIONS, steps=7)
    assert candidates.read(config, MEASURED, other, workdir) is None
    assert candidates.read(config, MEASURED, OPTIONS, tmp_path / "none") is None
    assert not (tmp_path / "none").exists()


def test_damage_means_measuring_again(config, workdir, tmp_path):
    damaged = tmp_path / "again"
    shutil.copytree(workdir, damaged)
    whole = (damaged / "measured.npz").read_bytes()
    (damaged / "measured.npz").write_bytes(whole[: len(whole) // 2])
    again = candidates.measure(config, MEASURED, OPTIONS, damaged)
    first = candidates.measure(config, MEASURED, OPTIONS, workdir)
    np.testing.assert_array_equal(again.losses, first.losses)


def test_a_signal_ends_the_call(config, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "train", lambda *args: Result(3, "SIGTERM"))
    with pytest.raises(candidates.Interrupted, match="SIGTERM"):
        candidates.measure(config, MEASURED, OPTIONS, tmp_path)
    assert not (tmp_path / "measured.npz").exists()


def test_one_role_alone_is_refused(config, tmp_path):
    one = ml_collections.ConfigDict(config.to_dict())
    del one.data.sources["jagged"], one.data.sources["spoilt"]
    with pytest.raises(ValueError, match="all 1 sources are clean"):
        candidates.measure(one, MEASURED, OPTIONS, tmp_path)


@pytest.mark.parametrize(
    "change", [dict(folds=1), dict(draws=0), dict(levels=2), dict(chunks=0), dict(steps=-1)]
)
def test_options_are_checked(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        Options(**change)
