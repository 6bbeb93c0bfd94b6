"""Shown episodes: which ones, their pictures at their steps, and their curves."""

import io

import numpy as np
import PIL.Image
import pytest

from ambient_jax.data import storage
from ambient_jax.data.look import samples, summary
from tests.data.look import folders


def opened(path):
    dataset = storage.open_dataset(path, decode_images=False, allow_missing=True)
    return dataset, summary.summarise(dataset)


def pixels(blob):
    return np.asarray(PIL.Image.open(io.BytesIO(blob)).convert("RGB"), float)


@pytest.mark.parametrize("kind", ["image", "video"])
def test_pictures_are_those_of_their_steps(tmp_path, kind):
    data = folders.episodes(lengths=(20, 31))
    dataset, found = opened(folders.write(tmp_path / "s", data, pictures=kind))
    sample = samples.read(dataset, found, 1)
    shown = sample.pictures["steps/observation/images.front"]
    assert [step for step, _ in shown] == [0, 6, 12, 18, 24, 30]
    for step, blob in shown:
        differences = [np.abs(pixels(blob) - folders.picture(1, i)).mean() for i in range(31)]
        assert np.argmin(differences) == step and min(differences) < 6
    assert (sample.episode, sample.length, sample.instruction) == (1, 31, "task 1")


def test_curves_are_the_values(tmp_path):
    data = folders.episodes(lengths=(31, 1000))
    data[0][0][3, 1] = np.nan
    dataset, found = opened(folders.write(tmp_path / "s", data))
    sample = samples.read(dataset, found, 0)
    assert set(sample.curves) == {"steps/observation/state", "steps/action"}
    np.testing.assert_array_equal(sample.steps, np.arange(31))
    np.testing.assert_array_equal(sample.curves["steps/observation/state"], data[0][0])
    long = samples.read(dataset, found, 1)
    assert len(long.steps) == samples.POINTS and (long.steps[0], long.steps[-1]) == (0, 999)
    np.testing.assert_array_equal(long.curves["steps/action"], data[1][1][long.steps])


def test_episodes_with_pictures_come_first(tmp_path):
    data = folders.episodes(lengths=(4,) * 9)
    path = folders.write(tmp_path / "s", data, pictures="video")
    folder = tmp_path / "s/videos/chunk-000/observation.images.front"
    for i in (0, 1, 3, 4, 8):
        (folder / f"episode_{i:06d}.mp4").unlink()
    (tmp_path / "s/data/chunk-000/episode_000005.parquet").unlink()
    dataset, found = opened(path)
    assert samples.choose(found, 2) == [2, 7]
    assert samples.choose(found, 3) == [2, 6, 7]
    assert samples.choose(found, 5) == [0, 2, 6, 7, 8]  # and two without
    assert samples.choose(found, 100) == [0, 1, 2, 3, 4, 6, 7, 8]
    assert samples.choose(found, 0) == []
    assert samples.read(dataset, found, 0).pictures == {
        "steps/observation/images.front": "the file is missing"
    }


def test_damaged_pictures_are_told(tmp_path):
    data = folders.episodes(lengths=(30,))
    path = folders.write(tmp_path / "s", data, pictures="video")
    dataset, found = opened(path)
    video = tmp_path / "s/videos/chunk-000/observation.images.front/episode_000000.mp4"
    folders.write_video(video, [folders.picture(0, i) for i in range(12)])
    sample = samples.read(dataset, found, 0)
    assert "has no picture at" in sample.pictures["steps/observation/images.front"]
    ((kind, text),) = sample.problems
    assert kind == "unreadable pictures" and text.startswith("images.front: ")


def test_depth_and_large_pictures_become_small_jpegs():
    depth = PIL.Image.fromarray(np.arange(300 * 400, dtype=np.uint16).reshape(300, 400))
    shown = PIL.Image.open(io.BytesIO(samples._jpeg(depth)))
    assert shown.size == (192, 144) and shown.format == "JPEG"
    low, high = shown.convert("L").getextrema()
    assert low < 5 and high > 250
