"""Every row of the registry: its fixture is written, read, and its action recomputed by hand.

The formulas below say in NumPy and SciPy what the tables say in words; they share no code with
the interpreter.
"""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ambient_jax.data import rlds
from ambient_jax.data.features import flatten, leaves
from ambient_jax.open_x import fixtures, registry, standardize

CLOSED, OPEN = 0.0, 1.0


def col(x, n):
    return np.full((n, 1), x)


def last(x):
    """Gripper as a column."""
    return np.asarray(x, np.float64).reshape(len(x), -1)


def follow(commands):
    """-1 opens, +1 closes, 0 holds; before the first command the opposite of it."""
    state = None
    for c in np.ravel(commands):
        if abs(c) > 0.1:
            state = 1.0 if c > 0 else 0.0  # opposite of what the command leads to
            break
    state = 1.0 if state is None else state
    out = []
    for c in np.ravel(commands):
        if c > 0.1:
            state = 0.0
        if c < -0.1:
            state = 1.0
        out.append([state])
    return np.array(out)


def settle(values):
    """Bridge's rule, walked from the end."""
    carry = float(np.ravel(values)[-1])
    out = []
    for v in np.ravel(values)[::-1]:
        carry = 1.0 if v > 0.95 else 0.0 if v < 0.05 else carry
        out.append([carry])
    return np.array(out[::-1])


def clipped_close(values):
    return 1 - np.clip(last(values), 0, 1)


def pose_steps(xyz, rotation):
    """Absolute poses to displacements and the rotation from each attitude to the next."""
    turn = rotation[1:] * rotation[:-1].inv()
    return np.hstack([xyz[1:] - xyz[:-1], turn.as_euler("xyz")])


def world(grip):
    def act(s):
        a = s["action"]
        return np.hstack([a["world_vector"], a["rotation_delta"], grip(s)])

    return act


def first_six(grip, euler=None):
    """Action [0:6] with its rotation as it is, or from another Euler convention."""

    def act(s):
        a = np.asarray(s["action"], np.float64)
        turn = a[:, 3:6]
        if euler:
            turn = Rotation.from_euler(euler, turn).as_euler("xyz")
        return np.hstack([a[:, :3], turn, grip(s)])

    return act


def quaternion(grip):
    def act(s):
        a = np.asarray(s["action"], np.float64)
        return np.hstack([a[:, :3], Rotation.from_quat(a[:, 3:7]).as_euler("xyz"), grip(s)])

    return act


def turned(vectors):
    return Rotation.from_rotvec(vectors).as_euler("xyz")


def differences(pose):
    """Of positions and of Euler angles, each of these on the shorter way round."""
    found = pose[1:] - pose[:-1]
    turns = found[:, 3:]
    turns[turns > np.pi] -= 2 * np.pi
    turns[turns <= -np.pi] += 2 * np.pi
    return found


def bridge(drop):
    def act(s):
        motion = differences(np.asarray(s["observation"]["state"], np.float64)[:, :6])
        return np.hstack([motion, settle(s["action"][:, 6])[:-1]])[drop:]

    return act


def bridge_oxe(s):
    motion = differences(np.asarray(s["observation"]["state"], np.float64)[:, :6])
    return np.hstack([motion, last(s["action"]["open_gripper"])[:-1]])[1:]


def robo_net(s):
    a, zero = s["action"], np.zeros((len(s["action"]), 2))
    return np.hstack([a[:, :3], zero, a[:, 3:4], a[:, 4:5]])


def mask_vit(s):
    a, zero = s["action"], np.zeros((len(s["action"]), 2))
    return np.hstack([a[:, :3], zero, a[:, 3:4], (1 - a[:, 4:5]) / 2])


def without_rotation(s):
    a, zero = s["action"], np.zeros((len(s["action"]), 3))
    return np.hstack([a[:, :3], zero, a[:, 3:4]])


def droid(s):
    d = s["action_dict"]
    return np.hstack([d["cartesian_velocity"], 1 - last(d["gripper_position"])])


def bc_z(s):
    a = flatten(s["action"])
    turn = turned(a["future/axis_angle_residual"][:, :3])
    close = a["future/target_close"][:, :1]
    return np.hstack([a["future/xyz_residual"][:, :3], turn, 1.0 - close])


def maniskill(s):
    a = np.asarray(s["action"], np.float64)
    return np.hstack([a[:, :3] / 10, turned(a[:, 3:6] / 10), (a[:, 6:] + 1) / 2])


def robocook(s):
    return np.hstack([s["action"][:, :3], turned(s["action"][:, 3:6]), s["action"][:, 6:]])


def imperial(s):
    a = np.asarray(s["action"], np.float64)
    turn = Rotation.from_euler("ZYX", a[:, 3:6]).as_euler("xyz")
    return np.hstack([a[:, :3], turn, a[:, 6:7]])


def closedness(rule):
    return lambda s: rule(s["action"]["gripper_closedness_action"])


