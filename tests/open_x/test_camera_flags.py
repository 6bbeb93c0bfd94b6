"""Flags that say whether a camera is there, against the pictures that are stored."""

import io
import logging
import re

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from ambient_jax import mixing
from ambient_jax.data import pipeline, write
from ambient_jax.open_x import camera_flags, spec

SPEC = {
    "hz": 5,
    "action": "base action",
    "state": "observation/state",
    "primary": "observation/front | if /metadata/has_front",
    "wrist": "observation/wrist | if has_wrist",
}
DENIED = r"{} is masked as {} is false, and observation/\w+ has pictures"
BLANK = r"{} is used as {} is true, and the pictures of observation/\w+ are blank"


def picture(kind, seed=None, size=(40, 48)):
    pixels = np.zeros((*size, 3), np.uint8) + 7
    if seed is not None:
        pixels[10:30, 5:25] = np.random.default_rng(seed).integers(60, 255, 3)
    out = io.BytesIO()
    PIL.Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def episode(front, has_front, wrist, has_wrist, kind="JPEG"):
    """``front`` and ``wrist`` say of each step whether its picture shows something."""
    pictures = lambda shows: [picture(kind, i if s else None) for i, s in enumerate(shows)]  # noqa: E731
    length = len(front)
    observation = {"front": pictures(front), "wrist": pictures(wrist)}
    observation["state"] = np.arange(2.0 * length, dtype=np.float32).reshape(length, 2)
    flags = {n: np.zeros(length, bool) for n in ("is_first", "is_last", "is_terminal")}
    rewards = {n: np.zeros(length, np.float32) for n in ("reward", "discount")}
    steps = {"observation": observation, "action": observation["state"] / 9, **flags, **rewards}
    steps["has_wrist"] = np.array(has_wrist, bool)
    return {"steps": steps, "metadata": {"has_front": np.bool_(has_front)}}


YES, NO, SOME = [True] * 5, [False] * 5, [False, False, True, True, False]
# What is said of front and of wrist.
CASES = {
    "all agree": (YES, True, YES, YES, []),
    "nothing is there, and said so": (NO, False, NO, NO, []),
    "pictures that the flag denies": (YES, False, YES, YES, [DENIED.format("primary", "/meta.*")]),
    "blank ones that it promises": (NO, True, YES, YES, [BLANK.format("primary", "/meta.*")]),
    "both, of two cameras": (
        *(YES, False, NO, YES),
        [DENIED.format("primary", "/meta.*"), BLANK.format("wrist", "has_wrist")],
    ),
    "flags by step that agree": (YES, True, SOME, SOME, []),
    "flags by step the wrong way round": (
        *(YES, True, SOME, [not s for s in SOME]),
        [DENIED.format("wrist", "has_wrist")],
    ),
    "some blank steps are no blank camera": (SOME, True, YES, YES, []),
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("case", CASES)
def test_what_contradicts(case, kind):
    *given, wanted = CASES[case]
    parsed = spec.parse(SPEC)
    found = list(camera_flags.problems(parsed, episode(*given, kind), spec.CAMERAS))
    assert [k for k, _ in found] == ["flag"] * len(wanted)
    for (_, told), pattern in zip(found, wanted, strict=True):
        assert re.search(pattern, told), told
    assert not list(camera_flags.problems(parsed, episode(*given, kind), ("secondary",)))


def test_arrays_and_damaged_images():
    parsed = spec.parse(SPEC | {"wrist": ""})
    made = episode(YES, False, YES, YES)
    made["steps"]["observation"]["front"] = np.zeros((5, 4, 4, 3), np.uint8)
    assert not list(camera_flags.problems(parsed, made, ("primary",)))
    made["steps"]["observation"]["front"][0, 1, 1] = 200
    assert len(list(camera_flags.problems(parsed, made, ("primary",)))) == 1
    made = episode(NO, True, YES, YES)
    made["steps"]["observation"]["front"] = [b"\xff\xd8 no image"] * 5
    assert not list(camera_flags.problems(parsed, made, ("primary",)))  # of the kind "image"


@pytest.fixture
def section(tmp_path, make_common):
    def make(episodes, **on_problem):
        camera = tfds.features.Image(shape=(40, 48, 3), encoding_format="jpeg")
        step = {"front": camera, "wrist": camera, "state": np.zeros(2, np.float32)}
        made = write.rlds_features(step, np.zeros(2, np.float32), {"has_wrist": np.bool_})
        features = {**dict(made.items()), "metadata": {"has_front": np.bool_}}
        path = write.write_dataset(
            tmp_path / "data",
            name="flags",
            version="1.0.0",
            features=tfds.features.FeaturesDict(features),
            episodes=episodes,
        )
        form = {"cameras": ("primary", "wrist"), "action_width": 2, "state_width": 2}
        given = {"mine": (path, SPEC, {})}
        return make_common(given, form | {"on_problem": on_problem})

    return make


def test_counted_by_episode_and_told_once(section, caplog):
    episodes = [
        episode(YES, False, YES, YES),
        episode(YES, True, YES, YES),
        episode(YES, False, NO, YES),
    ]
    with caplog.at_level(logging.WARNING, "absl"):
        mixture = pipeline.open_mixture(section(episodes), mixing.CoTraining())
    found = mixture.problems["mine"]["flag"]
    assert found["episodes"] == 2 and found["skipped"] == 0
    assert [index for index, _ in found["examples"]] == [0, 2, 2]
    (line,) = [r.getMessage() for r in caplog.records if "'flag'" in r.getMessage()]
    assert "in 2 episodes" in line and "episode 2: wrist is used as has_wrist is true" in line
    lenient = pipeline.open_mixture(section_again(mixture, "skip"), mixing.CoTraining())
    assert lenient.statistics["mine"].lengths.tolist() == [0, 5, 0]
    with pytest.raises(ValueError, match="episode 0: primary is masked.*on_problem.flag to 'skip'"):
        pipeline.open_mixture(section_again(mixture, "raise"), mixing.CoTraining())


def section_again(mixture, policy):
    config = mixture.config.copy_and_resolve_references()
    config.open_x.on_problem.flag = policy
    return config
