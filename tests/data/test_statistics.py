import dataclasses
import functools
import importlib.util
import json
import math
import pathlib
import sys

import numpy as np
import pytest

from ambient_jax.data import rlds, statistics
from ambient_jax.data.rlds_source import RldsSource
from ambient_jax.data.statistics import Moments
from ambient_jax.data.storage.lerobot import LeRobotDataset
from ambient_jax.data.storage.zarr_buffer import ZarrDataset


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def compute(path, cache, **options):
    options = {"observation": ("state",), "action": "action"} | options
    source = RldsSource(rlds.open_dataset(path), "demos", **options)
    return statistics.compute(source, cache=cache)


@pytest.mark.parametrize("cuts", [(), (1,), (3, 3 + 10, 40)])
def test_merged_moments_are_those_of_all_rows(cuts):
    """With an offset that cancels all but 6 digits in sums of squares."""
    values = np.random.default_rng(0).normal(size=(50, 3)) + [0, 1e5, -3]
    parts = [Moments.of(p) for p in np.split(values, cuts)]
    merged = functools.reduce(Moments.merge, parts)
    assert merged.count == 50
    np.testing.assert_allclose(merged.mean, values.mean(0), rtol=1e-12)
    np.testing.assert_allclose(merged.std, values.std(0), rtol=1e-9)
    np.testing.assert_array_equal([merged.min, merged.max], [values.min(0), values.max(0)])


def test_moments_survive_json():
    moments = Moments.of(np.random.default_rng(0).normal(size=(7, 2)))
    stored = json.dumps(dataclasses.asdict(moments), default=np.ndarray.tolist)
    back = Moments.from_dict(json.loads(stored))
    assert back.count == 7
    for name in ("mean", "m2", "min", "max"):
        np.testing.assert_array_equal(getattr(back, name), getattr(moments, name))


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_one_pass_over_a_dataset(write_source, cache, file_format):
    lengths = [3, 1, 6, 2]
    path = write_source("demos", lengths, file_format=file_format, shards=3)
    found = compute(path, cache)
    rows = np.array([(e, t) for e, n in enumerate(lengths) for t in range(n)], float)
    assert found.lengths.tolist() == lengths
    assert found.num_steps == 12
    for name, offset in (("observation/state", 0), ("action", 0.25)):
        moments = found.fields[name]
        assert moments.count == 12
        np.testing.assert_allclose(moments.mean, rows.mean(0) + offset)
        np.testing.assert_allclose(moments.std, rows.std(0))
        np.testing.assert_array_equal(moments.max, [3 + offset, 5 + offset])
        np.testing.assert_array_equal(moments.min, [offset, offset])


def test_the_cache_is_used(write_source, cache):
    path = write_source("demos", [3, 4])
    compute(path, cache)
    (file,) = cache.iterdir()
    stored = json.loads(file.read_text())
    stored["fields"]["action"]["mean"] = [42.0, 43.0]
    file.write_text(json.dumps(stored))
    assert compute(path, cache).fields["action"].mean.tolist() == [42, 43]
    # Other fields or other data are another key.
    assert compute(path, cache, observation=("goal",)).fields["action"].mean[0] < 1
    other = write_source("other", [3, 5])
    assert compute(other, cache).num_steps == 8
    assert len(list(cache.iterdir())) == 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace('"lengths": [3, 4]', '"lengths": [3, 5]'),
        lambda text: text.replace('"count": 7', '"count": 8', 1),
        lambda text: text.replace('"fingerprint"', '"other"'),
        lambda text: text.replace('"fields"', '"field"'),
    ],
)
def test_a_damaged_cache_is_computed_anew(write_source, cache, damage, caplog):
    path = write_source("demos", [3, 4])
    first = compute(path, cache)
    (file,) = cache.iterdir()
    whole = file.read_text()
    assert damage(whole) != whole
    file.write_text(damage(whole))
    again = compute(path, cache)
    np.testing.assert_array_equal(again.lengths, first.lengths)
    assert f"{file} cannot be used" in caplog.text
    assert file.read_text() == whole


