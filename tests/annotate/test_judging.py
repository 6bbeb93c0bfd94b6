"""Chunks judged by shard are those that the annotation judges at once."""

import os
import pathlib
import pickle
import types

import numpy as np
import pytest

from ambient_jax import annotate
from ambient_jax.annotate import judge as command
from ambient_jax.annotate import judging
from ambient_jax.annotate.judging import Judge
from ambient_jax.data import bounds, write
from ambient_jax.train import config as train_config

OPTIONS = dict(folds=2, steps=20, levels=4, crops=(), analyses=(), features=(8, 8), batch_size=64)
GRANULARITY = ("dataset", "datapoint")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root, vector = tmp_path_factory.mktemp("data"), np.zeros(2, np.float32)
    rng = np.random.default_rng(0)
    for name, count, jitter in (("smooth", 6, 0.0), ("jagged", 9, 0.2)):
        episodes = []
        for _ in range(count):
            length = int(rng.integers(9, 17))
            at = np.linspace(0, 1, length)[:, None] * rng.normal(size=2)
            at = (at + jitter * rng.normal(size=at.shape)).astype(np.float32)
            flags = {n: np.zeros(length, bool) for n in ("is_first", "is_last", "is_terminal")}
            numbers = {n: np.zeros(length, np.float32) for n in ("reward", "discount")}
            steps = {"observation": {"state": at}, "action": at, **flags, **numbers}
            episodes.append({"steps": steps})
        features = write.rlds_features({"state": vector}, vector)
        options = dict(features=features, episodes=episodes, file_format="tfrecord", shards=3)
        write.write_dataset(root, name=name, version="1.0.0", **options)
    return root


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AMBIENT_JAX_CACHE", str(tmp_path / "cache"))


def section(root, split="train"):
    data = train_config.default().data
    data.root, data.horizon, data.delta = str(root), 4, ()
    data.sources.smooth = train_config.source("smooth", "clean")
    data.sources.jagged = train_config.source("jagged", "corrupt", split=split)
    return data


@pytest.fixture(scope="module")
def annotations(root, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AMBIENT_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        options = annotate.Options(granularity=GRANULARITY, **OPTIONS)
        return annotate.annotate(section(root), options, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [0, 2])
def test_by_shard_as_at_once(annotations, root, cache, tmp_path, processes):
    if processes:
        pytest.importorskip("apache_beam", reason="no apache-beam: pip install '.[beam]'")
    Judge.of(annotations).write(tmp_path / judging.FILE)
    judged = judging.judge_all(section(root), tmp_path, tmp_path / "all", processes=processes)
    assert not judged.failures and judged.episodes == 9
    curve = annotations.evidence.curves["jagged"]
    assert judged.chunks == len(curve)
    files = sorted((tmp_path / "all" / "parts").glob("jagged-*/*.npz"))
    assert len(files) == 3
    clean = np.concatenate([np.load(file)["clean"] for file in files])
    np.testing.assert_allclose(clean, curve, atol=1e-6)
    for granularity in GRANULARITY:
        ours = bounds.read(judged.bounds[granularity])
        theirs = annotations.bounds[granularity]
        np.testing.assert_array_equal(ours.episode, theirs.episode)
        np.testing.assert_array_equal(ours.step, theirs.step)
        np.testing.assert_allclose(ours.sigma_min, theirs.sigma_min, atol=1e-6)
    assert "chunks of 9 episodes" in command.estimate(judged)


@pytest.mark.slow
def test_a_small_file_is_not_filled_up_to_a_large_batch(
    annotations, root, cache, tmp_path, monkeypatch
):
    Judge.of(annotations).write(tmp_path / judging.FILE)
    sizes, probabilities = [], judging.classifier.probabilities

    def noted(*arguments, **options):
        sizes.append(options["batch_size"])
        return probabilities(*arguments, **options)

    monkeypatch.setattr(judging.classifier, "probabilities", noted)
    judging.judge_all(section(root), tmp_path, tmp_path / "all")
    # Three files of three episodes of 9 to 16 steps, in two folds.
    assert len(sizes) == 3 and set(sizes) <= {16, 32, 64}


@pytest.mark.slow
def test_it_goes_on_after_a_broken_shard(annotations, root, cache, tmp_path, monkeypatch):
    Judge.of(annotations).write(tmp_path / judging.FILE)
    data, all_ = section(root), str(tmp_path / "all")
    file = sorted(pathlib.Path(root).glob("jagged/*/*tfrecord*"))[1]
    whole, opening, calls = file.read_bytes(), judging.evidence.open_standing_still, []

    def first_then_breaks(*given):  # before, there would be no statistics
        mixture = opening(*given)
        calls.append(given)
        if len(calls) == 1:
            file.write_bytes(whole[:-20])
        return mixture

    monkeypatch.setattr(judging.evidence, "open_standing_still", first_then_breaks)
    try:
        judged = judging.judge_all(data, tmp_path, all_)
        ((what, why),) = judged.failures
        assert what == "source 'jagged', shard 1 of 3" and f"{file}: truncated" in why
        assert judged.episodes == 6 and not judged.bounds
    finally:
        file.write_bytes(whole)
    judged = judging.judge_all(data, tmp_path, all_)
    assert judged.episodes == 3 and set(judged.bounds) == set(GRANULARITY) and len(calls) == 2


def test_a_damaged_part_is_deleted_and_parts_are_closed(tmp_path):
    part = tmp_path / "00000-0.npz"
    arrays = {n: np.arange(9) for n in ("clean", "episode", "step")}
    np.savez(part, **arrays)
    whole, before = part.read_bytes(), len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        kept = judging._columns(part)
    np.testing.assert_array_equal(kept["step"], arrays["step"])
    assert len(os.listdir("/proc/self/fd")) == before
    at = whole.index(arrays["clean"].tobytes()) + 40
    for damaged in (b"", whole[:-9], whole[:at] + b"\xff" + whole[at + 1 :]):
        part.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{part} was damaged .* the same command makes it an"):
            judging._columns(part)
        assert not part.exists()
    np.savez(part, clean=arrays["clean"])
    with pytest.raises(ValueError, match="'episode' is missing"):
        judging._columns(part)


def test_episodes_that_the_annotation_saw_keep_their_fold():
    options = types.SimpleNamespace(folds=3)
    evidence = types.SimpleNamespace(fitted=types.SimpleNamespace(options=options))
    folds = {"a": (np.array([2, 5, 9]), np.array([2, 0, 1], np.int32))}
    judge = Judge(evidence, None, ("a",), folds, {"a": 0.0})
    episode = np.array([9, 9, 2, 5, 4, 10, 0])
    assert judge.fold_of("a", episode).tolist() == [1, 1, 2, 0, 4 % 3, 10 % 3, 0]


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, FileNotFoundError, "run python -m ambient_jax.annotate with this workdir"),
        (b"", ValueError, "cannot be read .*: annotate again"),
        (pickle.dumps([1]), ValueError, "has a list, expected a classifier"),
    ],
)
def test_a_file_that_is_no_classifier(tmp_path, content, error, message):
    if content is not None:
        (tmp_path / judging.FILE).write_bytes(content)
    with pytest.raises(error, match=message):
        judging.read(tmp_path / judging.FILE)


def test_nothing_left_to_judge_has_no_rate():
    assert command.estimate(judging.Judged({}, [], 0, 0.1, 0)) == "nothing was left to judge"
    line = command.estimate(judging.Judged({}, [], 5000, 10.0, 100))
    # 2.4M episodes of 50 chunks at 500 a second.
    assert "500 a second" in line and "would take 67 hours" in line
