"""What is stepped over changes nothing about what is wanted."""

import zlib

import pytest
from google.protobuf import message
from tensorflow_datasets.proto import tf_example_pb2

from ambient_jax.data import example_wire

NAMES = ("steps/a", "steps/a/shape", "steps/ab", "b", "é")


@pytest.fixture
def example():
    """Features whose lengths take one to four bytes to tell."""
    made = tf_example_pb2.Example()
    for i, name in enumerate(NAMES):
        made.features.feature[name].bytes_list.value.append(bytes([i]) * 120 ** min(i, 3))
    made.features.feature["numbers"].float_list.value.extend([1.0, 2.0])
    made.features.feature["empty"].SetInParent()
    return made


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ((), ()),
        (("steps/a",), ("steps/a", "steps/a/shape")),
        (("steps",), NAMES[:3]),
        (("numbers", "empty", "é", "absent"), ("numbers", "empty", "é")),
        (None, (*NAMES, "numbers", "empty")),
    ],
)
def test_the_wanted_features_are_those_of_the_whole(example, paths, expected):
    found = example_wire.parse(example.SerializeToString(), paths)
    assert set(found.feature) == set(expected)
    for name in expected:
        assert found.feature[name] == example.features.feature[name]


def test_another_layout_is_parsed_as_a_whole(example):
    """The value before its name, as an encoder may write it."""
    name, value = b"\x0a\x01x", b"\x12" + bytes([2, 0x0A, 0])
    entry = value + name
    other = b"\x0a" + bytes([len(entry) + 2, 0x0A, len(entry)]) + entry
    for record in (other, example.SerializeToString() + other):
        found = example_wire.parse(record, ("x",))
        assert found.feature["x"].WhichOneof("kind") == "bytes_list"


def test_every_cut_is_noticed(example):
    whole = example.SerializeToString()
    for cut in (1, 2, 5, 40, 1000, len(whole) // 2, len(whole) - 1):
        with pytest.raises(message.DecodeError):
            example_wire.parse(whole[:cut], ("b",))
    with pytest.raises(message.DecodeError):
        example_wire.parse(b"no example at all", ("b",))


def test_a_length_without_end_is_refused_at_once():
    """Ten bytes of seven bits are more than 64; as many as follow would cost their square."""
    endless = b"\x0a" + b"\xff" * 2_000_000
    with pytest.raises(message.DecodeError):
        example_wire.parse(endless, ("b",))


def test_inflate_is_bounded(monkeypatch):
    blobs = [zlib.compress(bytes([i]) * 1000) for i in range(3)]
    expected = [bytes([i]) * 1000 for i in range(3)]
    assert example_wire.inflate(blobs, 1000) == expected
    assert example_wire.inflate(blobs, None) == expected
    with pytest.raises(ValueError, match="become more than 999, which its shape has"):
        example_wire.inflate(blobs, 999)
    with pytest.raises(ValueError, match="are cut short"):
        example_wire.inflate([blobs[0][:-5]], 1000)
    monkeypatch.setattr(example_wire, "_INFLATED_BYTES", 2999)
    monkeypatch.setattr(example_wire, "_INFLATED_RATIO", 1)
    with pytest.raises(ValueError, match="become more than 999, which is too much for one field"):
        example_wire.inflate(blobs, None)  # all of them together have 3000 bytes
