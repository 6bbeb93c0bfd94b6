"""Two hosts of two devices, killed, resumed, and carried on by one host: one run, step by step."""

import collections
import json
import socket
import time

import numpy as np
import pytest

from ambient_jax.data import rlds

_LIMIT = 900  # s until hosts that wait for one another count as stuck, many times what they take
GOOD = 1  # number of the source: they are ordered by name


def _hosts(worker, job, folder, phase, dies=False):
    """Runs a job on two hosts of two devices each; where one dies the other is killed as well."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
    running = []
    for i in range(2):
        mine = {"num_processes": 2, "process_id": i, "ids": str(folder / f"{phase}_{i}.jsonl")}
        running.append(worker(job | mine | {"coordinator": address}, 2))
    limit = time.monotonic() + _LIMIT
    while dies and all(finish.process.poll() is None for finish in running):
        if time.monotonic() > limit:
            for finish in running:
                finish.process.kill()
            raise TimeoutError(f"{phase}: no host has died at its step within {_LIMIT} s")
        time.sleep(0.1)
    for finish in running:
        if dies:
            finish.process.kill()
        finish(None if dies else 0)


def _ids(folder, phase):
    """Rows of each step, those of host 0 first; and by host."""
    by_step, hosts = collections.defaultdict(list), []
    for path in sorted(folder.glob(f"{phase}_*.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        hosts.append({tuple(i) for _, ids in rows for i in ids})
        for step, ids in rows:
            by_step[step] += [tuple(i) for i in ids]
    return by_step, hosts


@pytest.mark.slow
def test_two_hosts_die_resume_and_one_goes_on(toy_data, tmp_path, worker):
    """The uninterrupted run and the broken one see the same rows at every step; hosts share no
    episode; the parameters agree to rounding, as sums over devices are taken in another order."""
    changes = {"data.placement": "stream", "train.checkpoint_every": 5, "train.steps": 30}
    job = {"data": toy_data, "changes": changes}
    whole = job | {"workdir": str(tmp_path / "whole"), "params": str(tmp_path / "whole.npz")}
    _hosts(worker, whole, tmp_path, "whole")

    broken = job | {"workdir": str(tmp_path / "broken"), "params": str(tmp_path / "broken.npz")}
    _hosts(worker, broken | {"kill": ["step", 8]}, tmp_path, "first", dies=True)
    _hosts(worker, broken | {"kill": ["step", 13]}, tmp_path, "second", dies=True)
    worker(broken | {"ids": str(tmp_path / "third_0.jsonl")}, 4)(0)

    expected, hosts = _ids(tmp_path, "whole")
    assert sorted(expected) == list(range(1, 31))
    episodes = [{row[:2] for row in rows} for rows in hosts]
    assert not episodes[0] & episodes[1]
    trained, begun = {}, []
    for phase in ("first", "second", "third"):
        found, _ = _ids(tmp_path, phase)
        begun.append(min(found))
        trained |= found  # what a checkpoint did not reach is trained once more
        for step, rows in found.items():  # a host that died may have seen a step less
            assert rows in (expected[step], expected[step][:8], expected[step][8:])
    # A checkpoint that was under way when its writer died does not count.
    assert 1 == begun[0] <= begun[1] <= begun[2] and begun[2] > 1
    assert trained == expected

    # The epoch of the clean data, which all three took part in: every step of every episode once.
    dataset = rlds.open_dataset(toy_data["good"], "train", last_step="drop")
    lengths = [len(e["steps"]["action"]) for e in dataset]
    everything = {(GOOD, i, t) for i, length in enumerate(lengths) for t in range(length)}
    epoch = set()
    for lane in range(2):
        rows = [row for step in sorted(trained) for row in trained[step][8 * lane : 8 * lane + 8]]
        rows = [row for row in rows if row[0] == GOOD]
        size = len(set(rows))
        assert len(rows) > size and len(set(rows[:size])) == size
        epoch |= set(rows)
    assert epoch == everything
    first, second = (np.load(tmp_path / f"{name}.npz") for name in ("whole", "broken"))
    for name in first.files:
        difference = np.linalg.norm(first[name] - second[name])
        assert difference <= 1e-4 * np.linalg.norm(first[name]), name
