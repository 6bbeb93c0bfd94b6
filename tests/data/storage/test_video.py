"""Clips of a video against PyAV's decoding of the whole file from its beginning."""

from fractions import Fraction

import av
import numpy as np
import pytest

from ambient_jax.data.storage.video import Clip
from tests.data.storage import lerobot_folders as folders

HZ, N = 10, 60
EVEN = np.arange(N) / HZ
PICTURES = np.stack([folders.picture(0, i, size=(64, 96)) for i in range(N)])  # less breaks libx265
CLOSED = "scenecut=0:keyint=12:min-keyint=12:bframes=3:b-adapt=0:log-level=none"
# Where key frames lie in the file, and when they are shown, differs between these.
CODINGS = {
    "key frames only": ("libx264", {"g": "1"}),
    "B frames": ("libx264", {"x264-params": CLOSED}),
    "open groups": ("libx264", {"x264-params": f"{CLOSED}:open-gop=1"}),
    "pyramids": ("libx264", {"x264-params": f"{CLOSED}:bframes=5:b-pyramid=normal"}),
    "refresh": ("libx264", {"x264-params": "intra-refresh=1:keyint=12:log-level=none"}),
    "mpeg4": ("mpeg4", {"g": "12", "bf": "2"}),
    "h265": ("libx265", {"x265-params": f"{CLOSED}:open-gop=1"}),
}


