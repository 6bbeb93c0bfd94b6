"""Videos as PyAV reads them back: pictures, times and the places of episodes."""

import av
import numpy as np
import pytest

from ambient_jax.data.storage.video import Clip
from ambient_jax.data.storage.video_write import CODECS, VideoWriter
from tests.data.storage.lerobot_folders import picture


def noise(count, seed, size=(64, 64)):
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), np.uint8)


def write(root, episodes, hz=10, codec="lossless", limit=1e9):
    writer = VideoWriter(lambda number: str(root / f"{number}.mp4"), hz, codec, limit)
    places = [writer.write(episode) for episode in episodes]
    writer.close()
    return places


@pytest.mark.parametrize("hz", [5, 12.5, 29.97, 50])
def test_pictures_are_where_the_place_says(tmp_path, hz):
    episodes = [noise(3, 0), noise(1, 1), noise(6, 2)]
    places = write(tmp_path, episodes, hz)
    assert [(p.file, p.pictures) for p in places] == [(0, 3), (0, 1), (0, 6)]
    np.testing.assert_allclose([p.start for p in places], np.array([0, 3, 4]) / hz, rtol=1e-6)
    np.testing.assert_allclose([p.stop for p in places], np.array([3, 4, 10]) / hz, rtol=1e-6)
    for place, episode in zip(places, episodes, strict=True):
        times = place.start + np.arange(len(episode)) / hz
        clip = Clip(str(tmp_path / "0.mp4"), times, 1 / hz)
        np.testing.assert_array_equal(clip.decode(), episode)
    with av.open(str(tmp_path / "0.mp4")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    np.testing.assert_allclose(times, np.arange(10) / hz, atol=1e-4)


@pytest.mark.parametrize("codec", CODECS)
def test_long_episodes_in_small_files(tmp_path, codec):
    episodes = [[picture(e, i, size=(64, 64)) for i in range(40)] for e in range(4)]
    # An encoder holds pictures back, so that a file is a little larger than its limit.
    places = write(tmp_path, episodes, codec=codec, limit=1)
    files = [p.file for p in places]
    assert files == sorted(files) and files[-1] > 0
    assert len(list(tmp_path.iterdir())) == files[-1] + 1
    for place, episode in zip(places, episodes, strict=True):
        times = place.start + np.arange(40) / 10
        got = Clip(str(tmp_path / f"{place.file}.mp4"), times, 0.1).decode()
        error = np.mean((got - np.stack(episode).astype(float)) ** 2)
        assert error <= (0 if codec == "lossless" else 255**2 / 10**3)  # 30 dB


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match="codec is 'gif', expected one of h264, av1, lossless"):
        write(tmp_path, [], codec="gif")
    with pytest.raises(ValueError, match="there is no picture"):
        write(tmp_path, [[]])
    with pytest.raises(ValueError, match=r"uint8 \[32, 64, 3\], expected uint8 \[64, 64, 3\]"):
        write(tmp_path, [noise(2, 0), noise(2, 1, (32, 64))])
    with pytest.raises(ValueError, match="float64"):
        write(tmp_path, [noise(2, 0), noise(2, 1) / 255])
