"""The interpreter: grippers, frames, cameras, language, labels, and what it refuses."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ambient_jax.data import rlds, write
from ambient_jax.open_x import standardize
from ambient_jax.open_x.spec import parse


def run(lines, steps, name="mine", **options):
    episode = {"steps": steps}
    episode.update(options.pop("episode", {}))
    return standardize.standardise(parse(lines, name), episode, **options)["steps"]


def grip(line, values):
    """Gripper column of ``grip g | line``."""
    line = f"grip g | {line}" if line else "grip g"
    return run({"action": line}, {"g": np.asarray(values, np.float32)})["action"][:, 0]


@pytest.mark.parametrize(
    "line, raw, wanted",
    [
        ("", [0, 0.25, 1], [0, 0.25, 1]),
        ("closed 1 open 0", [0, 0.25, 1], [1, 0.75, 0]),
        ("closed -1 open 1", [-1, 0, 1], [0, 0.5, 1]),
        ("closed 1 open -1", [-1, 0, 1], [1, 0.5, 0]),
        ("closed 255 open 0", [0, 51, 255], [1, 0.8, 0]),
        ("closed 0 open 0.08", [0, 0.02, 0.08], [0, 0.25, 1]),
        ("clip", [-1, 0.5, 3], [0, 0.5, 1]),
        ("clip | closed 1 open 0", [-1, 0, 0.5, 1], [1, 1, 0.5, 0]),
        ("as_is", [-7, 0, 9], [-7, 0, 9]),
        # The first command closes, so it was open; small numbers are no commands.
        ("relative", [0, 0.05, 1, 0, 0, -1, 0], [1, 1, 0, 0, 0, 1, 1]),
        ("relative", [0, -1, 0, 1], [0, 1, 1, 0]),
        ("relative", [0, 0, 0], [1, 1, 1]),
        ("binarise", [1, 0.5, 0.2, 0, 0.5, 0.99], [1, 0, 0, 0, 1, 1]),
        ("binarise", [0, 0.5, 0.25], [0, 0.25, 0.25]),
        # Sensor noise past the ends is cut.
        ("", [1.03, -0.01], [1, 0]),
    ],
)
def test_gripper_conventions(line, raw, wanted):
    np.testing.assert_allclose(grip(line, raw), wanted, atol=1e-6)


@pytest.mark.parametrize("constant, value", [("open", 1), ("closed", 0)])
def test_no_gripper_is_masked(constant, value):
    out = run({"action": f"xyz a; rpy zeros; grip {constant}"}, {"a": np.ones((4, 3))})
    np.testing.assert_array_equal(out["action"][:, 6], [value] * 4)
    np.testing.assert_array_equal(out["action_mask"][0], [1, 1, 1, 0, 0, 0, 0])


def test_boolean_gripper():
    np.testing.assert_array_equal(
        run({"action": "grip g"}, {"g": np.array([True, False])})["action"], [[1], [0]]
    )


@pytest.mark.parametrize("encoding", ["rpy", "ypr", "zxy", "rotvec", "quat"])
def test_diff_of_attitudes_is_the_rotation_between_them_and_never_wraps(encoding):
    """Two turns about z and a wobble: angles jump by 2 pi, the motion does not."""
    steps = np.arange(80)
    vectors = np.stack([0.2 * np.sin(steps), 0.2 * np.cos(steps), np.zeros(80)], -1)
    about_z = Rotation.from_euler("z", steps[:, None] * np.pi / 20)
    attitude = about_z * Rotation.from_rotvec(vectors)
    euler = {"rpy": "xyz", "ypr": "ZYX", "zxy": "zxy"}
    numbers = attitude.as_euler(euler[encoding]) if encoding in euler else None
    numbers = attitude.as_rotvec() if encoding == "rotvec" else numbers
    numbers = attitude.as_quat(canonical=True) if encoding == "quat" else numbers
    assert np.abs(np.diff(numbers, axis=0)).max() > 1  # they do jump
    out = run(
        {"action": f"xyz p | diff; {encoding} r | diff"},
        {"p": np.cumsum(np.ones((80, 3)), 0), "r": numbers},
        rotation="rotvec",
    )["action"]
    wanted = (attitude[1:] * attitude[:-1].inv()).as_rotvec()
    np.testing.assert_allclose(out[:, 3:], wanted, atol=1e-6)
    np.testing.assert_array_equal(out[:, :3], np.ones((79, 3)))
    assert np.abs(out[:, 3:]).max() < 0.6


@pytest.mark.parametrize("rotation", standardize.OUTPUT_ROTATIONS)
def test_output_rotation(rotation):
    turn = Rotation.random(9, rng=np.random.default_rng(1))
    wanted = {
        "rpy": turn.as_euler("xyz"),
        "rotvec": turn.as_rotvec(),
        "quat": turn.as_quat(canonical=True),
        "rot6d": np.hstack([turn.as_matrix()[:, :, 0], turn.as_matrix()[:, :, 1]]),
    }[rotation]
    out = run(
        {"action": "xyz p; matrix m; grip open"},
        {"p": np.zeros((9, 3)), "m": turn.as_matrix()},
        rotation=rotation,
    )
    np.testing.assert_allclose(out["action"][:, 3:-1], wanted, atol=1e-6)
    assert out["action_mask"].shape == out["action"].shape


def test_scale_rate_and_pad():
    steps = {"v": np.ones((3, 2)), "w": np.full((3, 3), 0.5)}
    out = run(
        {"hz": 20, "action": "xyz v | rate | pad; rotvec w | scale 0.1"}, steps, rotation="rotvec"
    )
    np.testing.assert_allclose(out["action"][0], [0.05, 0.05, 0, 0.05, 0.05, 0.05], atol=1e-7)
    np.testing.assert_array_equal(out["action_mask"][0], [1, 1, 0, 1, 1, 1])


def test_a_rotation_of_unknown_type_passes_but_is_not_converted():
    steps = {"a": np.full((3, 6), 0.5)}
    lines = {"hz": 10, "action": "xyz a[0:3]; unstated a[3:6]"}
    for rotation in ("rpy", "rotvec"):
        out = run(lines, steps, rotation=rotation)["action"]
        np.testing.assert_array_equal(out[:, 3:], steps["a"][:, 3:])
    with pytest.raises(ValueError, match="mine: the encoding of its rotation is unstated"):
        run(lines, steps, rotation="quat")


def test_windows_of_fields():
    a = np.arange(14.0).reshape(2, 7)
    out = run(
        {"action": "joint a[-2:]; joint a[-1]; joint a[1]; joint a[:2]", "state": "a[3:5] + b"},
        {"a": a, "b": np.array([7, 8])},
    )
    np.testing.assert_array_equal(out["action"], a[:, [5, 6, 6, 1, 0, 1]])
    np.testing.assert_array_equal(out["observation"]["state"], [[3, 4, 7], [10, 11, 8]])
    assert out["observation"]["state"].dtype == np.float32


def test_language():
    steps = {
        "a": np.zeros((3, 1)),
        "one": np.array([b"", b"x", b""], object),
        "two": np.array([b"y", b"z", b""], object),
    }
    out = run({"action": "joint a", "language": "one, two"}, steps)
    assert out["language_instruction"].tolist() == [b"y", b"x", b""]
    out = run(
        {"action": "joint a", "language": "/episode_metadata/task"},
        steps,
        episode={"episode_metadata": {"task": "fold it"}},
    )
    assert out["language_instruction"].tolist() == [b"fold it"] * 3
    assert run({"action": "joint a"}, steps)["language_instruction"].tolist() == [b""] * 3
    points = np.zeros((3, 8), np.int32)
    points[:, :4] = [ord(c) for c in "größe"[:4]]
    points[:, 5] = 7  # after the end
    out = run({"action": "joint a", "language": "p | codepoints"}, {**steps, "p": points})
    assert out["language_instruction"][0].decode() == "größ"


def test_quality():
    steps = {
        "a": np.zeros((3, 1)),
        "mode": np.array([-1, 0, 1]),
        "auto": np.array([[1], [0], [1]]),
        "reward": np.array([0, 0, 1.0]),
    }
    lines = {
        "action": "joint a",
        "quality": "help = mode | equals 1; auto = auto; "
        "ok = reward | max; good = /meta/file | contains success",
    }
    out = run(lines, steps, episode={"meta": {"file": b"/x/success/1.h5"}})["quality"]
    np.testing.assert_array_equal(out["help"], [0, 0, 1])
    np.testing.assert_array_equal(out["auto"], [1, 0, 1])
    np.testing.assert_array_equal(out["ok"], [1, 1, 1])
    np.testing.assert_array_equal(out["good"], [1, 1, 1])
    out = run(lines, steps, episode={"meta": {"file": b"/x/failure/1.h5"}})["quality"]
    np.testing.assert_array_equal(out["good"], [0, 0, 0])
    with pytest.raises(ValueError, match="mine: quality 'auto' reads steps/two, 2 numbers a step"):
        run({"action": "joint a", "quality": "auto = two"}, {**steps, "two": np.zeros((3, 2))})


def test_cameras():
    rng = np.random.default_rng(0)
    images = {n: rng.integers(0, 255, (3, 4, 4, 3), np.uint8) for n in ("front", "hand")}
    steps = {"a": np.zeros((3, 1)), **images, "d": np.full((3, 4, 4), 1024, np.uint16)}
    lines = {
        "action": "joint a",
        "primary": "front | if /meta/has_front",
        "wrist": "hand | bgr",
        "depth_primary": "d | scale 0.0009765625",
    }
    out = run(lines, steps, episode={"meta": {"has_front": np.False_}}, depth=("primary",))
    np.testing.assert_array_equal(out["observation"]["image_primary"], images["front"])
    np.testing.assert_array_equal(out["observation"]["image_wrist"], images["hand"][..., ::-1])
    np.testing.assert_array_equal(out["observation"]["depth_primary"], np.ones((3, 4, 4, 1)))
    got = {role: mask.tolist() for role, mask in out["camera_mask"].items()}
    assert got == {"primary": [False] * 3, "secondary": [False] * 3, "wrist": [True] * 3}
    assert parse(lines).bgr == ("wrist",)
    # Still encoded: passed on, to be flipped after decoding.
    encoded = np.array([b"1", b"2", b"3"], object)
    out = run(lines, {**steps, "hand": encoded}, cameras=("wrist",))
    assert out["observation"]["image_wrist"].tolist() == encoded.tolist()
    assert list(out["observation"]) == ["image_wrist"] and list(out["camera_mask"]) == ["wrist"]


def test_metadata_passes_and_the_input_stays():
    action = np.array([[0.0], [1.0]])
    metadata = {"id": 3}
    episode = {"steps": {"a": action}, "episode_metadata": metadata}
    out = standardize.standardise({"action": "grip a | closed 1 open 0"}, episode)
    assert out["episode_metadata"] == {"id": 3}
    np.testing.assert_array_equal(action, [[0], [1]])


def test_an_unregistered_data_set_takes_five_lines(tmp_path):
    """From its own features.json to a standardised episode, missing fields named before reading."""
    features = write.rlds_features(
        {"eef": np.zeros(7, np.float32), "front": np.zeros((4, 4, 3), np.float32)},
        np.zeros(7, np.float32),
        {"language_instruction": str},
    )
    rng = np.random.default_rng(0)
    flags = {n: np.zeros(5, bool) for n in ("is_first", "is_last", "is_terminal")}
    action = rng.uniform(0, 1, (5, 7)).astype(np.float32)
    episode = {
        "steps": {
            "observation": {
                "eef": rng.normal(size=(5, 7)).astype(np.float32),
                "front": np.zeros((5, 4, 4, 3), np.float32),
            },
            "action": action,
            "language_instruction": ["wipe"] * 5,
            **flags,
            "reward": np.zeros(5, np.float32),
            "discount": np.ones(5, np.float32),
        }
    }
    path = write.write_dataset(
        tmp_path, name="new", version="1.0.0", features=features, episodes=[episode]
    )
    config = {
        "hz": 10,
        "action": "xyz action[0:3]; rotvec action[3:6]; grip action[6] | closed 1 open 0",
        "state": "observation/eef",
        "language": "language_instruction",
        "primary": "observation/front",
    }
    spec = parse(config, "new")
    keys = standardize.check(spec, rlds.open_dataset(path).features)
    assert {"steps/action", "steps/observation/front", "steps/reward"} < set(keys)
    blind = standardize.check(spec, rlds.open_dataset(path).features, cameras=())
    assert set(keys) - set(blind) == {"steps/observation/front"}
    dataset = rlds.open_dataset(path, keys=keys)
    out = standardize.standardise(spec, dataset[0])["steps"]
    turn = Rotation.from_rotvec(action[:, 3:6]).as_euler("xyz")
    wanted = np.hstack([action[:, :3], turn, 1 - action[:, 6:]])
    np.testing.assert_allclose(out["action"], wanted, atol=1e-6)
    assert out["language_instruction"].tolist() == [b"wipe"] * 5
    assert out["observation"]["image_primary"].shape == (5, 4, 4, 3)
    same = standardize.standardise(config, dataset[0])["steps"]["action"]
    np.testing.assert_array_equal(same, out["action"])
    for line, match in [
        ({"state": "observation/eff"}, r"state needs 'steps/observation/eff'.*mean 'steps/ob"),
        ({"action": "xyz action[0:3]; quat action[3:6]"}, "'quat' takes 3 numbers .* expected 4"),
        ({"action": "joint action[0:8]"}, r"steps/action has 7 numbers a step, \[0:8\] is not in"),
    ]:
        with pytest.raises(ValueError, match=match):
            standardize.check(parse({**config, **line}, "new"), dataset.features)


A = {"a": np.zeros((3, 7)), "name": np.array(["x"] * 3)}


@pytest.mark.parametrize(
    "lines, steps, match",
    [
        (
            {"action": "xyz actoin[0:3]; rpy zeros"},
            {"action": A["a"]},
            "^mine: action needs 'steps/actoin', .*did you mean 'steps/action'",
        ),
        (
            {"action": "joint a", "primary": "img"},
            {**A, "image": np.zeros((3, 2, 2, 3))},
            "camera needs 'steps/img'.*it has|mean 'steps/image'",
        ),
        ({"action": "xyz a[0:4]; rpy zeros"}, A, "'xyz' takes 4 numbers of steps/a, expected 3"),
        ({"action": "xyz a[0:2]; rpy zeros"}, A, "'xyz' takes 2 numbers of steps/a, expected 3"),
        ({"action": "grip a"}, A, "'grip' takes 7 numbers of steps/a, expected 1"),
        ({"action": "joint a[5:9]"}, A, r"steps/a has 7 numbers a step, \[5:9\] is not in it"),
        ({"action": "joint name"}, A, "steps/name is <U1, expected numbers"),
        (
            {"action": "grip a[0]"},
            {"a": np.array([[0.0], [0.5], [3.0]])},
            "gripper steps/a is 3 at step 2, which its convention makes 3, expected 0",
        ),
        (
            {"action": "grip a | closed 1 open 0"},
            {"a": np.array([0.0, 2.0])},
            "steps/a is 2 at step 1, which its convention makes -1",
        ),
        (
            {"action": "joint a"},
            {"a": np.array([[0, 0], [0, np.nan]])},
            "mine: steps/a is nan at step 1, number 1",
        ),
        (
            {"action": "joint a", "state": "s[1:]"},
            {"a": A["a"], "s": np.array([[0, 0], [0, np.inf], [0, 0]])},
            "mine: steps/s is inf at step 1, number 1",
        ),
        ({"action": "xyz a[0:3]; quat a[0:4]"}, A, "mine: steps/a: a quaternion is zero"),
        ({"action": "djoint a | diff"}, {"a": np.zeros((1, 7))}, "has 1 steps, too few"),
        ({"action": "joint a"}, {"a": np.zeros((0, 7))}, "has 0 steps, too few"),
        ({"action": "joint a"}, {"a": A["a"], "b": np.zeros(4)}, "steps/b has 4 steps, steps/a"),
    ],
)
def test_bad_input(lines, steps, match):
    with pytest.raises(ValueError, match=match):
        run(lines, steps)


def test_bad_options():
    with pytest.raises(ValueError, match="rotation is 'rotvex', expected .*mean 'rotvec'"):
        run({"action": "joint a"}, A, rotation="rotvex")
    with pytest.raises(ValueError, match="camera is 'wirst', expected .*mean 'wrist'"):
        run({"action": "joint a"}, A, cameras=("wirst",))
    with pytest.raises(ValueError, match="mine: the episode has no 'steps'"):
        standardize.standardise(parse({"action": "joint a"}, "mine"), {"a": A["a"]})
