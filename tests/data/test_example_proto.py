"""Episodes to and from records, and the parser that steps over what nobody wants."""

import zlib

import numpy as np
import pytest
import tensorflow_datasets as tfds
from google.protobuf import message
from tensorflow_datasets.proto import tf_example_pb2

from ambient_jax.data import example_encode, example_proto, features, write

NAMES = ("steps/a", "steps/a/shape", "steps/ab", "b", "é")


def _episode(steps=4):
    return {
        "steps": {
            "observation": {"state": np.arange(2.0 * steps, dtype=np.float32).reshape(steps, 2)},
            "action": np.ones((steps, 3), np.float32),
            "is_first": np.arange(steps) == 0,
            "is_last": np.arange(steps) == steps - 1,
            "is_terminal": np.zeros(steps, bool),
            "reward": np.linspace(0, 1, steps, dtype=np.float32),
            "discount": np.ones(steps, np.float32),
        },
        "episode_metadata": {"seed": np.int64(7), "who": "human"},
    }


def _features():
    return write.rlds_features(
        {"state": np.zeros(2, np.float32)},
        np.zeros(3, np.float32),
        episode_metadata={"seed": np.int64, "who": str},
    )


def test_an_encoded_episode_decodes_to_itself():
    record = example_encode.EpisodeEncoder(_features())(_episode())
    decoded = example_proto.EpisodeDecoder(_features())(record)
    flat, expected = features.flatten(decoded), features.flatten(_episode())
    assert flat.keys() == expected.keys()
    for name, value in expected.items():
        if name == "episode_metadata/who":
            assert flat[name] == b"human"
        else:
            np.testing.assert_array_equal(flat[name], value, err_msg=name)
            assert flat[name].dtype == np.asarray(value).dtype, name


def test_steps_of_unequal_length_are_named():
    episode = _episode()
    episode["steps"]["action"] = episode["steps"]["action"][:-1]
    with pytest.raises(ValueError, match="action"):
        example_encode.EpisodeEncoder(_features())(episode)


@pytest.mark.parametrize("encoding", ["png", "jpeg"])
def test_images_survive_encoding(encoding):
    image = np.tile(np.arange(0, 256, 8, dtype=np.uint8)[:, None, None], (1, 32, 3))
    feature = tfds.features.Image(shape=(32, 32, 3), encoding_format=encoding)
    decoded = example_proto.decode_image(example_encode.encode_image(image, feature), feature)
    tolerance = 0 if encoding == "png" else 8
    assert np.abs(decoded.astype(int) - image).max() <= tolerance


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
    found = example_proto.parse(example.SerializeToString(), paths)
    assert set(found.feature) == set(expected)
    for name in expected:
        assert found.feature[name] == example.features.feature[name]


def test_another_layout_is_parsed_as_a_whole(example):
    """The value before its name, as an encoder may write it."""
    name, value = b"\x0a\x01x", b"\x12" + bytes([2, 0x0A, 0])
    entry = value + name
    other = b"\x0a" + bytes([len(entry) + 2, 0x0A, len(entry)]) + entry
    for record in (other, example.SerializeToString() + other):
        found = example_proto.parse(record, ("x",))
        assert found.feature["x"].WhichOneof("kind") == "bytes_list"


def test_every_cut_is_noticed(example):
    whole = example.SerializeToString()
    for cut in (1, 2, 5, 40, 1000, len(whole) // 2, len(whole) - 1):
        with pytest.raises(message.DecodeError):
            example_proto.parse(whole[:cut], ("b",))
    with pytest.raises(message.DecodeError):
        example_proto.parse(b"no example at all", ("b",))


def test_a_length_without_end_is_refused_at_once():
    """Ten bytes of seven bits are more than 64; as many as follow would cost their square."""
    endless = b"\x0a" + b"\xff" * 2_000_000
    with pytest.raises(message.DecodeError):
        example_proto.parse(endless, ("b",))


def test_inflate_is_bounded(monkeypatch):
    blobs = [zlib.compress(bytes([i]) * 1000) for i in range(3)]
    expected = [bytes([i]) * 1000 for i in range(3)]
    assert example_proto.inflate(blobs, 1000) == expected
    assert example_proto.inflate(blobs, None) == expected
    with pytest.raises(ValueError, match="become more than 999, which its shape has"):
        example_proto.inflate(blobs, 999)
    with pytest.raises(ValueError, match="are cut short"):
        example_proto.inflate([blobs[0][:-5]], 1000)
    monkeypatch.setattr(example_proto, "_INFLATED_BYTES", 2999)
    monkeypatch.setattr(example_proto, "_INFLATED_RATIO", 1)
    with pytest.raises(ValueError, match="become more than 999, which is too much for one field"):
        example_proto.inflate(blobs, None)  # all of them together have 3000 bytes
