import collections
from concurrent import futures

import numpy as np
import pytest

from ambient_jax import mixing
from ambient_jax.data import mixture as mixtures
from ambient_jax.data import stream

FORMATS = ["array_record", "tfrecord"]
LENGTHS = [4, 9, 1, 6, 12, 3, 7, 2, 5, 11, 8, 4]


@pytest.fixture
def mixture(make_config, request):
    config = make_config({"demos": (LENGTHS, "clean", {})}, request.param, shards=5)
    return mixtures.open_mixture(config, mixing.Ambient())


@pytest.fixture
def open_stream():
    with futures.ThreadPoolExecutor(1) as executor:

        def open_one(mixture, window=20, seed=0, host=0, hosts=1, **group):
            return stream.ChunkStream(
                mixture,
                0,
                window=window,
                seed=seed,
                shard=host,
                shards=hosts,
                executor=executor,
                **group,
            )

        yield open_one


both_formats = pytest.mark.parametrize("mixture", FORMATS, indirect=True)
ALL = {(e, t) for e, n in enumerate(LENGTHS) for t in range(n)}


def ids(chunks, count):
    found = []
    for window, steps in chunks.take(count):
        found += zip(window.episode[steps], steps - window.start[steps], strict=True)
    assert len(found) == count
    return [(int(e), int(t)) for e, t in found]


@both_formats
@pytest.mark.parametrize("window", [1, 20, 71, 72, 1000])
def test_an_epoch_has_every_chunk_once(mixture, open_stream, window):
    chunks = open_stream(mixture, window)
    assert chunks.size == len(ALL) == 72
    epochs = [ids(chunks, 72) for _ in range(3)]
    for epoch in epochs:
        assert len(epoch) == 72 and set(epoch) == ALL
    assert epochs[0] != epochs[1] != epochs[2]
    assert chunks.taken == 3 * 72


@both_formats
def test_the_size_of_the_pieces_asked_for_changes_nothing(mixture, open_stream):
    whole = ids(open_stream(mixture), 150)
    chunks = open_stream(mixture)
    assert [i for n in (1, 2, 47, 100) for i in ids(chunks, n)] == whole
    assert ids(open_stream(mixture, seed=1), 150) != whole


@both_formats
@pytest.mark.parametrize("hosts", [2, 3, 12])
def test_hosts_are_disjoint_and_together_complete(mixture, open_stream, hosts):
    seen = collections.Counter()
    for host in range(hosts):
        chunks = open_stream(mixture, host=host, hosts=hosts)
        mine = ids(chunks, chunks.size)
        assert set(mine) == set(ids(chunks, chunks.size))
        seen.update(mine)
    assert seen == collections.Counter(ALL)


@both_formats
def test_windows_hold_whole_episodes_and_are_bounded(mixture, open_stream):
    chunks, sizes = open_stream(mixture, window=20), []
    for window, steps in chunks.take(720):
        assert np.all(window.end[steps] <= len(window.order))
        sizes.append(len(window.order))
        assert {n: len(v) for n, v in window.steps.items()} == {
            n: len(window.order) for n in ("action", "observation/state", "observation/goal")
        }
    assert max(sizes) < 20 + max(LENGTHS)
    assert len(sizes) > 30


@both_formats
@pytest.mark.parametrize("window", [20, 1000])
def test_taken_is_the_whole_state(mixture, open_stream, window):
    whole = ids(open_stream(mixture, window), 300)
    moved = open_stream(mixture, window)
    for start in (0, 1, 71, 72, 73, 200, 19, 150):
        moved.taken = start
        assert ids(moved, 100) == whole[start : start + 100]
        fresh = open_stream(mixture, window)
        fresh.taken = start
        assert ids(fresh, 50) == whole[start : start + 50]


