"""Sources with pictures in videos: every picture is that of its step, or masked."""

import functools
import itertools
import json

import av
import jax
import numpy as np
import psutil
import pytest

from ambient_jax import mixing, schedules
from ambient_jax.data import pipeline, source
from ambient_jax.open_x import source as open_x
from tests.data.storage import lerobot_folders as folders
from tests.data.storage.lerobot_folders import FRONT, WRIST

VP, LAW = schedules.vp(), mixing.Ambient()
ROLES = {"primary": FRONT, "wrist": WRIST}
SPEC = {
    "action": "joint action",
    "state": "observation/state",
    "language": "language_instruction",
    "primary": "observation/images.front",
    "wrist": "observation/images.wrist",
}
FORM = {"cameras": tuple(ROLES), "image_size": (32, 48), "instruction_bytes": 30}
LENGTHS = (7, 1, 5, 4, 9, 6, 3, 8)
TABLES = ((0, 1, 2), (3, 4, 5, 6), (7,))
VIDEOS = {FRONT: ((0,), (1, 2, 3, 4, 5), (6, 7)), WRIST: (range(8),)}


@functools.cache
def whole(path):
    with av.open(path) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def v3(root):
    return folders.write_v3(root, LENGTHS, TABLES, VIDEOS)


def v2(root, **options):
    return folders.write_v2(root, (7, 1, 25, 6), **options)


def video_of(root, number, camera=FRONT):
    return root / f"videos/chunk-000/{camera}/episode_{number:06d}.mp4"


def damage(path):
    """Changes bytes of a picture in the middle."""
    blob = bytearray(path.read_bytes())
    begin = blob.index(b"mdat")
    middle = begin + int.from_bytes(blob[begin - 4 : begin]) // 2
    for i in range(middle, middle + 6):
        blob[i] ^= 0x55
    path.write_bytes(blob)


@pytest.fixture
def opened(make_common):
    """``opened(folder, spec, **on_problem)``: a mixture of one source."""

    def open_one(folder, spec=SPEC, window=10_000, **on_problem):
        form = FORM | {"on_problem": on_problem}
        fields = {"history": 3, "horizon": 3, "shuffle_window": window}
        return pipeline.open_mixture(
            make_common({"robot": (folder, spec, {})}, form, **fields), LAW
        )

    return open_one


def stream(mixture, seed=0):
    return pipeline.stream_batches(mixture, LAW, VP, seed=seed, batch_size=8)


def rows(mixture, count):
    """(episode, step, observation) of the rows of some batches."""
    batches = stream(mixture)
    try:
        for batch in itertools.islice(batches, count):
            for i, (_, episode, step) in enumerate(batch["id"].tolist()):
                yield episode, step, {n: v[i] for n, v in batch["observation"].items()}
    finally:
        batches.close()


@pytest.mark.parametrize("window", [1, 10, 10_000])
def test_every_picture_is_that_of_its_step(opened, tmp_path, window):
    """Of one file's many episodes too, with windows of one episode, of some, and of all."""
    mixture = opened(v3(tmp_path / "v3"), window=window)
    begin, videos = {}, {}
    for role, camera in ROLES.items():
        for number, episodes in enumerate(VIDEOS[camera]):
            path = tmp_path / f"v3/videos/{camera}/chunk-000/file-{number:03d}.mp4"
            for first, episode in zip(
                np.cumsum([0, *(LENGTHS[e] for e in episodes)]), episodes, strict=False
            ):
                begin[role, episode], videos[role, episode] = int(first), str(path)
    seen = set()
    for episode, step, observed in rows(mixture, 12):
        past = np.maximum(step - 2 + np.arange(3), 0)
        for role in ROLES:
            pictures = whole(videos[role, episode])[begin[role, episode] + past]
            np.testing.assert_array_equal(observed[f"image_{role}"], pictures)
            assert observed[f"image_{role}_mask"].all()
        seen.add((episode, step))
    assert seen == {(e, t) for e, length in enumerate(LENGTHS) for t in range(length)}


def test_a_resumed_stream_gives_the_same_bits(opened, tmp_path):
    mixture = opened(v3(tmp_path / "v3"), window=10)
    batches, resumed = stream(mixture, seed=3), stream(mixture, seed=3)
    try:
        for _ in range(4):
            next(batches)
        resumed.set_state(json.loads(json.dumps(batches.get_state())))
        for _ in range(6):
            jax.tree.map(np.testing.assert_array_equal, next(batches), next(resumed))
    finally:
        batches.close()
        resumed.close()


def test_bytes_of_a_window_are_known_before_it_is_read(opened, tmp_path):
    root = v2(tmp_path / "v2")
    video_of(root, 3).unlink()
    mixture = opened(
        root, SPEC | {"wrist": f"{SPEC['wrist']} | if next.done"}, camera="keep", flag="keep"
    )
    data = mixture.datasets["robot"]
    for position in range(len(data)):
        episode = data[position]
        held = data.extras(episode)
        size = sum(
            len(blob) if isinstance(blob, bytes) else blob.nbytes
            for values in held.values()
            for blob in values
        )
        assert data.extra_bytes(episode) == size == source.size_of(held)
        # All of the front camera but in episode 3, one of the wrist's.
        shown = 1 + (position != 3) * len(episode["steps"]["action"])
        assert 0 <= size - shown * 32 * 48 * 3 < 1000


