"""Fixtures: the features of the real data sets, values in range, the same again for one seed."""

import numpy as np
import pytest

from ambient_jax.data import rlds
from ambient_jax.data.features import flatten, leaves
from ambient_jax.open_x import fixtures, registry


def test_features_as_stored():
    found = leaves(fixtures.features("bc_z"))
    # The names of these features hold a slash themselves.
    steps = fixtures.features("bc_z")["steps"].feature
    assert "present/xyz" in steps["observation"] and "future/target_close" in steps["action"]
    assert found["steps/action/future/target_close"].dtype == np.int64
    assert found["steps/observation/image"].shape == (171, 213, 3)
    found = leaves(fixtures.features("kuka"))  # stored compressed, read as numbers
    assert found["steps/observation/gripper_closed"].kind == "packed"
    found = leaves(fixtures.features("droid"))
    assert found["steps/action_dict/cartesian_velocity"].shape == (6,)
    assert found["steps/observation/wrist_image_left"].kind == "image"
    assert found["episode_metadata/file_path"].sequence == ""
    found = leaves(fixtures.features("maniskill_dataset_converted_externally_to_rlds"))
    assert found["steps/observation/depth"].dtype == np.uint16


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_written_and_read(file_format, tmp_path):
    path = fixtures.write_fixture(
        tmp_path, "taco_play", lengths=(4, 3, 5), file_format=file_format, shards=2
    )
    assert path == tmp_path / "taco_play/0.1.0"
    dataset = rlds.open_dataset(path)
    assert (dataset.num_episodes, len(dataset.shard_files)) == (3, 2)
    assert dataset.file_format == file_format
    assert [len(e["steps"]["is_first"]) for e in dataset] == [4, 3, 5]
    observation = dataset[0]["steps"]["observation"]
    assert observation["rgb_static"].shape == (4, 150, 200, 3)
    assert observation["depth_gripper"].shape == (4, 84, 84)
    frames = observation["rgb_static"]
    assert frames.std() > 20 and not np.array_equal(frames[0], frames[1])


def test_the_same_seed_gives_the_same_values():
    one, same, other = (fixtures.episode("viola", 5, seed) for seed in (1, 1, 2))
    a, b, c = (flatten(e)["steps/action/world_vector"] for e in (one, same, other))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_poses_have_unit_quaternions():
    found = fixtures.episode("fractal20220817_data", 6)["steps"]["observation"]
    norm = np.linalg.norm(found["base_pose_tool_reached"][:, 3:], axis=-1)
    np.testing.assert_allclose(norm, 1, atol=0.05)


def test_rows_of_one_data_set_do_not_overwrite_each_other():
    folders = [fixtures.folder(n) for n in registry.data_sets()]
    assert len(set(folders)) == 75
    assert fixtures.folder("bridge_dataset") == "bridge_dataset"
    assert fixtures.folder("bridge_orig") == "bridge_orig"
    assert fixtures.folder("roboset") == "robo_set"


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match="no data set 'violla'; did you mean 'viola'"):
        fixtures.write_fixture(tmp_path, "violla")
    with pytest.raises(ValueError, match=r"lengths is \(2,\), expected episodes of at least 3"):
        fixtures.write_fixture(tmp_path, "viola", lengths=(2,))
    fixtures.write_fixture(tmp_path, "viola")
    with pytest.raises(FileExistsError, match="viola/0.1.0 exists"):
        fixtures.write_fixture(tmp_path, "viola")
    fixtures.write_fixture(tmp_path, "viola", overwrite=True)
