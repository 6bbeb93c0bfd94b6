"""A prepared cache: equal to the single pass, resumed by shard, found by a training."""

import json
import pathlib
import re
import shutil
import signal
import time

import pytest

from ambient_jax import mixing
from ambient_jax.data import mixture, parts, records, statistics
from ambient_jax.data.prepare import index
from ambient_jax.data.prepare import work as work_lib
from ambient_jax.open_x import fixtures, registry
from ambient_jax.train import config as train_config
from ambient_jax.train import mixtures

LAW = mixing.CoTraining()
SOME = ("bridge_orig", "taco_play")
FORM = {"cameras": ("primary",), "action_width": 16, "state_width": 14, "image_size": (32, 32)}


@pytest.fixture(scope="module")
def oxe(tmp_path_factory):
    """Two data sets of the registry, one a format, of 3 files each."""
    root = tmp_path_factory.mktemp("oxe")
    for name, file_format in zip(SOME, ("tfrecord", "array_record"), strict=True):
        options = {"lengths": (6, 5, 7, 3), "shards": 3, "file_format": file_format}
        fixtures.write_fixture(root, name, **options)
    return str(root)


@pytest.fixture
def data(oxe):
    return section(oxe, SOME)


def section(root, names):
    data = train_config.default().data
    mixtures.add(data, dict.fromkeys(names, 1.0))
    data.root, data.placement, data.horizon = root, "stream", 3
    data.open_x.update(FORM | {"quality": ("success",)})
    for name, source in data.sources.items():
        source.path, source.last_step = fixtures.folder(name), "keep"
    return data


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name.startswith("statistics-")}


def singly(data, folder):
    """Leaves the statistics of the single pass in a folder; returns their files."""
    for name in data.sources:
        statistics.compute(mixture.open_source(data, name), cache=folder)
    return contents(folder)


def forbid(monkeypatch):
    """Makes all passes over data an error."""

    def no_pass(*arguments, **_):
        raise AssertionError(f"it reads {arguments}")

    monkeypatch.setattr(parts, "measure", no_pass)
    monkeypatch.setattr(records, "digest", no_pass)
    monkeypatch.setattr(records, "read_record", no_pass)
    monkeypatch.setattr(records, "_open_reader", no_pass)


def test_a_training_finds_what_was_prepared(data, tmp_path, monkeypatch):
    expected = singly(data, tmp_path / "single")
    monkeypatch.setenv("AMBIENT_JAX_CACHE", str(tmp_path / "elsewhere"))
    report = index.prepare(data, cache=str(tmp_path / "cache"), processes=0)
    assert not report.failures and report.measured == 6
    assert contents(tmp_path / "cache") == expected  # byte for byte
    stored = json.loads((tmp_path / "cache" / "index.json").read_text())["sources"]
    assert set(stored) == set(SOME)
    entry = stored["bridge_orig"]
    assert (entry["episodes"], entry["shards"]) == (4, 3)
    assert entry["statistics"] in expected and entry["fingerprint"]
    assert not list((tmp_path / "cache" / "parts").iterdir())
    forbid(monkeypatch)
    opened = mixture.open_mixture(data, LAW)  # prepare made the cache that of this process
    assert opened.statistics["bridge_orig"].num_steps == entry["steps"] > 0
    assert opened.datasets["taco_play"].fingerprint == stored["taco_play"]["fingerprint"]
    again = index.prepare(data, cache=str(tmp_path / "cache"), processes=0)
    assert again.measured == 0 and again.sources == report.sources


def test_an_interrupted_preparation_goes_on(data, tmp_path, monkeypatch):
    done, measure = [], parts.measure

    def third_ends(source, files):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append((source.name, files))
        return measure(source, files)

    monkeypatch.setattr(parts, "measure", third_ends)
    with pytest.raises(KeyboardInterrupt):
        index.prepare(data, cache=str(tmp_path / "cache"), processes=0)
    (folder,) = [p for p in (tmp_path / "cache/parts").iterdir() if p.name.startswith("bridge")]
    (folder / "00009-half.json.gz.1234.tmp").write_bytes(b"cut by a kill")
    again = []
    monkeypatch.setattr(parts, "measure", lambda s, f: again.append((s.name, f)) or measure(s, f))
    report = index.prepare(data, cache=str(tmp_path / "cache"), processes=0)
    assert len(again) == report.measured == 4 and not set(again) & set(done)
    assert contents(tmp_path / "cache") == singly(data, tmp_path / "single")


def test_a_broken_shard_is_named_and_the_rest_kept(data, tmp_path, monkeypatch, write_source):
    path = write_source("demos", [3, 4, 5], file_format="tfrecord", shards=3)
    data = train_config.default().data
    data.horizon = 3
    data.sources.demos = train_config.source(path, "clean", last_step="keep")
    data.sources.none = train_config.source(f"{path}/nothing", "clean")
    file = sorted(pathlib.Path(path).glob("*tfrecord*"))[1]
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    report = index.prepare(data, cache=str(tmp_path / "cache"), processes=0)
    (where, why), (shard, reason) = report.failures
    assert where == "source 'none'" and "nothing does not exist" in why
    assert shard == "source 'demos', shard 1 of 3"
    assert reason.startswith(f"{file}: truncated in record 0") and "\n" not in reason
    assert report.measured == 2 and not report.sources
    # Nothing was mended: the same shard is tried again, and fails again.
    tried, measure = [], parts.measure
    monkeypatch.setattr(parts, "measure", lambda s, f: tried.append(f) or measure(s, f))
    assert index.prepare(data, cache=str(tmp_path / "cache"), processes=0).failures[1:] == [
        (shard, reason)
    ]
    file.write_bytes(whole)
    del data.sources.none
    report = index.prepare(data, cache=str(tmp_path / "cache"), processes=0)
    assert tried == [range(1, 2)] * 2 and report.measured == 1 and not report.failures
    assert contents(tmp_path / "cache") == singly(data, tmp_path / "single")