def test_statistics_of_another_size_of_pictures_are_not_reused(make_common, tmp_path):
    root = v2(tmp_path / "v2")
    sizes = []
    for size in ((8, 8), (32, 48)):
        config = make_common({"robot": (root, SPEC, {})}, FORM | {"image_size": size})
        sizes.append(pipeline.open_mixture(config, LAW).statistics["robot"].step_bytes)
    assert np.isclose(sizes[1] - sizes[0], 2 * 3 * (32 * 48 - 8 * 8))  # of two cameras


def test_a_flag_masks_the_pictures_of_a_video(opened, tmp_path):
    mixture = opened(
        v2(tmp_path / "v2"), SPEC | {"primary": f"{SPEC['primary']} | if next.done"}, flag="keep"
    )
    lengths, seen = mixture.statistics["robot"].lengths, set()
    for episode, step, observed in rows(mixture, 8):
        past = np.maximum(step - 2 + np.arange(3), 0)
        there = past == lengths[episode] - 1
        np.testing.assert_array_equal(observed["image_primary_mask"], there)
        assert not observed["image_primary"][~there].any()
        assert observed["image_primary"][there].any((1, 2, 3)).all()
        assert observed["image_wrist_mask"].all()
        seen |= set(there.tolist())
    assert seen == {True, False}


@pytest.mark.parametrize("flagged", [False, True])
@pytest.mark.parametrize("harm", ["missing", "damaged", "short"])
def test_policies_for_a_video_that_is_missing_damaged_or_too_short(opened, tmp_path, harm, flagged):
    root = v2(tmp_path / "v2", codecs={FRONT: "mpeg4"})  # whose damage shows
    path = video_of(root, 2)
    if harm == "short":
        folders.write_video(path, [folders.picture(2, i) for i in range(20)])
    else:
        path.unlink() if harm == "missing" else damage(path)
    kind = "camera" if harm == "missing" else "image"
    spec, others = SPEC, {"flag": "keep"}
    if flagged:
        spec = SPEC | {"primary": f"{SPEC['primary']} | if next.done"}
    with pytest.raises(ValueError, match="episode_000002.mp4") as caught:
        list(rows(opened(root, spec, **others, **{kind: "raise"}), 8))
    assert "\n" not in str(caught.value) and f"on_problem.{kind}" in str(caught.value)
    mixture = opened(root, spec, **others, **{kind: "skip"})
    assert mixture.statistics["robot"].lengths.tolist() == [7, 1, 0, 6]
    assert mixture.problems["robot"][kind]["skipped"] == 1
    assert {episode for episode, _, _ in rows(mixture, 8)} == {0, 1, 3}
    mixture = opened(root, spec, **others, **{kind: "keep"})
    assert mixture.statistics["robot"].lengths.tolist() == [7, 1, 25, 6]
    masks = {}
    for episode, _, observed in rows(mixture, 12):
        masks.setdefault(episode, []).append(observed["image_primary_mask"].any())
        assert observed["image_wrist_mask"].all()
    assert not any(masks.pop(2))
    assert set(masks) == {0, 1, 3} and all(map(any, masks.values()))


def test_a_folder_may_be_renamed(tmp_path):
    root, form = v2(tmp_path / "v2"), open_x.CommonForm(**FORM)
    before = open_x.open_source(root, "train", SPEC, form).fingerprint
    renamed = root.rename(tmp_path / "renamed")
    assert open_x.open_source(renamed, "train", SPEC, form).fingerprint == before
    assert open_x.open_source(renamed, "train[:2]", SPEC, form).fingerprint != before
    other = SPEC | {"state": "observation/state[0:2]"}
    assert open_x.open_source(renamed, "train", other, form).fingerprint != before


@pytest.mark.slow
def test_memory_is_flat_over_a_hundred_thousand_pictures(opened, tmp_path):
    """Two cameras, windows of two or three episodes: pictures of past windows are let go."""
    lengths = (150, 220, 90, 180, 240, 130, 200, 170)
    videos = {camera: ((0, 1, 2), (3, 4, 5, 6, 7)) for camera in (FRONT, WRIST)}
    root = folders.write_v3(tmp_path / "data", lengths, ((0, 1, 2, 3), (4, 5, 6, 7)), videos)
    batches = stream(opened(root, window=400))
    process, pictures, sizes = psutil.Process(), 0, []
    while pictures < 120_000:
        batch = next(batches)
        pictures += sum(batch["observation"][f"image_{c}_mask"][:, -1].sum() for c in ROLES)
        if pictures >= 20_000 + 1000 * len(sizes):
            sizes.append(process.memory_info().rss / 2**20)
    batches.close()
    early, late = np.median(sizes[:20]), np.median(sizes[-20:])
    assert late < early + 30, f"{early:.0f} MiB after 20 000 pictures, {late:.0f} at the end"