def test_a_cache_that_cannot_be_written_is_no_error(write_source, tmp_path, caplog):
    path = write_source("demos", [3, 4])
    (tmp_path / "file").write_text("")
    assert compute(path, tmp_path / "file" / "cache").num_steps == 7
    assert "statistics cannot be kept" in caplog.text
    assert statistics.CACHE_VARIABLE in caplog.text


BODY = """
def scaled(x):
    return {scale} * x

class Scale:
    def __init__(self, by): self.by = by
    def __repr__(self): return f"Scale({{self.by}})"
    def __call__(self, episode): return transform(episode, self.by)

def transform(episode, by=1):
    steps = dict(episode["steps"])
    steps["action"] = scaled(steps["action"]) * by
    return {{"steps": steps}}

def make(by):
    return lambda episode: transform(episode, by)

def make_by_default(by):
    def made(episode, by=by): return transform(episode, by)
    return made

def make_by_keyword(by):
    def made(episode, *, by=by): return transform(episode, by)
    return made

def make_recursive(by):
    def made(episode, again=True):
        return made(transform(episode, by), False) if again else episode
    return made

class Opaque:
    def __init__(self, by): self.by = by
    def scale(self, episode): return transform(episode, self.by)

class Method(Opaque):
    def __repr__(self): return f"Method({{self.by}})"
"""


@pytest.fixture
def load(tmp_path):
    """``load(text) -> module``, always of one name and file."""
    file = pathlib.Path(tmp_path / "mine_to_change.py")

    def load_one(text):
        file.write_text(text)
        spec = importlib.util.spec_from_file_location("mine_to_change", file)
        module = importlib.util.module_from_spec(spec)
        sys.modules["mine_to_change"] = module
        importlib.invalidate_caches()
        import linecache

        linecache.clearcache()
        exec(compile(text, str(file), "exec"), module.__dict__)
        return module

    yield load_one
    sys.modules.pop("mine_to_change", None)


def test_a_changed_transform_is_noticed(write_source, cache, load):
    """Also where only a function that it calls has changed."""
    path = write_source("demos", [3, 4])
    for scale in (1, 2):
        transform = load(BODY.format(scale=scale)).transform
        assert compute(path, cache, transform=transform).fields["action"].max[0] == scale * 1.25
    assert len(list(cache.iterdir())) == 2


def test_comments_and_layout_change_no_hash(load):
    first = statistics.code_hash(load(BODY.format(scale=1)).transform)
    text = "# a comment\n" + BODY.format(scale="(1)").replace("* by", "*  by  # by")
    assert statistics.code_hash(load(text).transform) == first
    assert statistics.code_hash() != first


def test_what_a_transform_holds_counts(load):
    module = load(BODY.format(scale=1))
    hashes = [
        statistics.code_hash(t)
        for by in (1, 2)
        for t in (functools.partial(module.transform, by=by), module.make(by), module.Scale(by))
    ]
    assert len(set(hashes)) == 6
    assert statistics.code_hash(module.make(2)) == hashes[4]


def test_what_is_bound_to_a_transform_counts(load):
    module = load(BODY.format(scale=1))
    large = np.arange(3000.0)
    makers = [
        lambda by: module.Method(by).scale,
        lambda by: functools.partial(module.Method(by).scale),
        module.make_by_default,
        module.make_by_keyword,
        module.make_recursive,
        lambda by: module.make([np.where(large == 1500, by, large)]),
        lambda by: module.make([np.float64([1 + by / 1e12])]),
        lambda by: module.make(functools.partial(module.transform, by=by)),
        lambda by: module.make(module.make(by)),
        lambda by: module.make([math.sin, math.cos][by - 1]),
    ]
    hashes = [[statistics.code_hash(make(by)) for by in (1, 2, 1)] for make in makers]
    for first, other, again in hashes:
        assert first and first != other and first == again
    assert len({first for first, *_ in hashes}) == len(hashes)


def test_an_object_without_a_text_of_its_own_is_not_cached(load, caplog):
    module = load(BODY.format(scale=1))
    opaque = module.Opaque(1)
    for transform in (opaque.scale, functools.partial(module.transform, by=opaque)):
        assert statistics.code_hash(transform) == ""
    assert caplog.text.count("does not tell its content (give it a __repr__)") == 2


