"""Few files are open at a time, and what the machine lacks is never a fault of a file."""

import contextlib
import errno
import gc
import os
import resource
import subprocess
import sys

import numpy as np
import pytest

from ambient_jax.data import files, records, rlds
from ambient_jax.data.write import rlds_features, write_dataset
from ambient_jax.open_x import source as open_x

SHARDS = 100
MACHINE = [
    *(errno.EMFILE, errno.ENFILE, errno.EIO, errno.EACCES, errno.ENOSPC, errno.ENOMEM),
    *(errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.ENOTCONN, errno.EBUSY),
]

# Reads two data sets of more shards than it may open: in order, at random, and all at once.
FEW_FILES = """
import resource, sys
import numpy as np
from ambient_jax.data import rlds
resource.setrlimit(resource.RLIMIT_NOFILE, (50, 50))
for path in sys.argv[1:]:
    dataset = rlds.open_dataset(path)
    expected = list(range(len(dataset)))
    number = lambda episode: int(episode["steps"]["action"][0, 0])
    assert [number(dataset[i]) for i in expected] == expected
    order = np.random.default_rng(0).permutation(len(dataset)).tolist()
    assert [number(dataset[i]) for i in order] == order
    streams = [dataset.stream(shard) for shard in range(len(dataset.shard_files))]
    found = [[number(next(stream)[1]) for stream in streams] for _ in range(2)]
    assert sorted(sum(found, [])) == expected, found
print("read")
"""


@pytest.fixture(scope="module", params=["array_record", "tfrecord"])
def many(request, tmp_path_factory):
    """A data set of two episodes a shard; the action tells the episode's number."""
    state = np.zeros((2, 2), np.float32)
    flag = np.zeros(2, bool)

    def episode(number):
        action = np.zeros((2, 7), np.float32)
        action[:, 0] = number
        steps = {"observation": {"state": state}, "action": action}
        steps |= {name: flag for name in ("is_first", "is_last", "is_terminal")}
        return {"steps": steps | {name: state[:, 0] for name in ("reward", "discount")}}

    return write_dataset(
        tmp_path_factory.mktemp("many"),
        name="toy",
        version="1.0.0",
        features=rlds_features({"state": state[0]}, np.zeros(7, np.float32)),
        episodes=[episode(i) for i in range(2 * SHARDS)],
        file_format=request.param,
        shards=SHARDS,
    )


