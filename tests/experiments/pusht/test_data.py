import numpy as np
import pytest

from ambient_jax.data.rlds import open_dataset
from experiments.pusht import data, expert
from experiments.pusht import env as pusht

SIZES = {"steady": 1, "shaky": 2, "held_out": 1, "tremor": 5.0, "content": 0.5}
QUIET = {"workers": 1, "progress": False}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return data.build(tmp_path_factory.mktemp("pusht"), **SIZES, **QUIET)


def test_episodes_read_back_and_replay(built):
    env, options = pusht.make(), {"tremor": 5.0, "content": 0.5}
    for hand, count in (("steady", 1), ("shaky", 2)):
        dataset = open_dataset(built[hand])
        assert (dataset.name, len(dataset)) == (f"pusht_{hand}", count)
        found = data.demonstrations(hand, count, **options, **QUIET)
        for number, (index, demo) in enumerate(found):
            episode = dataset[number]
            steps, metadata = episode["steps"], episode["episode_metadata"]
            np.testing.assert_array_equal(steps["action"], demo.actions)
            for name, value in pusht.observation(demo.states).items():
                np.testing.assert_array_equal(steps["observation"][name], value)
            assert steps["reward"].nonzero()[0].tolist() == [len(demo.actions) - 1]
            assert metadata["hand"] in (hand, hand.encode()) and metadata["index"] == index
            # What is on disk ends the episode where it was recorded, at its last step.
            env.reset(seed=1_000_000 * (1 + data.HANDS.index(hand)) + index)
            reached = [pusht.advance(env, action) for action in steps["action"]]
            enough = 0.95 if hand == "steady" else 0.5
            assert reached[-1] > enough and max(reached[:-1]) <= enough
            assert metadata["coverage"] == pytest.approx(reached[-1])


def test_held_out_starts_are_others(built):
    firsts = [open_dataset(path)[0]["steps"]["observation"]["state"][0] for path in built.values()]
    assert len(firsts) == 4 and len({tuple(first) for first in firsts}) == 4


def test_it_is_built_once_and_anew_for_another_tremor(built, monkeypatch):
    stamp = lambda path: (path / "dataset_info.json").stat().st_mtime_ns  # noqa: E731
    before, root = {n: stamp(p) for n, p in built.items()}, built["steady"].parents[1]
    with monkeypatch.context() as patch:
        patch.setattr(expert, "demonstrate", None)  # doing it again would raise
        assert data.build(root, **SIZES, **QUIET) == built
    again = data.build(root, **{**SIZES, "tremor": 4.0, "held_out": 0}, **QUIET)
    assert stamp(again["steady"]) == before["steady"]
    assert stamp(again["shaky"]) != before["shaky"]


def test_images_show_the_states(tmp_path):
    sizes = {**SIZES, "shaky": 0, "held_out": 0}
    built = data.build(tmp_path, **sizes, images=True, **QUIET)
    dataset = open_dataset(built["steady"])
    observation = dataset[0]["steps"]["observation"]
    images, state = observation["image"], observation["state"]
    assert dataset.name == "pusht_images_steady" and images.dtype == np.uint8
    assert images.shape == (len(state), 96, 96, 3)
    np.testing.assert_array_equal(observation["small"], pusht.small(images))
    column, line = (state[0, :2] * 96 / 512).astype(int)  # of the blue pusher
    assert np.argmax(images[0, line, column]) == 2


@pytest.mark.parametrize("wrong", [{"shaky": -1}, {"held_out": -1}, {"seed": 901}])
def test_bad_input(tmp_path, wrong):
    with pytest.raises(ValueError, match="expected no negative count and a seed in 0 to 900"):
        data.build(tmp_path, **{**SIZES, **wrong}, **QUIET)
    with pytest.raises(ValueError, match="hand"):
        next(data.demonstrations("left", 1))
