"""How an environment's observations find those of a policy, and what is said if they do not."""

import numpy as np
import pytest
from gymnasium import spaces

from ambient_jax.policy.policy import Policy
from ambient_jax.rollout import observations
from ambient_jax.transforms.chain import Chain
from ambient_jax.transforms.steps import Images, Role, Text
from tests.rollout import envs

BOX = spaces.Box(-1, 1, (2,), np.float32)
SEVEN = spaces.Box(-1, 1, (7,), np.float64)
VIEW = spaces.Box(0, 255, (6, 8, 3), np.uint8)


def policy(dims=None, *steps):
    plain = envs.policy(lambda o, x: x, dims)
    return Policy(None, None, Chain(plain.normalizer, steps), horizon=4, history=2)


def test_equal_names_join_and_others_are_left_out():
    space = spaces.Dict({"state": BOX, "goal": BOX, "more": spaces.Discrete(3)})
    reader = observations.connect(policy(), space)
    assert reader.fields == {"state": "state", "goal": "goal"}
    batch = {"state": np.ones((3, 2)), "goal": np.zeros((3, 2)), "more": np.arange(3)}
    assert {n: v.shape for n, v in reader(batch).items()} == {"state": (3, 2), "goal": (3, 2)}


def test_a_mapping_joins_other_names_and_nested_ones():
    view = Images(("primary",), (4, 4))
    space = spaces.Dict({"robot": spaces.Dict({"xy": BOX}), "goal": BOX, "pixels": VIEW})
    fields = observations.parse("state=robot/xy, image_primary=pixels")
    reader = observations.connect(policy(None, view), space, fields)
    assert reader.fields == {"state": "robot/xy", "image_primary": "pixels", "goal": "goal"}
    batch = {"robot": {"xy": np.full((2, 2), 3.0)}, "goal": np.zeros((2, 2))}
    found = reader(batch | {"pixels": np.zeros((2, 6, 8, 3), np.uint8)})
    assert (found["state"] == 3).all() and found["image_primary"].shape == (2, 6, 8, 3)


def test_a_box_is_the_only_observation_and_is_flattened():
    for shape in ((7,), (1, 7), (7, 1)):
        space = spaces.Box(-1, 1, shape, np.float64)
        reader = observations.connect(policy({"state": 7}, Role(("a",), (True,))), space)
        assert reader.fields == {"state": ""} and reader(np.zeros((5, *shape)))["state"].shape == (
            5,
            7,
        )
    reader = observations.connect(policy({"state": 1}), spaces.Box(-1, 1, (), np.float32))
    assert reader(np.zeros(5))["state"].shape == (5, 1)
    reader = observations.connect(policy({"a": 7, "b": 2}), SEVEN, {"a": ""}, {"b": [1, 2]})
    assert reader(np.zeros((3, 7)))["b"].tolist() == [[1, 2]] * 3


def test_constants_and_texts_are_the_same_for_all():
    text = policy({"state": 2}, Text(12))
    reader = observations.connect(text, BOX, {"state": ""}, {"instruction": "push"})
    checked = text.check(reader(np.zeros((4, 2))), ())
    assert bytes(checked["instruction"][3]).rstrip(b"\0") == b"push"


def test_a_camera_that_is_missing_is_told(caplog):
    view = Images(("primary",), (4, 4))
    with caplog.at_level("WARNING"):
        observations.connect(policy({"state": 2}, view), spaces.Dict({"state": BOX, "eye": VIEW}))
    assert "sees no image_primary" in caplog.text and "image_primary=NAME" in caplog.text


@pytest.mark.parametrize(
    "space, fields, message",
    [
        (spaces.Dict({"state": BOX}), {}, r"\(state \[2\]\) do not fit the policy: .*'goal' is"),
        (spaces.Dict({"state": SEVEN, "goal": BOX}), {}, r"'state' has shape \(1, 7\), expected"),
        (BOX, {}, "the policy has state, goal: say which one it is"),
        (BOX, {"sate": ""}, "observation is 'sate', expected one of .*did you mean 'state'"),
        (BOX, {"state": "agent"}, "'agent', which it does not have: it has one observation"),
        (spaces.Dict({"agent": BOX}), {"state": "agnt"}, "has agent; did you mean 'agent'"),
        (spaces.Dict({"state": spaces.Discrete(2), "goal": BOX}), {}, "is Discrete.2., expected a"),
    ],
)
def test_what_does_not_fit_is_one_line(space, fields, message):
    with pytest.raises(ValueError, match=message) as error:
        observations.connect(policy(), space, fields)
    assert "\n" not in str(error.value)


def test_actions_must_be_a_box_of_the_width():
    observations.check_actions(policy(), spaces.Box(-1, 1, (2, 1)))
    with pytest.raises(ValueError, match="actions are Discrete"):
        observations.check_actions(policy(), spaces.Discrete(4))
    with pytest.raises(ValueError, match=r"have 2 numbers, those of the environment the shape \[7"):
        observations.check_actions(policy(), SEVEN)


@pytest.mark.parametrize("text", ["state=", "=a", "state=a,state=b"])
def test_text_that_is_no_mapping(text):
    with pytest.raises(ValueError, match="expected pairs"):
        observations.parse(text)


def test_text_of_a_mapping():
    assert observations.parse("") == {} and observations.parse("state") == {"state": ""}
    assert observations.parse("a=b/c, d=e") == {"a": "b/c", "d": "e"}
    assert observations.parse(" a = b ") == {"a": "b"}
