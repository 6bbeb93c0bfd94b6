"""Objects in emulated buckets: right bytes whatever the store does, or one line."""

import concurrent.futures
import os
import pathlib
import random
import threading

import numpy as np
import pytest

from ambient_jax.data import bucket, files, paths, rlds
from ambient_jax.data.bucket import BucketPath
from tests import emulated


def test_paths():
    path = BucketPath.of("gs://b//run/./metrics.jsonl/")
    assert str(path) == "gs://b/run/metrics.jsonl" == os.fspath(path)
    assert (path.name, path.suffix, str(path.parent)) == ("metrics.jsonl", ".jsonl", "gs://b/run")
    assert str(path.with_suffix("")) == "gs://b/run/metrics"
    assert str(path.with_name("x")) == "gs://b/run/x"
    assert str(BucketPath.of("s3://b") / "run" / "" / "4") == "s3://b/run/4"
    assert path.relative_to("gs://b/run").as_posix() == "metrics.jsonl"
    assert paths.folder("s3://b/x") == BucketPath("s3", "b", "x")
    for wrong in ("gs://", "az://b", "b/x"):
        with pytest.raises(ValueError, match="is no bucket, expected gs:// or s3://"):
            BucketPath.of(wrong)


def test_objects_and_folders(place):
    folder, _ = place
    assert not folder.exists() and not folder.is_dir() and not list(folder.iterdir())
    data = bytes(range(256)) * 40 + b"\r\n--x\r\n"
    (folder / "a b/c é.bin").write_bytes(data)
    paths.write_text(folder / "config.json", "{}\n")
    assert folder.is_dir() and not folder.is_file() and folder.exists()
    assert [p.name for p in folder.iterdir()] == ["a b", "config.json"]
    assert folder.files() == {"a b/c é.bin": len(data), "config.json": 3}
    assert (folder / "a b/c é.bin").read_bytes() == data
    assert files.read_json(f"{folder / 'config.json'}") == {}
    version = (folder / "config.json").version()
    (folder / "config.json").write_text('{"a": 1}')
    assert (folder / "config.json").version() != version
    with pytest.raises(FileNotFoundError, match=f"{folder / 'none'} does not exist"):
        files.open_file(f"{folder / 'none'}")
    (folder / "config.json").unlink()
    (folder / "config.json").unlink()
    folder.rmtree()
    assert not folder.exists()


def test_of_many_that_create_an_object_one_does(place):
    folder, faults = place
    faults.rate = 0.2
    for n in range(5):
        start = threading.Barrier(6)

        def create(k, path=folder / str(n), start=start):
            start.wait()
            return path.create(f"{k}".encode())

        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            made = list(pool.map(create, range(6)))
        assert sum(made) == 1
        faults.rate, rate = 0.0, faults.rate
        assert (folder / str(n)).read_text() == str(made.index(True))
        faults.rate = rate


@pytest.mark.slow
def test_a_thousand_faults_and_no_wrong_byte(place, tmp_path):
    """Ranges of all sizes from many places, whole objects and copies, through a store that fails
    in a third of the requests."""
    folder, faults = place
    content = random.Random(1).randbytes(1_000_000)
    faults.rate = 0.35

    def read(seed):
        draw = random.Random(seed)
        path = folder / f"{seed}.bin"
        path.write_bytes(content)
        with files.open_file(str(path)) as file:
            for _ in range(40):
                start = draw.randrange(len(content))
                size = draw.choice([12, 4096, 70_000, 400_000])
                if draw.random() < 0.5:  # else goes on where it is
                    file.seek(start)
                start = file.tell()
                assert file.read(size) == content[start : start + size]
            file.seek(0)
            assert file.read() == content
        path.download(tmp_path / path.name)
        assert (tmp_path / path.name).read_bytes() == content == path.read_bytes()
        assert f"{seed}.bin" in folder.files()
        path.unlink()
        return True

    seed = 0
    while faults.made.total() < 1000:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            assert all(pool.map(read, range(seed, seed + 4)))
        seed += 4
    assert min(faults.made[kind] for kind in emulated.KINDS) > 50


@pytest.mark.parametrize("kind", ["503", "reset", "cut", "few"])
def test_what_fails_for_ever_is_one_line_with_the_object(place, monkeypatch, kind):
    folder, faults = place
    path = folder / "x.bin"
    path.write_bytes(b"1234" * 1000)
    monkeypatch.setattr(bucket, "PATIENCE", 0.02)
    file = path.open()
    faults.rate, faults.kinds = 1.0, (kind,)
    with pytest.raises(bucket.StoreError) as caught:
        file.read(4000)
    line = str(caught.value)
    assert line.startswith(f"{path}: it cannot be read, the store has not answered ")
    assert "\n" not in line and "carries on" in line and len(line) < 400
    with pytest.raises(OSError, match=f"{path}: it cannot be read"), files.named("other"):
        file.read(4000)


def test_a_bucket_of_nobody(place):
    other = BucketPath.of(f"{place[0].scheme}://no-such-bucket/x")
    with pytest.raises(FileNotFoundError, match=f"{other} does not exist in the store"):
        other.read_bytes()
    for act, what in ((lambda: other.write_bytes(b""), "written"), (other.exists, "listed")):
        told = f"{other} cannot be {what}: there is no bucket {other.parent}"
        with pytest.raises(FileNotFoundError, match=told):
            act()


def test_a_copy_is_made_once_for_each_version(place, tmp_path):
    path = place[0] / "data.array_record"
    path.write_bytes(b"1")
    copy = bucket.fetched(path, tmp_path)
    assert copy.read_bytes() == b"1" and copy.name == path.name
    copy.write_bytes(b"kept")
    assert bucket.fetched(path, tmp_path).read_bytes() == b"kept"
    path.write_bytes(b"2")
    assert bucket.fetched(path, tmp_path).read_bytes() == b"2"
    assert len(list(tmp_path.rglob("*.array_record"))) == 2


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_a_data_set_in_a_bucket_is_the_one_on_a_disk(place, write_source, file_format):
    folder, faults = place
    path = pathlib.Path(write_source("good", [5, 3, 6], file_format=file_format, shards=2))
    for file in path.iterdir():
        (folder / "good" / "1.0.0" / file.name).upload(file)
    faults.rate = 0.1
    local, remote = rlds.open_dataset(path), rlds.open_dataset(f"{folder / 'good'}")
    assert remote.directory == f"{folder / 'good' / '1.0.0'}"
    assert remote.fingerprint == local.fingerprint and len(remote) == 3
    streamed = [episode for shard in range(2) for _, episode in remote.stream(shard)]
    for n in (2, 0, 1):
        for episode in (remote[n], streamed[n]):
            action = episode["steps"]["action"]
            np.testing.assert_array_equal(action, local[n]["steps"]["action"])
    faults.rate = 0.0
    shard = next(name for name in (folder / "good").files() if file_format in name)
    (folder / "good" / shard).unlink()
    told = f"shard {folder / 'good' / shard} is missing, which dataset_info.json promises"
    with pytest.raises(rlds.MissingShardError, match=told):
        rlds.open_dataset(f"{folder / 'good'}")
    with pytest.raises(FileNotFoundError, match=f"{folder / 'god'} does not exist; did you mean"):
        rlds.open_dataset(f"{folder / 'god'}")