def write(path, coding=("libx264", {"g": "12", "bf": "0"}), times=None, audio=False):
    """The pictures at times in s, by default at even ones from 0 on."""
    encoder, options = coding
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=HZ, options=options)
        stream.height, stream.width = PICTURES.shape[1:3]
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, 1000)
        if audio:
            sound = container.add_stream("aac", rate=44_100)
        for i, at in enumerate(EVEN if times is None else times):
            frame = av.VideoFrame.from_ndarray(PICTURES[i], format="rgb24")
            frame.pts, frame.time_base = round(1000 * at), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if audio:
            for i in range(N * 44_100 // HZ // 1024):
                samples = np.zeros((1, 1024), np.float32)
                frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 44_100, 1024 * i
                container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
    return path


def whole(path):
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def clip_of(path, times=EVEN, **options):
    return Clip(str(path), times, 1 / HZ, **options)


@pytest.mark.parametrize("coding", CODINGS)
def test_a_clip_from_any_step_on_is_what_the_whole_file_has(tmp_path, coding):
    path = write(tmp_path / "a.mp4", CODINGS[coding])
    expected = whole(path)
    assert len(expected) == N
    for first in range(N):
        found = clip_of(path)[first : first + 3].decode()
        np.testing.assert_array_equal(found, expected[first : first + 3])


def test_sound_beside_the_pictures_does_not_matter(tmp_path):
    path = write(tmp_path / "a.mp4", audio=True)
    np.testing.assert_array_equal(clip_of(path)[20:30].decode(), whole(path)[20:30])


@pytest.mark.parametrize("part", [slice(0, 0), slice(3, 9), slice(-4, None), slice(1, 50, 13)])
def test_a_slice_is_that_of_an_array(tmp_path, part):
    path = write(tmp_path / "a.mp4")
    expected, clip = whole(path), clip_of(path)[part]
    assert len(clip) == len(expected[part]) == len(clip.decode()) == len(list(clip))
    if len(clip):
        np.testing.assert_array_equal(clip.decode(), expected[part])
        np.testing.assert_array_equal(clip[-1], expected[part][-1])


def test_steps_may_see_the_same_picture(tmp_path):
    path = write(tmp_path / "a.mp4")
    steps = np.array([7, 7, 8, 8, 8, 20])
    np.testing.assert_array_equal(clip_of(path)[steps].decode(), whole(path)[steps])


def test_the_nearest_picture_within_a_quarter_of_a_step(tmp_path):
    path = write(tmp_path / "a.mp4")
    expected = whole(path)
    for shift in (0.24 / HZ, -0.24 / HZ):
        times = EVEN[5:9] + shift
        np.testing.assert_array_equal(clip_of(path, times).decode(), expected[5:9])
    for shift in (0.26 / HZ, 0.5 / HZ, -0.26 / HZ):
        with pytest.raises(ValueError, match="a.mp4 has no picture at .* it is cut, or has"):
            clip_of(path, EVEN[5:9] + shift).decode()


def test_pictures_are_found_by_their_times(tmp_path):
    jitter = EVEN + np.random.default_rng(0).uniform(-0.02, 0.02, N).clip(-EVEN)
    path = write(tmp_path / "jitter.mp4", times=jitter)
    np.testing.assert_array_equal(clip_of(path)[17:40].decode(), whole(path)[17:40])
    late = EVEN + 0.3 * (np.arange(N) >= 30)  # pictures were dropped in the middle
    path = write(tmp_path / "gap.mp4", times=late)
    np.testing.assert_array_equal(clip_of(path)[:30].decode(), whole(path)[:30])
    np.testing.assert_array_equal(clip_of(path)[33:].decode(), whole(path)[30:-3])
    with pytest.raises(ValueError, match="no picture at 3.000 s, the nearest is at 2.900 s"):
        clip_of(path).decode()


def test_sizes_are_those_asked_for(tmp_path):
    path = write(tmp_path / "a.mp4")
    small, large = clip_of(path)[:3].decode((16, 24)), whole(path)[:3]
    assert small.shape == (3, 16, 24, 3)
    blocks = large.reshape(3, 16, 4, 24, 4, 3).mean((2, 4))  # antialiased: near the block's mean
    assert np.abs(small - blocks).mean() < 3
    assert clip_of(path)[:0].decode((8, 12)).shape == (0, 8, 12, 3)


def test_an_absent_video_says_why(tmp_path):
    clip = clip_of(tmp_path / "a.mp4", absent="the file is missing")
    assert len(clip) == N and "the file is missing" in repr(clip)
    assert clip[3:5].absent == clip.absent
    with pytest.raises(ValueError, match="a.mp4: the file is missing"):
        clip[0]


@pytest.mark.parametrize("encoder", ["libx264", "mpeg4"])
def test_pictures_that_cannot_be_decoded_are_refused_and_not_filled(tmp_path, encoder):
    path = write(tmp_path / "a.mp4", (encoder, {"g": "2", "bf": "0"}))
    blob = bytearray(path.read_bytes())
    begin = blob.index(b"mdat")
    middle = begin + int.from_bytes(blob[begin - 4 : begin]) // 2
    for i in range(middle, middle + 6):  # within a picture, whose length stays
        blob[i] ^= 0x55
    path.write_bytes(blob)
    damaged = clip_of(path)
    assert not damaged.problem() and not damaged[:20].problem(thorough=True)
    with pytest.raises(ValueError, match="a.mp4 (is damaged at|cannot be decoded)") as caught:
        damaged.decode()
    assert "\n" not in str(caught.value)
    assert damaged.problem(thorough=True) == str(caught.value)


def test_problems_that_a_header_shows(tmp_path):
    path = write(tmp_path / "a.mp4")
    assert not clip_of(path).problem()
    longer = clip_of(path, np.arange(N + 2) / HZ)
    assert longer.problem() == f"{path} has 6.000 s, its episode needs a picture at 6.100 s"
    (tmp_path / "b.mp4").write_bytes(b"no video at all" * 99)
    assert "b.mp4 is no video" in clip_of(tmp_path / "b.mp4").problem()
    with av.open(str(tmp_path / "c.mp4"), "w") as container:
        sound = container.add_stream("aac", rate=44_100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), "f4"), "fltp", "mono")
        frame.sample_rate = 44_100
        container.mux([*sound.encode(frame), *sound.encode(None)])
    assert clip_of(tmp_path / "c.mp4").problem().endswith("c.mp4 has no video stream")
    with pytest.raises(FileNotFoundError, match="d.mp4 does not exist"):
        clip_of(tmp_path / "d.mp4").decode()