def test_a_transform_without_source_is_not_cached(write_source, cache, caplog):
    namespace = {}
    exec("def transform(episode):\n    return episode", namespace)
    path = write_source("demos", [3, 4])
    assert compute(path, cache, transform=namespace["transform"]).num_steps == 7
    assert "not cached" in caplog.text
    assert not cache.exists()


def cut(episode):
    steps = episode["steps"]
    keep = slice(0, 0 if steps["action"][0, 0] < 1.5 else None)
    return {"steps": {"observation": {"state": steps["observation"]["state"][keep]},
                      "action": steps["action"][keep]}}  # fmt: skip


def test_emptied_episodes_count_as_empty(write_source, cache):
    path = write_source("demos", [3, 4, 5])
    found = compute(path, cache, transform=cut)
    assert found.lengths.tolist() == [0, 0, 5]
    assert found.fields["action"].min[0] == 2.25
    assert compute(path, cache, transform=cut).lengths.tolist() == [0, 0, 5]


def widen(episode):
    steps = episode["steps"]
    width = 2 + int(steps["action"][0, 0])
    action = np.zeros((len(steps["action"]), width))
    return {"steps": {"observation": steps["observation"], "action": action}}


def poison(episode):
    steps = episode["steps"]
    here = np.all(steps["action"] == [1.25, 2.25], axis=-1, keepdims=True)
    action = np.where(here, np.nan, steps["action"])
    return {"steps": {"observation": steps["observation"], "action": action}}


@pytest.mark.parametrize(
    ("lengths", "transform", "message"),
    [
        ([3, 4], cut, "source 'demos' .*demos/1.0.0. has no step"),
        ([3, 4], widen, "source 'demos', episode 1: action has 3 numbers a step, .* before it 2"),
        ([3, 4], poison, r"source 'demos', episode 1, step 2: steps/action\[0\] is nan"),
    ],
)
def test_data_without_statistics(write_source, cache, lengths, transform, message):
    path = write_source("demos", lengths)
    with pytest.raises(ValueError, match=message):
        compute(path, cache, transform=transform)


def stated(x):
    """Moments of x [N, d] as writers of data sets take them, in the type of the data."""
    own = {n: np.asarray(getattr(x, n)(axis=0), np.float64) for n in ("min", "max", "mean", "std")}
    return {"action": own}


def disagreement(x, own):
    moments = {"action": statistics.Moments.of(x)}
    return statistics.disagreement(statistics.SourceStatistics(moments, np.array([len(x)])), own)


def wide(rng, spread):
    """Numbers [N, d] of magnitudes from 0.01 to 100, which vary by a share of it."""
    place = rng.choice([-1, 1], 8) * 10 ** rng.uniform(-2, 2, 8)
    return (place * (1 + spread * rng.normal(size=(3000, 8)))).astype(np.float32)


@pytest.mark.parametrize("spread", [0, 1e-4, 0.01, 1])
def test_rounding_of_a_data_sets_own_statistics_is_no_disagreement(spread):
    rng = np.random.default_rng(0)
    for _ in range(20):
        x = wide(rng, spread)
        assert not disagreement(x, stated(x))
    zeros = np.zeros((9, 2), np.float32)
    assert not disagreement(zeros, stated(zeros))
    assert not disagreement(x, {"action": {"mean": np.zeros(3)}, "other": {"mean": np.ones(8)}})


@pytest.mark.parametrize("name", ["min", "max", "mean", "std"])
def test_statistics_of_other_data_are_a_disagreement(name):
    x = wide(np.random.default_rng(0), 0.1)
    own = stated(x)
    own["action"][name][3] += 0.01 * np.ptp(x[:, 3])
    assert f"states that {name} of action[3] is" in disagreement(x, own)
    constant = np.full((9, 2), 0.5, np.float32)
    own = stated(constant)
    own["action"][name][1] += 0.001
    assert f"states that {name} of action[1] is" in disagreement(constant, own)


def test_the_code_of_a_format_is_part_of_the_key():
    class Own:
        pass

    plain, lerobot, zarr, rlds_code, own = (
        statistics.code_hash(None, reader)
        for reader in (object, LeRobotDataset, ZarrDataset, rlds.RldsDataset, Own)
    )
    assert len({plain, lerobot, rlds_code, own}) == 4
    assert lerobot == zarr  # the modules of the formats share others
