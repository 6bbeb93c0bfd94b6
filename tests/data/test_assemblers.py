import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
import time

import jax
import numpy as np
import pytest

from ambient_jax import mixing, schedules
from ambient_jax.data import assembler, assemblers, pipeline

AMBIENT, VP = mixing.Ambient(), schedules.vp()
TWO = {
    "demos": ([5, 1, 6, 4], "clean", {}),
    "rrt": ([7, 8, 2, 9, 10, 3, 6, 5], "corrupt", {"sigma_min": 0.4, "sigma_max": 0.2}),
}


@pytest.fixture
def open_stream():
    """``open_stream(config, number of processes, ...)``: an iterator, closed at the end."""
    iterators = []

    def make(config, count, transforms=None, **options):
        config = config.copy_and_resolve_references()
        config.assemblers = count
        mixture = pipeline.open_mixture(config, AMBIENT, transforms=transforms)
        options = {"seed": 3, "batch_size": 12, "shards": 2} | options
        iterators.append(pipeline.stream_batches(mixture, AMBIENT, VP, **options))
        return iterators[-1]

    yield make
    for iterator in iterators:
        iterator.close()


@pytest.fixture
def config(make_config):
    fields = {"placement": "stream", "shuffle_window": 20, "prefetch": 0}
    return make_config(TWO, "tfrecord", **fields)


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert jax.tree.map(lambda x: x.dtype.name, a) == jax.tree.map(lambda x: x.dtype.name, b)


def children():
    """Processes that this one has started and that still run."""
    listed = pathlib.Path(f"/proc/{os.getpid()}/task").glob("*/children")
    pids = {int(pid) for file in listed for pid in file.read_text().split()}
    return {pid for pid in pids if running(pid)}


def running(pid):
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


