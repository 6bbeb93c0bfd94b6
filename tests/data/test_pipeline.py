import collections
import copy
import json
import os
import pathlib
import subprocess
import sys
import textwrap

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from scipy import stats

from ambient_jax import mixing, schedules
from ambient_jax.data import device, pipeline

FORMATS = ["array_record", "tfrecord"]
VP = schedules.vp()
AMBIENT = mixing.Ambient()
LENGTHS = {"demos": [5, 1, 6, 4], "rrt": [7, 8, 2, 9, 10, 3, 6, 5]}
TWO = {
    "demos": (LENGTHS["demos"], "clean", {}),
    "rrt": (LENGTHS["rrt"], "corrupt", {"sigma_min": 0.4, "sigma_max": 0.2}),
}


@pytest.fixture
def make_stream(make_config):
    iterators = []

    def make(file_format="array_record", law=AMBIENT, sources=TWO, fields=(), **options):
        fields = {"shuffle_window": 20, "prefetch": 0} | dict(fields)
        config = make_config(sources, file_format, placement="stream", **fields)
        return again(pipeline.open_mixture(config, law), law, **options)

    def again(mixture, law=AMBIENT, **options):
        options = {"seed": 0, "batch_size": 6} | options
        iterators.append(pipeline.stream_batches(mixture, law, VP, **options))
        return mixture, iterators[-1]

    make.again = again
    yield make
    for iterator in iterators:
        iterator.close()


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize(("history", "horizon"), [(1, 1), (3, 4), (12, 9)])
def test_batches_are_what_their_ids_say(make_stream, file_format, history, horizon):
    _, batches = make_stream(file_format, fields={"history": history, "horizon": horizon})
    lengths = list(LENGTHS.values())
    for _ in range(40):
        batch = next(batches)
        dtypes = {n: v.dtype.name for n, v in batch.items() if n != "observation"}
        assert dtypes == {
            **dict.fromkeys(("action", "sigma", "sigma_min", "sigma_max"), "float32"),
            **dict.fromkeys(("source", "id"), "int32"),
            "mask": "bool",
        }
        for i, (source, episode, step) in enumerate(batch["id"].tolist()):
            last = lengths[source][episode] - 1
            past = [max(step - history + 1 + j, 0) for j in range(history)]
            ahead = [step + j for j in range(horizon)]
            assert batch["source"][i] == source and 0 <= step <= last
            assert batch["observation"]["state"][i].tolist() == [[episode, t] for t in past]
            assert batch["observation"]["goal"][i].tolist() == [[episode + 0.5]] * history
            expected = [[episode + 0.25, min(t, last) + 0.25] for t in ahead]
            assert batch["action"][i].tolist() == expected
            assert batch["mask"][i].tolist() == [t <= last for t in ahead]
        sigma, source = batch["sigma"], batch["source"]
        np.testing.assert_array_equal(batch["sigma_min"], np.float32([0, 0.4])[source])
        np.testing.assert_array_equal(batch["sigma_max"], np.float32([1, 0.2])[source])
        assert np.all((sigma > batch["sigma_min"]) | (sigma < batch["sigma_max"]))


@pytest.mark.parametrize("law", [AMBIENT, mixing.CoTraining(), mixing.Exclusive()])
def test_the_stream_draws_what_the_device_draws(make_stream, law):
    mixture, batches = make_stream(law=law, seed=5)
    data = device.load_device_data(mixture)
    sample = jax.jit(mixture.sampler(law, VP))
    for step in range(20):
        resident = sample(data, jax.random.key(5), step, np.arange(6))
        streamed = next(batches)
        assert jax.tree.structure(streamed) == jax.tree.structure(resident)
        for name in ("sigma", "source", "sigma_min", "sigma_max"):
            np.testing.assert_array_equal(streamed[name], resident[name])


def test_sources_are_normalised_as_the_config_says(make_stream):
    fields = {"normalization": "bounds", "normalize_per": "source"}
    _, batches = make_stream(fields=fields, batch_size=600)
    batch = next(batches)
    for k in (0, 1):
        for values in (batch["action"], *batch["observation"].values()):
            rows = values[batch["source"] == k]
            np.testing.assert_allclose([rows.min(), rows.max()], [-1, 1], atol=1e-6)


def test_a_hundred_thousand_elements_follow_the_law(make_stream):
    """The clean share is 1 in (0.2, 0.4], and that of the chunks, 16/66, elsewhere."""
    _, batches = make_stream(batch_size=1000)
    drawn = [next(batches) for _ in range(100)]
    sigma, source = (np.concatenate([b[n] for b in drawn]) for n in ("sigma", "source"))
    bins = np.minimum((sigma * 10).astype(int), 9)
    counts = np.histogram2d(bins, source, bins=[range(11), range(3)])[0]
    expected = np.outer(np.full(10, 0.1), [16 / 66, 50 / 66]) * 10**5
    expected[2:4] = [10**4, 0]
    assert counts[expected == 0].sum() == 0
    p = stats.chisquare(counts[expected > 0], expected[expected > 0]).pvalue
    assert p > 1e-3


