"""TFRecord framing against published crc32c values, and every way a file can be damaged."""

import io
import pathlib

import pytest

from ambient_jax.data import records


@pytest.mark.parametrize(
    ("data", "crc"),
    [  # RFC 3720, B.4
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (b"", 0),
    ],
)
def test_crc32c_published(data, crc):
    rotated = (crc >> 15) | (crc << 17 & 0xFFFFFFFF)
    assert records.masked_crc32c(data) == (rotated + 0xA282EAD8) % 2**32


@pytest.fixture
def framed(tmp_path):
    path = tmp_path / "x.tfrecord"
    writer = records.TFRecordWriter(str(path))
    for size in (10, 0, 300):
        writer.write(bytes([size % 256]) * size)
    writer.close()
    return path.read_bytes()


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Writes a file "x" of these bytes and reads some of its records."""
    monkeypatch.chdir(tmp_path)

    def read(data, start=0, count=3):
        pathlib.Path("x").write_bytes(data)
        shards = records.TFRecords(["x"], [start + count])
        return [shards.read(0, i) for i in range(start, start + count)]

    return read


def test_round_trip(framed, read):
    assert [len(r) for r in read(framed)] == [10, 0, 300]
    assert [len(r) for r in read(framed, 1, 1)] == [0]
    assert records.record_offsets(io.BytesIO(framed), "x") == [0, 26, 42]


def test_skipped_data_is_not_read(framed, read):
    damaged = bytearray(framed)
    damaged[15] ^= 1  # in the data of record 0
    assert [len(r) for r in read(bytes(damaged), 1, 2)] == [0, 300]
    with pytest.raises(ValueError, match="x: corrupt data of record 0"):
        read(bytes(damaged))


@pytest.mark.parametrize(
    ("cut", "match"),
    [
        (45, "x: truncated in the header of record 2"),
        (60, "x: truncated in record 2, 6 of 300 data bytes"),
        (356, "x: truncated in record 2, 300 of 300 data bytes"),
        (42, "x: ends after 2 records, at least 3 expected"),
    ],
)
def test_truncated(framed, read, cut, match):
    with pytest.raises(ValueError, match=match):
        read(framed[:cut])


def test_truncated_before_the_start(framed, read):
    with pytest.raises(ValueError, match="x: ends after 2 records, at least 4 expected"):
        read(framed[:42], 3, 1)


def test_offsets_of_a_truncated_file(framed):
    with pytest.raises(ValueError, match="x: truncated in record 2, 296 of 300 data bytes"):
        records.record_offsets(io.BytesIO(framed[:-8]), "x")


def test_corrupt_length(framed, read):
    damaged = bytearray(framed)
    damaged[26] ^= 1
    with pytest.raises(ValueError, match="x: corrupt length of record 1"):
        read(bytes(damaged))


def test_never_overwrites(tmp_path):
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(FileExistsError):
        records.TFRecordWriter(str(tmp_path / "x"))