def gone(pids, seconds=60):
    end = time.monotonic() + seconds
    while any(map(running, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(running, pids))


@pytest.mark.parametrize(
    ("count", "starts"), [(2, (0, 17, 5)), pytest.param(3, (9, 0), marks=pytest.mark.slow)]
)
def test_the_number_of_processes_changes_no_bit(config, open_stream, count, starts):
    """Two have a shard each; three share four streams. Each goes on from any state of one."""
    before = children()
    one = open_stream(config, 1)
    states, drawn = [json.loads(json.dumps(one.get_state()))], []
    for _ in range(27):
        drawn.append(next(one))
        states.append(json.loads(json.dumps(one.get_state())))
    other = open_stream(config, count)
    for start in starts:
        other.set_state(states[start])
        for i in range(start, start + 10):
            assert other.get_state() == states[i]
            assert_same(next(other), drawn[i])
    one.set_state(other.get_state())  # and one goes on from a state of theirs
    assert_same(next(one), next(other))
    assert len(children() - before) == count
    other.close()
    assert children() == before


def test_a_truncated_shard_has_the_same_message(config, open_stream):
    files = sorted((pathlib.Path(config.root) / "rrt").rglob("*.tfrecord*"))
    pipeline.open_mixture(config, AMBIENT)  # measures the whole data
    config.prefetch = 2
    streams = [open_stream(config, count, batch_size=2, shards=1) for count in (1, 2)]
    before, messages = children(), []
    for file in files:
        os.truncate(file, file.stat().st_size - 40)
    for stream in streams:
        with pytest.raises(ValueError, match="rrt-train.*truncated in record") as caught:
            for _ in range(60):
                next(stream)
        messages.append(str(caught.value))
    assert messages[0] == messages[1] and "\n" not in messages[0]
    assert children() < before or not before  # the error ended the processes


def test_a_killed_process_is_noticed(config, open_stream):
    before = children()
    stream = open_stream(config, 2)
    next(stream)
    processes = sorted(children() - before)
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to all: the training ends its processes
        os.kill(processes[0], number)
    for _ in range(5):
        next(stream)
    os.kill(processes[1], signal.SIGKILL)
    with pytest.raises(ChildProcessError) as caught:
        for _ in range(10):
            next(stream)
    assert str(caught.value).startswith(
        f"assembling process 2 of 2 (pid {processes[1]}) was killed by SIGKILL (by the system if "
        "memory is short): start again"
    )
    assert "\n" not in str(caught.value) and children() == before


@pytest.mark.slow
def test_a_killed_run_leaves_no_process(config, tmp_path):
    """SIGKILL of the process that trains, in the middle of its batches."""
    script = f"""
        import sys
        from ambient_jax import mixing, schedules
        from ambient_jax.data import pipeline
        from ambient_jax.train import config as train_config
        config = train_config.default().data
        config.assemblers, config.observation, config.horizon = 2, ("state",), 4
        for name in ("demos", "rrt"):
            path = {config.root!r} + "/" + name
            config.sources[name] = train_config.source(path, "clean")
        mixture = pipeline.open_mixture(config, mixing.Ambient())
        batches = pipeline.stream_batches(
            mixture, mixing.Ambient(), schedules.vp(), seed=0, batch_size=4
        )
        next(batches)
        for line in sys.stdin:
            print(len(next(batches)["id"]), flush=True)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    print(file=process.stdin, flush=True)
    assert process.stdout.readline() == "4\n"
    listed = pathlib.Path(f"/proc/{process.pid}/task").glob("*/children")
    assembling = {int(pid) for file in listed for pid in file.read_text().split()}
    assert len(assembling) == 2 and all(map(running, assembling))
    for pid in assembling:  # their memory has no name that could stay
        maps = pathlib.Path(f"/proc/{pid}/maps").read_text()
        assert "/memfd:ambient-jax-batches (deleted)" in maps and "/dev/shm" not in maps
    process.kill()
    process.wait()
    assert gone(assembling)


@pytest.mark.slow
def test_transforms_go_along_and_jax_is_not_used(config, open_stream):
    parent, factor = os.getpid(), 2

    def doubled(episode):  # a closure, which pickle refuses
        from jax._src import xla_bridge

        if os.getpid() != parent and xla_bridge.backends_are_initialized():
            raise ValueError("JAX was used")
        steps = episode["steps"]
        return {"steps": {**steps, "action": factor * steps["action"]}}

    streams = [open_stream(config, count, {"rrt": doubled}) for count in (1, 2)]
    for _ in range(5):
        assert_same(*(next(stream) for stream in streams))


def test_what_cannot_be_sent_is_refused(config, open_stream):
    lock = threading.Lock()
    with pytest.raises(ValueError, match="assemblers is 2, but the sources cannot be sent to"):
        open_stream(config, 2, {"rrt": lambda episode: lock and episode})


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (5, r"is 5, but this host has 4 streams to share \(2 shards of 2 groups\): set it to at"),
        (0, "config.data.assemblers is 0, expected at least 1"),
    ],
)
def test_bad_numbers(config, open_stream, count, message):
    with pytest.raises(ValueError, match=message):
        open_stream(config, count)


@pytest.mark.parametrize(("local", "count"), [(1, 1), (2, 2), (4, 2), (3, 2), (1, 2), (5, 4)])
def test_streams_are_dealt_evenly(config, local, count):
    mixture = pipeline.open_mixture(config, AMBIENT)
    plan = assembler.Plan(mixture, 0, 4 * local, np.arange(local), local)
    owners = assemblers.deal(plan, count)
    weight = np.asarray(mixture.groups.sources.weight)
    assert owners.shape == (local, 2) and set(owners.flat) == set(range(count))
    load = [(weight * (owners == w)).sum() for w in range(count)]
    if local % count == 0:
        np.testing.assert_allclose(load, load[0])
        assert (owners == owners[:, :1]).all()
    assert max(load) - min(load) <= weight.max() + 1e-6


@pytest.mark.slow
def test_images_texts_and_their_failures(write_row, make_common, open_stream):
    """Repeated frames, cameras that are absent, and an image that cannot be decoded: masked."""

    def damage(number, episode):
        if number == 2:
            images = episode["steps"]["observation"]["image_0"]
            images[3] = images[3][:-30]
        episode["episode_metadata/has_image_1"] = number % 2 == 1

    path = write_row("bridge_orig", [6, 9, 7, 8, 5, 6], change=damage)
    form = {"cameras": ("primary", "secondary"), "instruction_bytes": 20, "workers": 3}
    form |= {"on_problem": {"image": "keep"}}
    sources = {name: (path, "bridge_orig", {}) for name in ("a", "b")}
    config = make_common(sources, form, prefetch=1)
    streams = [open_stream(config, count, batch_size=8) for count in (1, 2, 3)]
    masked = 0
    for _ in range(15):
        batches = [next(stream) for stream in streams]
        for other in batches[1:]:
            assert_same(batches[0], other)
        observation = batches[0]["observation"]
        assert observation["image_primary"].any() and "instruction" in observation
        absent = ~observation["image_primary_mask"]
        assert not observation["image_primary"][absent].any()
        masked += absent.sum()
    assert masked