@pytest.mark.parametrize("file_format", FORMATS)
def test_each_source_goes_by_epochs(make_stream, file_format):
    _, batches = make_stream(file_format)
    ids = np.concatenate([next(batches)["id"] for _ in range(100)])
    for k, lengths in enumerate(LENGTHS.values()):
        every = {(e, t) for e, n in enumerate(lengths) for t in range(n)}
        mine = [tuple(i) for i in ids[ids[:, 0] == k][:, 1:].tolist()]
        epochs = [mine[i : i + len(every)] for i in range(0, len(mine), len(every))]
        full = [e for e in epochs if len(e) == len(every)]
        assert len(full) >= 3
        assert all(set(e) == every for e in full)
        assert full[0] != full[1]


@pytest.mark.parametrize("file_format", FORMATS)
def test_hosts_share_the_batch_and_the_data(make_stream, file_format):
    mixture, whole = make_stream(file_format)
    hosts = [make_stream.again(mixture, process_index=h, process_count=3)[1] for h in range(3)]
    seen = [collections.Counter() for _ in hosts]
    for _ in range(60):
        batch, parts = next(whole), [next(h) for h in hosts]
        for name in ("sigma", "source"):
            np.testing.assert_array_equal(batch[name], np.concatenate([p[name] for p in parts]))
        for counter, part in zip(seen, parts, strict=True):
            counter.update(map(tuple, part["id"].tolist()))
    every = {(k, e, t) for k, ls in enumerate(LENGTHS.values())
             for e, n in enumerate(ls) for t in range(n)}  # fmt: skip
    assert set.union(*map(set, seen)) == every
    assert sum(map(len, seen)) == len(every)


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_run_goes_on_with_another_number_of_hosts(make_stream, file_format):
    """6 shards on 3 hosts, then on 1, on 2 and on 6: the batches of a run that never changed."""
    mixture, whole = make_stream(file_format, shards=6)
    expected = [next(whole) for _ in range(40)]
    state, at = None, 0
    for count in (3, 1, 2, 6):
        hosts = [
            make_stream.again(mixture, shards=6, process_index=h, process_count=count)[1]
            for h in range(count)
        ]
        for host in hosts if state else ():
            host.set_state(state)
        for batch in expected[at : at + 10]:
            parts = [next(host) for host in hosts]
            for name in ("id", "sigma", "action", "mask"):
                found = np.concatenate([part[name] for part in parts])
                np.testing.assert_array_equal(found, batch[name])
        at, state = at + 10, pipeline.merge(host.get_state() for host in hosts)
    assert state == whole.get_state()
    _, alone = make_stream.again(mixture, shards=6)
    with pytest.raises(ValueError, match="the state has shards 5, expected also 0"):
        alone.set_state(hosts[-1].get_state())


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_restored_streams_carry_on_exactly(make_stream, file_format, prefetch):
    mixture, batches = make_stream(file_format, fields={"prefetch": prefetch})
    states, drawn = [copy.deepcopy(batches.get_state())], []
    for _ in range(60):
        drawn.append(next(batches))
        states.append(json.loads(json.dumps(batches.get_state())))
    for start in (0, 1, 7, 30, 59, 2):
        batches.set_state(states[start])  # back and forth in a used iterator
        assert batches.get_state() == states[start]
        assert_same(next(batches), drawn[start])
        _, fresh = make_stream.again(mixture)
        fresh.set_state(states[start])
        for i in range(start, min(start + 20, 60)):
            assert_same(next(fresh), drawn[i])
            assert fresh.get_state() == states[i + 1]


def test_state_is_small_whatever_the_window(make_stream):
    _, batches = make_stream(fields={"shuffle_window": 10**6, "prefetch": 2})
    for _ in range(10):
        next(batches)
    state = batches.get_state()
    assert state["step"] == 10 and sum(state["taken"]["0"]) == 60
    assert len(json.dumps(state)) < 300


@pytest.mark.parametrize("file_format", FORMATS)
def test_checkpoints_of_grain_and_orbax(make_stream, file_format, tmp_path):
    mixture, batches = make_stream(file_format, fields={"prefetch": 3})
    for _ in range(11):
        next(batches)
    with ocp.CheckpointManager(tmp_path / "checkpoints") as manager:
        manager.save(11, args=ocp.args.Composite(data=grain.checkpoint.CheckpointSave(batches)))
        expected = [next(batches) for _ in range(10)]
        manager.wait_until_finished()
        _, fresh = make_stream.again(mixture)
        manager.restore(11, args=ocp.args.Composite(data=grain.checkpoint.CheckpointRestore(fresh)))
    for batch in expected:
        assert_same(next(fresh), batch)