def number(i):
    return lambda s: s["action"][:, [i]]


def filler(value):
    return lambda s: col(value, len(s["is_first"]))


relative, signed = world(closedness(follow)), world(closedness(clipped_close))
as_stored = first_six(number(6))
inverted = first_six(lambda s: 1 - s["action"][:, 6:7])
robosuite = first_six(lambda s: clipped_close(s["action"][:, 6]))
settled = first_six(lambda s: settle(s["action"][:, 6]))
quat_as_stored = quaternion(number(7))
yaw_first = first_six(number(6), euler="ZYX")
dlr = first_six(number(6), euler="zxy")
RLDS = "_converted_externally_to_rlds"

BY_HAND = {
    "fractal20220817_data": relative,
    "kuka": relative,
    "bridge_dataset": bridge(0),
    "bridge_orig": bridge(1),
    "bridge_oxe": bridge_oxe,
    "taco_play": lambda s: np.hstack(
        [
            s["action"]["rel_actions_world"][:, :6],
            np.clip(s["action"]["rel_actions_world"][:, 6:], 0, 1),
        ]
    ),
    "jaco_play": lambda s: np.hstack(
        [
            s["action"]["world_vector"],
            np.zeros((len(s["is_first"]), 3)),
            follow(s["action"]["gripper_closedness_action"]),
        ]
    ),
    "berkeley_cable_routing": world(filler(CLOSED)),
    "roboturk": signed,
    "nyu_door_opening_surprising_effectiveness": relative,
    "viola": signed,
    "berkeley_autolab_ur5": relative,
    "toto": world(lambda s: last(s["action"]["open_gripper"])),
    "language_table": lambda s: np.hstack(
        [s["action"], np.zeros((len(s["action"]), 4)), col(OPEN, len(s["action"]))]
    ),
    "columbia_cairlab_pusht_real": relative,
    "stanford_kuka_multimodal_dataset" + RLDS: without_rotation,
    "nyu_rot_dataset" + RLDS: inverted,
    "stanford_hydra_dataset" + RLDS: inverted,
    "austin_buds_dataset" + RLDS: robosuite,
    "nyu_franka_play_dataset" + RLDS: lambda s: np.hstack(
        [s["action"][:, 7:13], np.clip(s["action"][:, 13:14], 0, 1)]
    ),
    "maniskill_dataset" + RLDS: maniskill,
    "furniture_bench_dataset" + RLDS: quaternion(lambda s: clipped_close(s["action"][:, 7])),
    "cmu_franka_exploration_dataset" + RLDS: as_stored,
    "ucsd_kitchen_dataset" + RLDS: as_stored,
    "ucsd_pick_and_place_dataset" + RLDS: without_rotation,
    "austin_sailor_dataset" + RLDS: robosuite,
    "austin_sirius_dataset" + RLDS: robosuite,
    "bc_z": bc_z,
    "utokyo_pr2_opening_fridge" + RLDS: as_stored,
    "utokyo_pr2_tabletop_manipulation" + RLDS: as_stored,
    "utokyo_xarm_pick_and_place" + RLDS: yaw_first,
    "utokyo_xarm_bimanual" + RLDS: lambda s: yaw_first({"action": s["action"][:, 7:14]}),
    "robo_net": robo_net,
    "berkeley_mvp" + RLDS: lambda s: np.hstack([s["action"][:, :7], 1 - s["action"][:, 7:]]),
    "berkeley_rpt" + RLDS: lambda s: np.hstack(
        [
            s["observation"]["joint_pos"][1:] - s["observation"]["joint_pos"][:-1],
            1 - s["action"][:-1, 7:],
        ]
    ),
    "kaist_nonprehensile" + RLDS: lambda s: np.hstack(
        [s["action"][:, :3], turned(s["action"][:, 3:6]), filler(CLOSED)(s)]
    ),
    "stanford_mask_vit" + RLDS: mask_vit,
    "tokyo_u_lsmo" + RLDS: as_stored,
    "dlr_sara_pour" + RLDS: dlr,
    "dlr_sara_grid_clamp" + RLDS: dlr,
    "dlr_edan_shared_control" + RLDS: first_six(lambda s: 1 - s["action"][:, 6:], euler="zxy"),
    "asu_table_top" + RLDS: as_stored,
    "stanford_robocook" + RLDS: robocook,
    "imperialcollege_sawyer_wrist_cam": imperial,
    "iamlab_cmu_pickup_insert" + RLDS: quat_as_stored,
    "uiuc_d3field": lambda s: np.hstack([s["action"], np.zeros((len(s["action"]), 4))]),
    "utaustin_mutex": robosuite,
    "berkeley_fanuc_manipulation": first_six(lambda s: 1 - s["observation"]["state"][:, 6:7]),
    "cmu_playing_with_food": quat_as_stored,
    "cmu_play_fusion": quat_as_stored,
    "cmu_stretch": as_stored,
    "gnm_dataset": lambda s: s["action"],
    "berkeley_gnm_recon": lambda s: s["action"],
    "berkeley_gnm_cory_hall": lambda s: s["action"],
    "berkeley_gnm_sac_son": lambda s: s["action"],
    "aloha_static_dataset": lambda s: s["action"],
    "aloha_dagger_dataset": lambda s: s["action"],
    "aloha_mobile_dataset": lambda s: s["action"],
    "fmb_dataset": as_stored,
    "dobbe": as_stored,
    "roboset": lambda s: np.hstack([s["action"][:, :7], clipped_close(s["action"][:, 7])]),
    "rh20t": lambda s: np.hstack([s["action"]["tcp_base"], last(s["action"]["gripper"])]),
    "mujoco_manip": first_six(lambda s: 1 - s["action"][:, -1:] / 255),
    "droid": droid,
    "droid_wipe": droid,
    **dict.fromkeys([n for n in registry.data_sets() if n.startswith("tdroid_")], settled),
    **dict.fromkeys([n for n in registry.data_sets() if n.startswith("libero_")], robosuite),
}


