import numpy as np
import pytest
import tensorflow_datasets as tfds

from ambient_jax.data import example_proto, features


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
    return features.rlds_features(
        {"state": np.zeros(2, np.float32)},
        np.zeros(3, np.float32),
        episode_metadata={"seed": np.int64, "who": str},
    )


def test_an_encoded_episode_decodes_to_itself():
    record = example_proto.EpisodeEncoder(_features())(_episode())
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
        example_proto.EpisodeEncoder(_features())(episode)


@pytest.mark.parametrize("encoding", ["png", "jpeg"])
def test_images_survive_encoding(encoding):
    image = np.tile(np.arange(0, 256, 8, dtype=np.uint8)[:, None, None], (1, 32, 3))
    feature = tfds.features.Image(shape=(32, 32, 3), encoding_format=encoding)
    decoded = example_proto.decode_image(example_proto.encode_image(image, feature), feature)
    tolerance = 0 if encoding == "png" else 8
    assert np.abs(decoded.astype(int) - image).max() <= tolerance
