"""Cameras: what the header of a picture or video says, and pictures that are missing or repeat."""

import io

import numpy as np
import PIL.Image
import pytest

from ambient_jax.data import example_proto, storage
from ambient_jax.data.look import cameras, samples, summary
from tests.data.look import folders


def opened(path):
    return storage.open_dataset(path, decode_images=False, allow_missing=True)


def examples(found):
    return {p.kind: list(p.examples) for p in found.problems}


def test_encoded_pictures(tmp_path):
    data = folders.episodes(lengths=(12, 12, 12))

    def shown(episode, step):
        if episode == 1 and 4 <= step < 8:
            step = 4  # three repeats
        if episode == 2:
            return np.zeros((*folders.SIZE, 3), np.uint8)
        return folders.picture(episode, step)

    found = summary.summarise(
        opened(folders.write(tmp_path / "s", data, "t".format, "image", shown=shown))
    )
    (camera,) = found.cameras
    assert camera.path == "steps/observation/images.front"
    assert (camera.sizes, camera.codecs) == ({"64x48": 3}, {"PNG": 3})
    assert (camera.absent, camera.still, camera.blank) == (0, 1, 1)
    wrong = examples(found)
    assert wrong["missing pictures"] == [(None, "images.front shows one colour in 1 of 3 episodes")]
    ((episode, text),) = wrong["repeated pictures"]
    assert episode == 1 and "3 of 12 pictures" in text and "steps 5 to 7" in text


def test_videos(tmp_path):
    data = folders.episodes(lengths=(12, 12, 12, 12))
    path = folders.write(tmp_path / "s", data, pictures="video")
    folder = tmp_path / "s/videos/chunk-000/observation.images.front"
    (folder / "episode_000000.mp4").unlink()
    cut = folder / "episode_000002.mp4"
    cut.write_bytes(cut.read_bytes()[:400])
    folders.write_video(folder / "episode_000003.mp4", [folders.picture(3, i) for i in range(9)])
    found = summary.summarise(opened(path))
    (camera,) = found.cameras
    assert (camera.sizes, camera.codecs) == ({"64x48": 2}, {"h264": 2})
    assert camera.absent == 1 and camera.present == (1, 3)
    wrong = examples(found)
    assert wrong["missing pictures"] == [(None, "images.front lacks pictures in 1 of 4 episodes")]
    ((episode, text),) = wrong["unreadable pictures"]
    assert episode == 2 and "episode_000002.mp4 is no video" in text
    ((episode, text),) = wrong["short video"]
    assert episode == 3 and text.endswith("3 pictures are missing")


def test_repeats_in_a_video_are_seen_in_shown_episodes(tmp_path):
    data = folders.episodes(lengths=(14, 14))
    shown = lambda e, step: folders.picture(e, 6 if e == 1 and step in (7, 8) else step)  # noqa: E731
    dataset = opened(folders.write(tmp_path / "s", data, pictures="video", shown=shown))
    found = summary.summarise(dataset)
    problems = [samples.read(dataset, found, i).problems for i in range(2)]
    assert problems[0] == ()
    ((kind, text),) = problems[1]
    assert kind == "repeated pictures" and "2 of 14" in text and "steps 7 to 8" in text


def test_sizes_that_differ(tmp_path):
    data = folders.episodes(lengths=(3, 3))
    shown = lambda e, step: folders.picture(e, step)[: 48 - 16 * e]  # noqa: E731
    found = summary.summarise(
        opened(folders.write(tmp_path / "s", data, pictures="image", shown=shown))
    )
    assert found.cameras[0].sizes == {"64x48": 1, "64x32": 1}
    ((_, text),) = examples(found)["differing pictures"]
    assert "64x48, 64x32" in text


@pytest.mark.parametrize("blob", [b"", b"no picture", folders.encoded(folders.picture(0, 0))[:60]])
def test_damaged_first_picture(blob):
    meter = cameras.CameraMeter("steps/observation/front")
    good = folders.encoded(folders.picture(0, 1))
    wrong = list(meter.add(0, example_proto.object_array([blob, good])))
    ((kind, text),) = wrong
    assert kind == "unreadable pictures" and text.startswith("front, step 0: ")
    assert meter.result().sizes == {}


def test_flat_pictures():
    def jpeg(pixels):
        out = io.BytesIO()
        PIL.Image.fromarray(pixels).save(out, "JPEG")
        return cameras.as_image(out.getvalue())

    assert cameras.is_flat(jpeg(np.full((16, 16, 3), 7, np.uint8)))
    assert cameras.is_flat(jpeg(np.full((16, 16), 200, np.uint8)))
    assert not cameras.is_flat(jpeg(folders.picture(0, 3)))
    assert cameras.is_flat(cameras.as_image(np.full((5, 5, 1), 9, np.uint8)))
    assert not cameras.is_flat(cameras.as_image(folders.picture(0, 3)))


def test_pictures_as_pixels():
    meter = cameras.CameraMeter("steps/observation/front")
    pixels = np.stack([folders.picture(0, i) for i in (0, 1, 1, 2)])
    ((kind, text),) = meter.add(0, pixels)
    assert kind == "repeated pictures" and text.startswith("front: 1 of 4 pictures")
    assert list(meter.add(1, np.zeros((3, 48, 64, 3), np.uint8))) == []
    found = meter.result()
    assert (found.sizes, found.codecs) == ({"64x48": 2}, {"raw": 2})
    assert (found.still, found.blank, found.present) == (1, 1, (0, 1))
