"""The encoder of poses: its scenes, what a policy is given, and that it learns."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments.paper_pushing import sight
from experiments.paper_pushing.env import SOURCE, PaperPushingEnv, PaperScene

SCENE = PaperScene()


def test_scenes_have_poses_near_the_goal_and_anywhere():
    states = np.asarray(sight.scenes(jax.random.key(0), 4000, SCENE))
    assert states.shape == (4000, 6)
    np.testing.assert_allclose(np.hypot(states[:, 4], states[:, 5]), 1, atol=1e-5)
    yaw = np.abs(np.arctan2(states[:, 5], states[:, 4]))
    near = (np.hypot(states[:, 2], states[:, 3]) < 0.04) & (yaw < 0.24)
    assert 0.2 < near.mean() < 0.4 and (yaw > 2.5).mean() > 0.02
    assert not np.array_equal(states, sight.scenes(jax.random.key(1), 4000, SCENE))


def test_a_policy_gets_the_environments_state_of_what_is_seen(monkeypatch):
    """An encoder that sees poses exactly gives exactly the environment's states."""
    env = PaperPushingEnv(physics=SOURCE)
    states = np.stack([env.reset(seed=seed)[0]["state"] for seed in range(6)]).reshape(3, 2, 12)
    monkeypatch.setattr(sight, "look", lambda params, states, scene: states[:, 2:6])
    np.testing.assert_allclose(sight.seen(None, states, SCENE), states, atol=1e-6)
    # Of the true state it uses the pusher's place alone.
    monkeypatch.setattr(sight, "look", lambda params, states, scene: 0 * states[:, 2:6] + 0.5)
    seen = sight.seen(None, states, SCENE)
    blind = sight.seen(None, np.concatenate([states[..., :2], 9 + states[..., 2:]], -1), SCENE)
    np.testing.assert_array_equal(seen, blind)


@pytest.fixture(scope="module")
def learned():
    return [sight.train(SCENE, steps=n, rounds=1, batch=16, progress=False) for n in (1, 60)]


def test_it_learns(learned):
    states = np.asarray(sight.scenes(jax.random.key(5), 128, SCENE))
    before, after = (sight.errors(params, states, SCENE).mean(0) for params in learned)
    assert after[0] < 0.75 * before[0] and after[1] < before[1]


def test_it_is_kept_until_its_options_or_the_scene_change(learned, tmp_path, monkeypatch):
    made = []

    def train(scene, **options):
        made.append((scene, options))
        return learned[0]

    monkeypatch.setattr(sight, "train", train)
    path, options = tmp_path / "sight.npz", dict(steps=1, rounds=1, batch=16, seed=0)
    other = dataclasses.replace(SCENE, back=0.03)
    sight.kept(path, SCENE, **options)
    again = sight.kept(path, SCENE, **options)
    assert len(made) == 1
    jax.tree.map(np.testing.assert_array_equal, again, learned[0])
    sight.kept(path, SCENE, **options | {"steps": 2})
    sight.kept(path, other, **options)
    assert [(scene, o["steps"]) for scene, o in made] == [(SCENE, 1), (SCENE, 2), (other, 1)]
    assert [path.name for path in tmp_path.iterdir()] == ["sight.npz"]