@pytest.fixture
def limit():
    """Sets how many files this process may open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda number: resource.setrlimit(resource.RLIMIT_NOFILE, (number, before[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def open_files(folder):
    """Counts the files below a folder that this process has open."""
    paths = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the list's own, or another thread's
            paths.append(os.readlink(f"/proc/self/fd/{number}"))
    return sum(path.startswith(f"{folder}{os.sep}") for path in paths)


def lowest_free():
    """The number that the next open file has; a limit of as many lets none be opened."""
    number = os.open(os.devnull, os.O_RDONLY)
    os.close(number)
    return number


def numbers(dataset):
    found = (e for shard in range(len(dataset.shard_files)) for _, e in dataset.stream(shard))
    return [int(episode["steps"]["action"][0, 0]) for episode in found]


def test_more_shards_than_files_may_be_open(many):
    done = subprocess.run([sys.executable, "-c", FEW_FILES, many], capture_output=True, text=True)
    assert done.stdout == "read\n", done.stderr[-2000:]


def test_a_data_set_that_is_gone_holds_no_files(many):
    files.close_parked()
    dataset = rlds.open_dataset(many)
    streams = [dataset.stream(shard) for shard in range(20)]
    for stream in streams:
        next(stream)
    assert open_files(many) >= 20
    del dataset, streams, stream
    gc.collect()
    assert open_files(many) == 0


def skipping(path):
    """The data set in a common form that leaves out shards that are damaged."""
    spec = {"hz": 10, "action": "xyz action[0:3]; rpy action[3:6]; grip action[6]"}
    form = open_x.CommonForm(state_width=0, on_problem={"shard": "skip"})
    return open_x.open_source(path, "train", spec, form)


def test_no_file_left_is_told_and_nothing_is_skipped(many, limit):
    dataset, common = rlds.open_dataset(many), skipping(many)
    files.close_parked()
    lowest = lowest_free()
    limit(lowest)
    told = "Too many open files .this process may have [0-9]+, see 'ulimit -n'"
    acts = [lambda: dataset[0], lambda: next(dataset.stream(3)), lambda: next(common.examine(5))]
    for act in acts:
        with pytest.raises(OSError, match=told) as caught:
            act()
        assert caught.value.errno == errno.EMFILE
    limit(lowest + 40)
    assert numbers(dataset) == list(range(2 * SHARDS))
    found = [e for shard in range(SHARDS) for _, e, _ in common.examine(shard)]
    assert [int(e["steps"]["action"][0, 0]) for e in found] == list(range(2 * SHARDS))


@pytest.mark.parametrize("code", MACHINE, ids=errno.errorcode.get)
def test_what_the_machine_lacks(many, code, monkeypatch):
    """As Python says it of a TFRecord file, and as the array_record library does."""
    dataset = rlds.open_dataset(many)

    def fails(*_, **__):
        raise OSError(code, os.strerror(code))

    class Reader:
        def __init__(self, path, **_):
            self.path = path

        def ok(self):
            return False

        def read(self, _):
            raise RuntimeError(f"pread() failed: {os.strerror(code)}; reading {self.path}")

    monkeypatch.setattr(records, "read_record", fails)
    monkeypatch.setattr(records.array_record_module, "ArrayRecordReader", Reader)
    common = skipping(many)
    acts = [lambda: dataset[1], lambda: next(dataset.stream(0)), lambda: next(common.examine(0))]
    for act in acts:
        with pytest.raises(OSError, match="may be sound") as caught:
            act()
        assert caught.value.errno == code
        assert "-00000-of-00100" in str(caught.value) and os.strerror(code) in str(caught.value)
        assert type(caught.value) is type(OSError(code, ""))  # PermissionError of EACCES, ...


def test_no_memory_is_no_damage(many, monkeypatch):
    dataset = rlds.open_dataset(many)

    def fails(_):
        raise MemoryError

    monkeypatch.setattr(dataset, "_decode", fails)
    with pytest.raises(OSError, match="Cannot allocate memory.*may be sound"):
        dataset[0]


def test_metadata_and_sizes(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b'{"a": [1, {"b": null}]}')
    assert files.read_json(str(path)) == {"a": [1, {"b": None}]}
    files.check_file(str(path))
    files.check_file("gs://bucket/of/nobody")
    deep = files.JSON_LEVELS
    path.write_text('{"a": ' * (deep - 1) + "1" + "}" * (deep - 1))
    assert files.read_json(str(path))
    path.write_text('{"a": ' * (deep + 1) + "1" + "}" * (deep + 1))
    with pytest.raises(ValueError, match="nested more than 100 levels deep"):
        files.read_json(str(path))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_of_a_changed_file_are_one_kind_of_error(tmp_path, save):
    path, arrays = tmp_path / "x.npz", {"a": np.arange(60.0), "b": np.arange(3)}
    save(path, **arrays)
    found = files.read_arrays(path)
    assert found.keys() == arrays.keys() and (found["a"] == arrays["a"]).all()
    whole = path.read_bytes()
    changed = (whole[:at] + bytes([whole[at] ^ 5]) + whole[at + 1 :] for at in range(len(whole)))
    told = 0
    for damaged in [*changed, b"", whole[:50], whole[:-9]]:
        path.write_bytes(damaged)
        try:
            files.read_arrays(path)  # not every byte matters
        except ValueError as error:
            assert "\n" not in str(error)
            told += str(error).startswith(f"{path} is damaged, no .npz file: ")
    assert told > len(whole) / 2
    path.unlink()
    with pytest.raises(FileNotFoundError):
        files.read_arrays(path)


def test_streams_go_on_where_they_were(many, monkeypatch):
    files.close_parked()
    dataset = rlds.open_dataset(many)
    monkeypatch.setattr(files, "_room", lambda: 2)
    streams = [dataset.stream(shard) for shard in range(8)]
    for step in range(2):
        for shard, stream in enumerate(streams):
            index, episode = next(stream)
            assert index == episode["steps"]["action"][0, 0] == 2 * shard + step
            assert open_files(many) <= 2
    del dataset, streams, stream
    gc.collect()
    assert open_files(many) == 0