@pytest.mark.parametrize("prefetch", [0, 3])
def test_put_makes_what_the_devices_take(make_stream, prefetch):
    def put(batch):
        split = jax.tree.map(lambda x: x.reshape(2, 3, *x.shape[1:]), batch)
        return jax.device_put(split)

    mixture, plain = make_stream(fields={"prefetch": prefetch})
    _, sent = make_stream.again(mixture, put=put)
    for _ in range(10):
        batch, found = next(plain), next(sent)
        assert isinstance(found["action"], jax.Array)
        assert_same(put(batch), found)
        assert sent.get_state() == plain.get_state()


def test_batches_do_not_share_memory(make_stream):
    _, batches = make_stream()
    first = next(batches)
    kept = copy.deepcopy(first)
    for array in jax.tree.leaves(next(batches)):
        array[...] = 0
    assert_same(first, kept)


def test_a_source_the_law_leaves_out_is_never_read(make_stream):
    mixture, batches = make_stream(law=mixing.Filtering())
    for shard in mixture.datasets["rrt"].data.shard_files:
        os.truncate(shard, 10)
    for _ in range(20):
        assert np.all(next(batches)["source"] == 0)
    assert batches.get_state()["taken"] == {"0": [120, 0]}


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("prefetch", [0, 2])
def test_data_that_cannot_be_read_stop_the_stream(make_stream, file_format, prefetch):
    mixture, _ = make_stream(file_format, fields={"prefetch": prefetch})
    for shard in mixture.datasets["rrt"].data.shard_files:
        content = pathlib.Path(shard).read_bytes()
        pathlib.Path(shard).write_bytes(content[:40] + bytes(len(content) - 40))
    _, batches = make_stream.again(mixture)
    with pytest.raises(ValueError, match="rrt-train.*record"):
        for _ in range(20):
            next(batches)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 7, "process_count": 2}, "batch_size is 7, expected .* of the 2 shards"),
        ({"batch_size": 0}, "batch_size is 0, expected a positive"),
        ({"process_index": 2, "process_count": 2}, "process_index is 2, expected at most 1"),
        ({"batch_size": 90, "process_count": 90}, "'demos' has [0-9]+ steps for 90 shards"),
        ({"shards": 3, "process_count": 2}, "in 3 shards, expected a multiple of the 2 hosts"),
        ({"fields": {"shuffle_memory": 0.0}}, "shuffle_memory is 0.0, expected above 0"),
        ({"fields": {"shuffle_window": 0}}, "config.data.shuffle_window is 0, expected at least 1"),
        ({"fields": {"prefetch": -1}}, "config.data.prefetch is -1, expected at least 0"),
    ],
)
def test_bad_options(make_stream, options, message):
    with pytest.raises(ValueError, match=message):
        make_stream(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1}, "a stream with seed 0, this one has 1"),
        ({"batch_size": 12}, "with batch_size 6, this one has 12"),
        ({"process_count": 2}, "with shards 1, this one has 2"),
        ({"shards": 3}, "with shards 1, this one has 3"),
    ],
)
def test_states_of_other_streams(make_stream, options, message):
    mixture, batches = make_stream()
    _, other = make_stream.again(mixture, **options)
    with pytest.raises(ValueError, match=message):
        other.set_state(batches.get_state())


def test_states_of_other_data(make_stream):
    _, batches = make_stream()
    longer = {"new": ([5, 6, 7], "clean", {}), "old": TWO["rrt"]}
    _, other = make_stream(sources=longer)
    with pytest.raises(ValueError, match="with sources '.*', this one has '.*': resume with the"):
        other.set_state(batches.get_state())


def test_an_iterator_left_open_ends_quietly(make_stream, tmp_path):
    """Prefetching threads and interpreters at their end: no message, no crash."""
    _, _ = make_stream()
    script = f"""
        import os
        os.environ["AMBIENT_JAX_CACHE"] = {str(tmp_path / "cache")!r}
        from ambient_jax import mixing, schedules
        from ambient_jax.data import pipeline
        from ambient_jax.train import config as train_config
        config = train_config.default().data
        config.observation, config.horizon = ("state",), 4
        config.sources.demos = train_config.source({str(tmp_path / "data" / "demos")!r}, "clean")
        mixture = pipeline.open_mixture(config, mixing.Ambient())
        batches = pipeline.stream_batches(
            mixture, mixing.Ambient(), schedules.vp(), seed=0, batch_size=4
        )
        next(batches)
        import sys
        assert "tensorflow" not in sys.modules
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "Exception" not in result.stderr and "Error" not in result.stderr, result.stderr