def test_no_row_is_left_out():
    assert len(registry.data_sets()) == 75
    assert set(BY_HAND) == set(registry.data_sets())


@pytest.mark.parametrize("name", registry.data_sets())
def test_action_recomputed_by_hand(name, tmp_path):
    data_set = registry.get(name)
    # Either format holds the same: half of the rows each way.
    file_format = ("array_record", "tfrecord")[list(registry.data_sets()).index(name) % 2]
    path = fixtures.write_fixture(tmp_path, name, lengths=(7, 4), file_format=file_format)
    dataset = rlds.open_dataset(path, decode_images=False)
    # Read no more than what is needed: nothing is missed below.
    keys = standardize.check(data_set.spec, dataset.features)
    lean = rlds.open_dataset(path, keys=keys, decode_images=False)
    assert dataset.file_format == file_format
    assert set(leaves(dataset.features)) == set(leaves(fixtures.features(name)))
    for index, episode in enumerate(dataset):
        got = standardize.standardise(data_set.spec, episode)["steps"]
        wanted = BY_HAND[name](episode["steps"])
        same = standardize.standardise(data_set.spec, lean[index])["steps"]
        assert set(flatten(same)) == set(flatten(got))
        for key, value in flatten(same).items():
            np.testing.assert_array_equal(value, flatten(got)[key])
        assert got["action"].dtype == np.float32
        np.testing.assert_allclose(got["action"], wanted, rtol=0, atol=2e-6)
        # A filler is the same at every step, what is no filler is some motion of the fixture.
        for values, real in zip(got["action"].T, got["action_mask"].T, strict=True):
            assert len(set(real)) == 1
            assert real[0] or len(set(values)) == 1
        assert got["action_mask"].shape == got["action"].shape
        length = len(wanted)
        for path_, value in flatten(got).items():
            assert len(value) == length, path_
        assert all(
            text in map(str.encode, fixtures.INSTRUCTIONS) for text in got["language_instruction"]
        )
        assert set(got["quality"]) == set(data_set.spec.quality)
        width = {"EEF_POS": 7, "JOINT_POS": 8, "NAV_2D": 2}
        width |= {"JOINT_POS_BIMANUAL": 14, "JOINT_POS_BIMANUAL_NAV": 16}
        assert got["action"].shape[1] == width[data_set.action_encoding]
        assert ("state" in got["observation"]) == (data_set.state_encoding != "NONE")


@pytest.mark.parametrize("name", [n for n, d in registry.data_sets().items() if d.otherwise])
def test_the_other_reading_can_be_read_too(name):
    """It takes the same fields, and as many numbers, as the first."""
    data_set = registry.get(name)
    standardize.check(data_set.otherwise, fixtures.features(name))
    # Values of the fixture are in range of the first reading; grippers read otherwise may not be.
    episode = fixtures.episode(name, 5)
    first = standardize.standardise(data_set.spec, episode)["steps"]["action"]
    other = standardize.standardise(data_set.otherwise, episode)["steps"]["action"]
    assert other.shape[1] == first.shape[1]
    if {p.kind for p in data_set.otherwise.action} == {p.kind for p in data_set.spec.action}:
        assert other.shape != first.shape or not np.array_equal(other, first)


@pytest.mark.parametrize("name", ["bridge_dataset", "viola", "maniskill_dataset" + RLDS])
def test_decoded_images_reach_the_output(name, tmp_path):
    spec = registry.get(name).spec
    dataset = rlds.open_dataset(fixtures.write_fixture(tmp_path, name))
    raw = dataset[0]
    out = standardize.standardise(spec, raw)["steps"]
    for role, field in spec.cameras.items():
        wanted = raw["steps"]["observation"][field.path.removeprefix("observation/")]
        got = out["observation"][f"image_{role}"]
        np.testing.assert_array_equal(got, wanted[: len(got)])
        assert got.dtype == np.uint8 and got.std() > 1
