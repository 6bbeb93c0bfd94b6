"""The one-liners: what they say, and what is no line."""

import pytest

from ambient_jax.open_x import registry
from ambient_jax.open_x.spec import parse, parse_field


def test_a_line_says_what_it_says():
    spec = parse(
        {
            "hz": 5,
            "action": "xyz action/world[0:3] | diff; quat /pose[-4:] | diff; grip g | clip | "
            "closed 1 open 0",
            "state": "a + b[2]",
            "language": "x, y",
            "quality": "ok = reward | max",
            "wrist": "observation/hand | bgr | if /meta/has_hand",
            "drop": "first",
        },
        "mine",
    )
    assert [p.kind for p in spec.action] == ["xyz", "quat", "grip"]
    xyz, quat, grip = (p.field for p in spec.action)
    assert (xyz.key, xyz.window, xyz.operations) == ("steps/action/world", (0, 3), (("diff",),))
    assert (quat.key, quat.of_episode, quat.window) == ("pose", True, (-4, None))
    assert grip.words("closed") == ("1", "open", "0") and grip.has("clip")
    assert [f.key for f in spec.state] == ["steps/a", "steps/b"] and spec.state[1].window == (2, 3)
    assert spec.bgr == ("wrist",) and spec.has_diff and spec.drop_first and spec.hz == 5
    fields = [(what, f.key) for what, f in spec.fields()]
    assert fields == [
        *(("action", k) for k in ("steps/action/world", "pose", "steps/g")),
        *(("state", k) for k in ("steps/a", "steps/b")),
        *(("language", k) for k in ("steps/x", "steps/y")),
        ("camera", "steps/observation/hand"),
        ("flag", "meta/has_hand"),
        ("quality", "steps/reward"),
    ]
    assert not {"camera", "flag"} & {what for what, _ in spec.fields(cameras=("primary",))}


def test_last_number():
    assert parse_field("a[-1]", "").window == (-1, None)
    assert parse_field("a[-2]", "").window == (-2, -1)


@pytest.mark.parametrize(
    "lines, match",
    [
        ({}, "mine has no action: give a line"),
        ({"acton": "joint a"}, "mine: key is 'acton', expected .*did you mean 'action'"),
        ({"action": "joints a"}, "kind of action part 'joints a' is 'joints', .*mean 'joint'"),
        ({"action": "grip a | clipp"}, "operation 'clipp', expected one of .*mean 'clip'"),
        ({"action": "grip a | diff"}, "operation 'diff', expected one of clip, closed"),
        ({"action": "joint a b"}, "cannot read 'a b', expected a field"),
        ({"action": "joint a[0:3"}, "cannot read"),
        ({"action": "joint"}, "cannot read ''"),
        ({"action": "djoint a | scale"}, "'scale' has 0 words after 'scale', expected 1"),
        ({"action": "djoint a | scale x"}, "'x' in .* is no finite number"),
        ({"action": "djoint a | scale nan"}, "'nan' in .* is no finite number"),
        ({"action": "grip a | closed inf open 1"}, "'inf' in .* is no finite number"),
        ({"action": "joint a[-]"}, "cannot read 'a.-.', expected a field"),
        ({"action": "joint a[1:-]"}, "cannot read"),
        ({"action": "grip a | closed 1 open 1"}, "'closed a open b' with different a, b"),
        ({"action": "grip a | closed 1 opened 0"}, "expected 'closed a open b'"),
        ({"action": "joint zeros"}, "takes a field"),
        ({"action": "grip zeros"}, "takes a field or open or closed"),
        ({"action": "rpy a"}, "'rpy' stands alone"),
        ({"action": "xyz a; grip b"}, "xyz has no rotation after it"),
        (
            {"action": "xyz a | diff; rpy zeros", "frame": "tool"},
            "diff and subtract give motions",
        ),
        ({"action": "djoint a | rate"}, "rate divides by hz"),
        ({"action": "joint a", "frame": "world"}, "frame is 'world', expected one of base, tool"),
        ({"action": "joint a", "drop": "last"}, "drop is 'last', expected one of first"),
        ({"action": "joint a", "hz": 0}, "hz is 0"),
        ({"action": "joint a", "hz": "fast"}, "hz is 'fast', expected a number"),
        ({"action": "joint a", "hz": (5, 10)}, "hz is .5, 10., expected a number"),
        ({"action": "joint a", "quality": "reward"}, "quality 'reward', expected 'name = field'"),
        ({"action": "joint a", "state": ["a"]}, "state is .*expected a line of text"),
        ({"action": "joint a", "primary": "x | bgrr"}, "operation 'bgrr', .*mean 'bgr'"),
        ({"action": "joint a", "quality": "x = y | equals z"}, "'z' in .* is no finite number"),
    ],
)
def test_bad_lines(lines, match):
    with pytest.raises(ValueError, match=f"mine.*{match}|{match}"):
        parse(lines, "mine")


@pytest.mark.parametrize("name", registry.data_sets())
def test_every_row_is_short_enough_to_audit(name):
    lines = registry.get(name).lines
    assert len(lines["action"]) < 160