@both_formats
def test_chunks_are_shuffled_beyond_their_episodes(mixture, open_stream):
    """Neighbours of one episode: 10% in a full shuffle, 84% unshuffled."""
    chunks = open_stream(mixture, window=1000)
    found = [e for e, _ in ids(chunks, 72 * 20)]
    same = np.mean([a == b for a, b in zip(found, found[1:], strict=False)])
    assert same < 0.2
    episodes = [tuple(dict.fromkeys(e for e, _ in ids(open_stream(mixture, 1, s), 72)))
                for s in range(3)]  # fmt: skip
    assert len(set(episodes)) == 3


def test_one_tfrecord_shard_gives_other_windows_each_epoch(make_config, open_stream):
    config = make_config({"demos": (LENGTHS, "clean", {})}, "tfrecord", shards=1)
    chunks = open_stream(mixtures.open_mixture(config, mixing.Ambient()), window=20)
    made = set()
    for window, _ in chunks.take(72 * 10):
        made.add(tuple(np.unique(window.episode)))
    assert len(made) > 10


def test_tfrecord_shards_take_turns(make_config, open_stream):
    """One episode of each of 16 shards in turn, then the next 16."""
    config = make_config({"demos": ([2] * 60, "clean", {})}, "tfrecord", shards=20, horizon=2)
    chunks = open_stream(mixtures.open_mixture(config, mixing.Ambient()), window=1)
    order = list(dict.fromkeys(e for e, _ in ids(chunks, 120)))
    shards = [e // 3 for e in order]
    assert len(set(shards[:16])) == 16 and shards[:16] == shards[16:32]
    assert len(set(shards[:48])) == 16


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_permutation(size):
    order = stream.permutation(size, 1, 2)
    assert sorted(order.tolist()) == list(range(size))
    assert order.tolist() == stream.permutation(size, 1, 2).tolist()
    if size > 2:
        assert order.tolist() != stream.permutation(size, 2, 1).tolist()
        assert abs(np.corrcoef(order, np.arange(size))[0, 1]) < 0.1


@pytest.mark.parametrize("file_format", FORMATS)
def test_episodes_are_dealt_to_shards(file_format):
    lengths = np.array([3, 0, 5])
    found = [stream.deal(lengths, None, file_format, "demos", shard, 2) for shard in (0, 1)]
    assert [(e.tolist(), keep) for e, keep in found] == [([0], None), ([2], None)]


def test_of_fewer_episodes_than_shards_every_shard_takes_steps():
    lengths = np.array([3, 0, 5])
    dealt = [stream.deal(lengths, None, "array_record", "demos", shard, 3) for shard in range(3)]
    assert [e.tolist() for e, _ in dealt] == [[0, 2], [0, 2], [0, 2]]
    np.testing.assert_array_equal(np.stack([keep for _, keep in dealt]).sum(0), 1)
    only = np.array([0, 1, 1, 0, 0, 0, 0, 1], bool)  # steps of the group, in two episodes
    dealt = [stream.deal(lengths, only, "array_record", "demos", shard, 3) for shard in range(3)]
    assert [e.tolist() for e, _ in dealt] == [[0], [0], [2]]
    np.testing.assert_array_equal(np.stack([keep for _, keep in dealt]).sum(0), only)
    with pytest.raises(ValueError, match="source 'demos' has 3 steps for 4 shards: set con"):
        stream.deal(lengths, only, "array_record", "demos", 0, 4)


@both_formats
@pytest.mark.parametrize("window", [20, 1000])
def test_a_group_has_its_own_steps_alone(mixture, open_stream, window):
    """Groups of one source split its chunks; each goes by epochs and restarts anywhere."""
    rng = np.random.default_rng(0)
    group = rng.integers(0, 3, 72)
    expected = {(e, t): group[i] for i, (e, t) in enumerate(sorted(ALL))}
    for g in range(3):
        chunks = open_stream(mixture, window, keep=group == g, group=g)
        mine = {i for i, v in expected.items() if v == g}
        assert chunks.size == len(mine)
        twice = ids(chunks, 2 * chunks.size)
        assert set(twice[: chunks.size]) == set(twice[chunks.size :]) == mine
        chunks.taken = chunks.size - 3
        assert ids(chunks, 6) == twice[chunks.size - 3 : chunks.size + 3]
