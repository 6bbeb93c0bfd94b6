"""Fields of RLDS as LeRobot has them."""

import json

import numpy as np
import pytest
import tensorflow_datasets as tfds

from ambient_jax.data import storage
from ambient_jax.data.features import flatten
from ambient_jax.data.storage import lerobot_schema
from ambient_jax.data.storage.lerobot_write import write_lerobot
from tests.data.storage import lerobot_folders as folders
from tests.data.storage.compared import storage_array, write_nested, write_rlds


def test_rlds_with_nested_names(tmp_path, caplog):
    data = write_nested(tmp_path)
    with caplog.at_level("WARNING", logger="absl"):
        new = storage.open_dataset(write_lerobot(tmp_path / "new", data, hz=12.5))
    assert new.hz == 12.5
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    warned = "\n".join(warnings)
    for path in ("steps/observation/depth", "episode_metadata/file", "steps/index"):
        assert f"{path} is left out" in warned
    assert len(warnings) == 3
    for i in range(2):
        old, got = flatten(data[i]), flatten(new[i])
        for path in ("action", "reward", "is_last", "language_instruction", "observation/matrix"):
            expected = old[f"steps/{path}"]
            assert got[f"steps/{path}"].dtype == expected.dtype
            np.testing.assert_array_equal(got[f"steps/{path}"], expected)
        left = got["steps/observation/joints.left"]
        np.testing.assert_array_equal(left, old["steps/observation/joints/left"])
        counter = got["steps/observation/counter"]
        np.testing.assert_array_equal(counter, old["steps/observation/counter"])
    assert new.meta.tasks == {0: "task 0", 1: "task 1"}
    assert new[1]["steps"]["index"].tolist() == [5, 6, 7]


@pytest.mark.parametrize(
    ("shape", "names", "expected"),
    [
        ((3, 48, 64), (), (48, 64, 3)),
        ((48, 64, 3), (), (48, 64, 3)),
        ((1, 48, 64), (), (48, 64, 1)),
        ((3, 48, 64), ("channels", "height", "width"), (48, 64, 3)),
        ((48, 64, 3), ("height", "width", "channels"), (48, 64, 3)),
    ],
)
def test_the_shape_of_a_picture_with_and_without_names(shape, names, expected):
    assert lerobot_schema.picture_shape({"shape": shape, "names": names}) == expected


def test_two_fields_of_one_name(tmp_path):
    tensor = tfds.features.Tensor(shape=(1,), dtype=np.float32)
    one = np.zeros((2, 1), np.float32)
    steps = {"observation": {"a": {"b": one}, "a.b": one}, "action": np.zeros((2, 2), np.float32)}
    write_rlds(tmp_path, [{"steps": steps}], {"a": {"b": tensor}, "a.b": tensor})
    data = storage.open_dataset(tmp_path / "set", last_step="keep")
    with pytest.raises(ValueError, match="would both be 'observation.a.b'"):
        write_lerobot(tmp_path / "new", data, hz=5)


@pytest.mark.parametrize("videos", ["lossless", ""])
def test_grey_pictures_other_texts_and_the_robot(tmp_path, videos):
    grey = np.stack([folders.picture(0, i, size=(16, 24))[..., :1] for i in range(3)])
    texts = np.array([b"go", b"go", b"stop"], object)
    observation = {"grey": tfds.features.Image(shape=(16, 24, 1)), "told": tfds.features.Text()}
    steps = {"observation": {"grey": grey, "told": texts}, "action": np.zeros((3, 2), np.float32)}
    write_rlds(tmp_path, [{"steps": steps}], observation)
    data = storage.open_dataset(tmp_path / "set", decode_images=False, last_step="keep")
    told = "steps/observation/told"
    options = {"hz": 5, "videos": videos, "language": told, "robot_type": "arm"}
    new = storage.open_dataset(write_lerobot(tmp_path / "new", data, **options))
    flat = flatten(new[0])
    got = storage_array(flat["steps/observation/grey"])
    np.testing.assert_array_equal(
        got.reshape(3, 16, 24, -1), np.repeat(grey, got[0].size // 384, -1)
    )
    assert flat["steps/language_instruction"].tolist() == flat[told].tolist() == texts.tolist()
    assert new.meta.about["robot_type"] == "arm" and new.meta.episodes[0]["tasks"] == ["go", "stop"]
    info = json.loads((tmp_path / "new/meta/info.json").read_text())
    shape = info["features"]["observation.grey"]["shape"]
    assert shape == ([16, 24, 3] if videos else [16, 24, 1])
