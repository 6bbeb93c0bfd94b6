"""Objects in emulated buckets: right bytes whatever the store does, or one line."""

import concurrent.futures
import os
import pathlib
import random
import re
import socket
import threading

import numpy as np
import pytest

from ambient_jax.data import bucket, files, paths, rlds, stores
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


def test_a_local_file_that_is_gone_is_no_absent_bucket(place, tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.bin") as caught:
        (place[0] / "x").upload(tmp_path / "gone.bin")
    assert "bucket" not in str(caught.value)


def test_objects_that_no_path_names_are_left_out(place):
    folder, _ = place
    (folder / "a" / "b").write_bytes(b"1")
    store = stores.get(folder.scheme)
    for key in ("a//b", "a/"):
        store.write(folder.bucket, f"{folder.key}/{key}", b"22", False)
    assert [p.name for p in (folder / "a").iterdir()] == ["b"]
    assert folder.files() == {"a/b": 1} and set(folder.versions()) == {"a/b"}


def _fails(monkeypatch, settings, url="s3://b/x"):
    """Returns the line of a request with settings of Amazon's variables and no others."""
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in ({"AWS_EC2_METADATA_DISABLED": "true"} | settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(bucket, "PATIENCE", 0.0)
    monkeypatch.setattr(bucket, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(bucket, "_silent", set())
    stores.forget()
    try:
        with pytest.raises(bucket.StoreError) as caught:
            BucketPath.of(url).read_bytes()
    finally:
        stores.forget()
    return str(caught.value)


KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"AWS_PROFILE": "nope"}, r"profile \(nope\) could not be found"),
        ({**KEYS, "AWS_DEFAULT_REGION": "no region"}, "region_name 'no region'"),
        ({**KEYS, "AWS_ENDPOINT_URL": "nonsense"}, "Invalid endpoint: nonsense"),
        ({"AWS_DEFAULT_REGION": "us-east-1"}, "Unable to locate credentials"),
    ],
)
def test_settings_of_the_client_that_are_wrong_are_refused_at_once(monkeypatch, settings, why):
    pytest.importorskip("boto3")
    settings = {"AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_CONFIG_FILE": os.devnull} | settings
    line = _fails(monkeypatch, settings)
    assert re.match(f"s3://b/x: it cannot be read, the store refuses .*{why}", line)


def _closed():
    """Returns the address of a port where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "HTTP_PROXY"])
def test_an_address_where_nobody_answers_is_tried_again(monkeypatch, variable):
    pytest.importorskip("boto3")
    settings = {"AWS_ENDPOINT_URL": "http://s3.nowhere", "NO_PROXY": "", variable: _closed()}
    line = _fails(monkeypatch, KEYS | settings)
    assert "the store has not answered 4 requests" in line and "onnect to" in line


def test_a_server_without_a_certificate_is_tried_again(monkeypatch):
    pytest.importorskip("boto3")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            while True:
                try:
                    connection = server.accept()[0]
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        address = f"https://127.0.0.1:{server.getsockname()[1]}"
        line = _fails(monkeypatch, KEYS | {"AWS_ENDPOINT_URL": address})
        server.shutdown(socket.SHUT_RDWR)
    assert "the store has not answered 4 requests" in line and "SSL" in line


def test_credentials_of_google_that_cannot_be_renewed_now_are_tried_again(monkeypatch):
    pytest.importorskip("google.cloud.storage")
    from google.auth import exceptions

    monkeypatch.setenv("STORAGE_EMULATOR_HOST", _closed())
    stores.forget()
    client = stores.get("gs")
    stores.forget()
    lost = exceptions.RefreshError("no answer")
    lost.__cause__ = exceptions.TransportError("reset")
    for error in (lost, exceptions.RefreshError("503", retryable=True)):
        with pytest.raises(stores.AgainError):
            client.raise_for(error)
    with pytest.raises(stores.RefusedError):
        client.raise_for(exceptions.RefreshError("invalid_grant"))


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
