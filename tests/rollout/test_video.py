"""Videos of episodes."""

import gymnasium
import numpy as np
import pytest

from ambient_jax.rollout import environment
from ambient_jax.rollout.video import Video
from tests.rollout import envs

av = pytest.importorskip("av")


@pytest.mark.parametrize("size", [(9, 11), (8, 10)])
def test_a_video_has_the_frames_of_its_episode(tmp_path, size):
    class Sized(envs.Reach):
        def render(self):
            return np.full((*size, 3), 20 * self.steps, np.uint8)

    path = tmp_path / "videos" / "episode.mp4"
    env = environment.Held(Sized(limit=4, render_mode="rgb_array"), index=1)
    env.reset(seed=0, options={"videos": {0: "another's", 1: str(path)}})
    for _ in range(3):
        env.step(np.zeros(2, np.float32))
    assert not path.exists()  # before it is complete
    env.step(np.zeros(2, np.float32))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 5  # render_fps
        frames = [f.to_ndarray(format="gray") for f in container.decode(stream)]
    assert [f.shape for f in frames] == [(8, 10)] * 5
    np.testing.assert_allclose([f.mean() for f in frames], [0, 20, 40, 60, 80], atol=4)
    assert [p.name for p in path.parent.iterdir()] == ["episode.mp4"]


def test_frames_that_are_none_are_refused(tmp_path):
    env = environment.Held(gymnasium.make("CartPole-v1"), index=0)
    with pytest.raises(ValueError, match="render.. returned .*, expected uint8"):
        env.unwrapped.render = lambda: None
        env.reset(seed=0, options={"videos": {0: str(tmp_path / "a.mp4")}})


def test_all_frames_have_one_size(tmp_path):
    video = Video(tmp_path / "a.mp4", 10)
    video.add(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(
        ValueError, match=r"returned uint8 \[8, 10, 3\], expected uint8 \[8, 8, 3\]"
    ):
        video.add(np.zeros((8, 10, 3), np.uint8))