def test_changed_data_are_prepared_anew(write_source, make_config, monkeypatch):
    data = make_config({"demos": ([3, 4, 5], "clean", {"last_step": "keep"})}, shards=3)
    assert index.prepare(data, processes=0).measured == 3
    file = sorted(pathlib.Path(data.root).rglob("*array_record*"))[0]
    file.touch()  # the same content: its hash is taken anew, the statistics are not
    with monkeypatch.context() as patch:
        patch.setattr(parts, "measure", lambda *_: 1 / 0)
        mixture.open_mixture(data, LAW)
    other = write_source("other", [3, 4, 6], shards=3)
    shutil.rmtree(f"{data.root}/demos")
    shutil.copytree(pathlib.Path(other).parent, f"{data.root}/demos")
    report = index.prepare(data, processes=0)
    assert report.measured == 3 and report.sources["demos"]["steps"] == 13


@pytest.mark.parametrize("damage", ["", "{}", '{"sources": 3}'])
def test_a_damaged_index_is_written_anew(data, tmp_path, damage, caplog):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "index.json").write_text(damage)
    report = index.prepare(data, cache=str(tmp_path / "cache"), processes=0)
    stored = json.loads((tmp_path / "cache" / "index.json").read_text())["sources"]
    assert stored == json.loads(json.dumps(report.sources))
    assert "is damaged" in caplog.text


def test_a_cache_in_a_bucket(data, place, monkeypatch, tmp_path):
    """What one host leaves in a bucket, another finds there."""
    folder, faults = place
    faults.rate = 0.05
    cache = f"{folder / 'cache'}"
    report = index.prepare(data, cache=cache, processes=0)
    assert not report.failures and report.measured == 6
    assert faults.made
    faults.rate = 0.0
    forbid(monkeypatch)
    monkeypatch.setenv("AMBIENT_JAX_CACHE", cache)
    assert mixture.open_mixture(data, LAW).statistics["taco_play"].num_steps > 0
    expected = report.sources["taco_play"]["fingerprint"]
    assert mixture.open_source(data, "taco_play").fingerprint == expected
    assert not (folder / "cache" / "parts").is_dir()


@pytest.mark.parametrize(
    ("name", "observation"),
    [
        ("lerobot_v21_g1", "state"),
        ("lerobot_v21_gr00t/robot_sim.PickNPlace", "state"),
        ("rlds_bridge", "state"),
    ],
)
def test_recorded_data(recorded_data, tmp_path, name, observation):
    if not (recorded_data / name).is_dir():
        pytest.skip(f"no {recorded_data / name}")
    data = train_config.default().data
    data.observation, data.horizon = (observation,), 3
    data.sources.recorded = train_config.source(str(recorded_data / name), "clean")
    report = index.prepare(data, cache=str(tmp_path / "cache"), processes=0)
    assert not report.failures and report.measured > 0
    assert contents(tmp_path / "cache") == singly(data, tmp_path / "single")


def beam():
    pytest.importorskip("apache_beam", reason="no apache-beam: pip install '.[beam]'")


@pytest.mark.slow
def test_beams_processes_on_all_rows_of_the_registry(tmp_path):
    """Statistics of 75 data sets by two worker processes are the single pass's, byte for byte."""
    beam()
    names = list(registry.data_sets())
    for number, name in enumerate(names):
        options = {"lengths": (5, 4), "shards": 2, "seed": number}
        options["file_format"] = ("array_record", "tfrecord")[number % 2]
        fixtures.write_fixture(tmp_path / "oxe", name, **options)
    data = section(str(tmp_path / "oxe"), names)
    assert len(data.sources) == 75
    report = index.prepare(data, cache=str(tmp_path / "cache"), processes=2)
    assert not report.failures and report.measured == 150
    found = contents(tmp_path / "cache")
    assert found == singly(data, tmp_path / "single")


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on(command, tmp_path):
    """By SIGKILL, with worker processes; these end too, and the rest is measured once."""
    beam()
    from tests.data.prepare import slow_format

    fixtures.write_fixture(tmp_path / "oxe", "bridge_orig", lengths=[4] * 24, shards=24)
    data = section(str(tmp_path / "oxe"), ["bridge_orig"])
    data.sources.bridge_orig.format = slow_format.NAME
    finished = lambda: [  # noqa: E731
        p.name for p in (tmp_path / "cache").glob(f"parts/*/*{work_lib.DONE}")
    ]
    before: set[str] = set()
    for kill_after in (3, 12):
        process = command(data, tmp_path / "cache", slow=0.2)
        while len(finished()) < kill_after:
            assert process.poll() is None, process.finish()
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        settle(finished)
        assert before < set(finished())
        before = set(finished())
        assert kill_after <= len(before) < 24
    process = command(data, tmp_path / "cache")
    out = process.finish()
    assert process.returncode == 0
    assert int(re.search(r"(\d+) shards were measured now", out)[1]) == 24 - len(before)
    assert contents(tmp_path / "cache") == singly(data, tmp_path / "single")


def settle(finished):
    """Waits until workers without a parent have ended, so that no more parts appear."""
    count = -1
    while count != len(finished()):
        count = len(finished())
        time.sleep(3.0)
