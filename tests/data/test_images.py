"""Decoding of camera images: against PIL, closed forms, and every way that it can be cut short."""

import io
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import PIL.Image
import psutil
import pytest

from ambient_jax.data import image_worker, images

SIZE = (24, 32)


def scene(height, width, seed=0):
    """Smooth, with an edge: [H, W, 3] uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 16
    waves = [np.sin(rng.normal() * x + rng.normal() * y + rng.normal()) for _ in range(3)]
    image = np.stack(waves, -1) * 90 + 128
    image[height // 2 :, : width // 3] = rng.integers(0, 255, 3)
    return image.astype(np.uint8)


def encode(image, kind="JPEG", mode=None, **options):
    out = io.BytesIO()
    picture = PIL.Image.fromarray(image)
    (picture.convert(mode) if mode else picture).save(out, kind, **options)
    return out.getvalue()


def by_hand(blob, size=SIZE, draft=None):
    """The same by PIL alone; ``draft`` is the power of two to shrink by while decoding."""
    with PIL.Image.open(io.BytesIO(blob)) as image:
        if draft:
            image.draft("RGB", (image.width // draft, image.height // draft))
        image = image.convert("RGB")
    if image.size != size[::-1]:
        image = image.resize(size[::-1], PIL.Image.Resampling.BILINEAR)
    return np.asarray(image)


def decode(blob, size=SIZE, bgr=False):
    out = np.full((*size, 3), 77, np.uint8)
    return out, image_worker.decode(blob, out, bgr)


@pytest.fixture(scope="module")
def mixed():
    """[(blob, what PIL makes of it)]: equal, larger, smaller, odd, far larger, png."""
    shapes = [SIZE, (40, 50), (10, 12), (37, 61), (2 * 24, 2 * 32), (125, 257), (24 * 9, 32 * 9)]
    drafts = [None, None, None, None, 2, 4, 8]
    made = [encode(scene(*shape, seed), quality=90) for seed, shape in enumerate(shapes)]
    wanted = [by_hand(blob, draft=draft) for blob, draft in zip(made, drafts, strict=True)]
    for seed, shape in enumerate(shapes):
        made.append(encode(scene(*shape, seed), "PNG"))
        wanted.append(by_hand(made[-1]))
    return list(zip(made, wanted, strict=True))


@pytest.fixture(scope="module", params=[0, 1, 2])
def decoder(request):
    with images.ImageDecoder(SIZE, workers=request.param, capacity=32, in_flight=3) as made:
        yield made


def test_same_bits_as_pil_in_order(decoder, mixed):
    order = np.random.default_rng(0).permutation(2 * len(mixed)) % len(mixed)
    found, failures = decoder.submit([bytes(bytearray(mixed[i][0])) for i in order]).result()
    assert failures == {}
    assert found.dtype == np.uint8 and found.flags.writeable and found.flags.owndata
    np.testing.assert_array_equal(found, np.stack([mixed[i][1] for i in order]))


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("JPEG", "L"), ("PNG", "L"), ("PNG", "1"), ("PNG", "P"), ("PNG", "LA"), ("PNG", "RGBA")],
)
@pytest.mark.parametrize("shape", [SIZE, (40, 50)])
def test_always_rgb(kind, mode, shape):
    blob = encode(scene(*shape), kind, mode)
    for bgr in (False, True):
        found, reason = decode(blob, bgr=bgr)
        assert not reason
        wanted = by_hand(blob)
        np.testing.assert_array_equal(found, wanted[..., ::-1] if bgr else wanted)


def test_bgr(decoder, mixed):
    flip = np.arange(len(mixed)) % 3 == 1
    found, _ = decoder.submit([blob for blob, _ in mixed], flip).result()
    for image, (_, wanted), flipped in zip(found, mixed, flip, strict=True):
        np.testing.assert_array_equal(image, wanted[..., ::-1] if flipped else wanted)


def test_one_object_twice_and_none(decoder, mixed):
    (a, image_a), (b, image_b) = mixed[1], mixed[-1]
    found, failures = decoder.submit(
        [a, b"", a, b, a, b"junk", b""], np.array([0, 0, 1, 0, 0, 0, 0], bool)
    ).result()
    none = np.zeros_like(image_a)
    wanted = [image_a, none, image_a[..., ::-1], image_b, image_a, none, none]
    np.testing.assert_array_equal(found, np.stack(wanted))
    assert failures == {5: "neither jpeg nor png, it begins with 6a 75 6e 6b"}
    for empty in ([], [b"", b""]):
        found, failures = decoder.submit(empty).result()
        assert found.shape == (len(empty), *SIZE, 3) and not found.any() and not failures


def test_an_object_twice_is_decoded_once(monkeypatch, mixed):
    calls, really = [], image_worker.decode
    monkeypatch.setattr(
        image_worker, "decode", lambda blob, *rest: calls.append(blob) or really(blob, *rest)
    )
    with images.ImageDecoder(SIZE, workers=0, capacity=9) as decoder:
        decoder.submit([mixed[0][0]] * 8 + [mixed[1][0]]).result()
    assert calls == [mixed[0][0], mixed[1][0]]


@pytest.mark.parametrize("shape", [(50, 70), (200, 300), (13, 20)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_resize_of_a_constant_is_the_constant(shape, kind):
    blob = encode(np.full((*shape, 3), 130, np.uint8), kind)
    found, reason = decode(blob)
    # A grey of one level is one DC coefficient: 8 * (130 - 128), a multiple of quality 75's step.
    assert not reason and (found == 130).all()


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("scale", [2, 3, 5])
def test_resize_of_a_ramp_is_the_ramp(axis, scale):
    """The triangle is symmetric, so where it stays inside, a ramp comes out as itself."""
    size = (SIZE[0] * scale, SIZE[1] * scale)
    ramp = np.moveaxis(
        np.broadcast_to(np.arange(size[axis]), (size[1 - axis], size[axis])), 1, axis
    )
    found, _ = decode(encode(np.repeat(ramp[..., None], 3, -1).astype(np.uint8), "PNG"))
    centres = (np.arange(SIZE[axis]) + 0.5) * scale - 0.5  # the middle of a pixel is at + 0.5
    wanted = np.expand_dims(centres, (1 - axis, 2))
    inside = (slice(None),) * axis + (slice(1, -1),)
    # Half a level of rounding; PIL's weights are integers / 2^22.
    assert np.abs(found - wanted)[inside].max() <= 0.5 + 0.01
    # A filter of unwidened bilinear interpolation would pass this too: stripes tell them apart.
    stripes = np.zeros((*size, 3), np.uint8)
    stripes[(slice(None),) * axis + (slice(None, None, 2 * scale),)] = 255
    found, _ = decode(encode(stripes, "PNG"))
    # One bright row in 2 * scale: each output is some part of it, and their mean is kept.
    assert abs(found[inside].mean() - 255 / (2 * scale)) < 255 / (2 * scale) * 0.1
    assert found[inside].max() <= 255 / scale + 1  # the triangle's peak is 1 / scale


@pytest.mark.parametrize("shrink", [2, 4, 8])
def test_shrinking_while_decoding_is_the_mean_of_blocks(shrink):
    """The reduced transforms of libjpeg give averages of adjacent outputs (its jidctred.c)."""
    blob = encode(scene(SIZE[0] * shrink, SIZE[1] * shrink), quality=95, mode="L")
    found, _ = decode(blob)
    full = by_hand(blob, (SIZE[0] * shrink, SIZE[1] * shrink)).astype(float)
    blocks = full.reshape(SIZE[0], shrink, SIZE[1], shrink, 3).mean((1, 3))
    # Both round, by 1/2; where the full one clips to 0 or 255 it may be more, so not there.
    inside = (full.reshape(SIZE[0], shrink, SIZE[1], shrink, 3) % 255 > 0).all((1, 3))
    assert inside.mean() > 0.9
    assert np.abs(found - blocks)[inside].max() <= 1


def response(k, ratio, count, shrink):
    """What the triangle passes of exp(i k x) to each of ``count`` pixels, around its middle.

    ``ratio`` is its half width, in pixels that are means of ``shrink`` pixels.
    """
    passed = []
    for centre in (np.arange(count) + 0.5) * ratio:
        taps = np.arange(np.floor(centre - ratio) - 1, centre + ratio + 1) + 0.5 - centre
        weight = np.maximum(0, 1 - np.abs(taps) / ratio)
        passed.append((weight * np.exp(1j * k * shrink * taps)).sum() / weight.sum())
    within = np.arange(shrink) - (shrink - 1) / 2
    return np.array(passed) * np.exp(1j * k * within).mean()


@pytest.mark.parametrize("scale", [2, 3, 4, 5, 7, 8, 9.25])
def test_shrinking_while_decoding_is_close_to_resizing_all(scale):
    """On a wave they differ by no more than what their two filters pass of it, and rounding."""
    height, width = round(SIZE[0] * scale), round(SIZE[1] * scale)
    amplitude, k = 100, 2 * np.pi / 64
    wave = np.round(128 + amplitude * np.sin(k * np.arange(width))).astype(np.uint8)
    blob = encode(np.broadcast_to(wave[:, None], (height, width, 3)), quality=100)
    shrink = max(s for s in (2, 4, 8) if s <= scale)
    ours = response(k, scale / shrink, SIZE[1], shrink)
    bound = amplitude * np.abs(ours - response(k, scale, SIZE[1], 1))
    found, _ = decode(blob)
    error = np.abs(found - by_hand(blob).astype(int)).max((0, 2))
    # Both paths round twice or three times, by 1/2; the ends of the filter are cut at the border.
    assert (error <= bound + 2)[1:-1].all()
    assert bound[1:-1].max() < 6  # of 200, for a wave of 64 pixels of the source, 7 to 32 of ours


JPEG = encode(scene(40, 50), quality=90)
PROGRESSIVE = encode(scene(40, 50), quality=90, progressive=True)
PNG = encode(scene(40, 50), "PNG")


@pytest.mark.parametrize("blob", [JPEG, PROGRESSIVE, PNG], ids=["jpeg", "progressive", "png"])
@pytest.mark.parametrize("kept", [0.001, 0.02, 0.3, 0.5, 0.9, 0.99, -12, -2, -1])
@pytest.mark.parametrize("size", [SIZE, (40, 50), (10, 10)])
def test_truncated(blob, kept, size):
    cut = blob[: kept if kept < 0 else max(4, int(kept * len(blob)))]
    assert images.looks_whole(cut)
    found, reason = decode(cut, size)
    assert reason and not found.any()


@pytest.mark.parametrize("blob", [JPEG, PROGRESSIVE], ids=["jpeg", "progressive"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9, 0.99])
def test_a_jpeg_cut_and_closed_is_not_filled_with_grey(blob, kept):
    cut = blob[: int(kept * len(blob))] + b"\xff\xd9"
    assert not images.looks_whole(cut)  # its ends are all that this looks at
    found, reason = decode(cut)
    assert reason and not found.any()


def test_whole():
    for blob in (JPEG, PROGRESSIVE, PNG):
        for padded in (blob, blob + bytes(5)):
            assert images.looks_whole(padded) == ""
            found, reason = decode(padded)
            assert not reason
            np.testing.assert_array_equal(found, by_hand(blob))
    assert images.looks_whole(b"") == ""
    for junk in (b"GIF89a", b"\0\0", bytes(1000)):
        assert "neither jpeg nor png" in images.looks_whole(junk)
        assert "neither jpeg nor png" in decode(junk)[1]


def test_what_is_no_camera_image():
    cmyk = encode(scene(*SIZE), mode="CMYK")
    assert decode(cmyk)[1] == "a CMYK jpeg, expected colour or grey"
    depth = encode(np.full(SIZE, 40000, np.uint16), "PNG")
    assert decode(depth)[1] == "a png of mode I;16, expected 8 bits a channel"
    # A header that says 65500 x 65500: refused before the memory is asked for.
    at = JPEG.index(b"\xff\xc0") + 5
    huge = JPEG[:at] + b"\xff\xdc\xff\xdc" + JPEG[at + 4 :]
    assert "65500 x 65500 pixels" in decode(huge)[1]


def test_a_damaged_png_is_noticed():
    """Each chunk has a checksum (which PIL passes over: some of these would be other pixels)."""
    for position in range(len(PNG)):
        damaged = bytearray(PNG)
        damaged[position] ^= 0x55
        found, reason = decode(bytes(damaged))
        assert reason and not found.any()


def test_failures_are_named_by_image(decoder):
    found, failures = decoder.submit([JPEG, JPEG[:-30], PNG, PNG[:60], JPEG[:-30]]).result()
    assert set(failures) == {1, 3, 4} and all(0 < len(text) < 201 for text in failures.values())
    assert not found[[1, 3, 4]].any()
    np.testing.assert_array_equal(found[[0, 2]], [by_hand(JPEG), by_hand(PNG)])


def test_every_image_fails(decoder):
    """More reports than a pipe holds, while nobody reads them."""
    batch = [b"\xff\xd8\xff" + bytes([i]) for i in range(32)]
    for _ in range(100):
        pending = decoder.submit(batch)
    found, failures = pending.result()
    assert set(failures) == set(range(32)) and not found.any()


def test_results_out_of_order_and_more_batches_than_slots(decoder, mixed):
    rng = np.random.default_rng(0)
    orders = [rng.integers(0, len(mixed), rng.integers(0, 33)) for _ in range(12)]
    pending = [decoder.submit([mixed[i][0] for i in order]) for order in orders]
    for k in rng.permutation(12):
        found, failures = pending[k].result()
        assert not failures and len(found) == len(orders[k])
        for image, i in zip(found, orders[k], strict=True):
            np.testing.assert_array_equal(image, mixed[i][1])
        with pytest.raises(RuntimeError, match="taken already"):
            pending[k].result()


def test_several_threads(decoder, mixed):
    wrong = []

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(20):
            order = rng.integers(0, len(mixed), 5)
            found, _ = decoder.submit([mixed[i][0] for i in order]).result()
            wrong.extend(i for i, x in zip(order, found, strict=True) if (x != mixed[i][1]).any())

    threads = [threading.Thread(target=work, args=[seed]) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_results_do_not_change_later(decoder):
    first, _ = decoder.submit([JPEG] * 3).result()
    copy = first.copy()
    for _ in range(6):
        decoder.submit([PNG, PNG]).result()
    np.testing.assert_array_equal(first, copy)


def test_bad_input():
    with pytest.raises(ValueError, match="capacity of the image decoder is 0"):
        images.ImageDecoder(SIZE, workers=0, capacity=0)
    with pytest.raises(ValueError, match=r"workers \+ 1 .* is 0"):
        images.ImageDecoder(SIZE, workers=-1, capacity=1)
    with images.ImageDecoder(SIZE, workers=0, capacity=2) as decoder:
        with pytest.raises(ValueError, match="3 images submitted, expected at most the capacity 2"):
            decoder.submit([JPEG] * 3)
        with pytest.raises(ValueError, match=r"bgr has shape \(1,\), expected \[2\]"):
            decoder.submit([JPEG] * 2, np.zeros(1, bool))
        with pytest.raises(TypeError, match=r"blob 1 is a NoneType, expected bytes"):
            decoder.submit([JPEG, None])


@pytest.mark.parametrize("workers", [0, 2])
def test_close(workers):
    decoder = images.ImageDecoder(SIZE, workers=workers, capacity=8)
    processes = [psutil.Process(process.pid) for process in decoder._processes]
    decoder.submit([JPEG]).result()
    pending = decoder.submit([encode(scene(1000, 1500))] * 8)
    decoder.close()
    decoder.close()
    assert not any(process.is_running() for process in processes)
    if workers:  # without, it was done at once
        with pytest.raises(RuntimeError, match="the image decoder is closed"):
            pending.result()
    with pytest.raises(RuntimeError, match="the image decoder is closed"):
        decoder.submit([JPEG])


def stopped(processes):
    """Stops the workers, so that what is submitted stays pending."""
    for process in processes:
        os.kill(process.pid, signal.SIGSTOP)


def test_close_while_a_thread_waits():
    decoder = images.ImageDecoder(SIZE, workers=2, capacity=8)
    decoder.submit([JPEG]).result()
    stopped(decoder._processes)
    errors = []

    def wait(pending):
        try:
            pending.result()
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=wait, args=[decoder.submit([JPEG])])
    thread.start()
    closing = threading.Thread(target=decoder.close)
    closing.start()
    thread.join(20)
    assert errors == ["the image decoder is closed"]
    for process in decoder._processes:
        os.kill(process.pid, signal.SIGCONT)
    closing.join(20)
    assert not closing.is_alive()
    assert all(process.returncode == 0 for process in decoder._processes)


@pytest.mark.parametrize("busy", [False, True])
def test_a_dead_worker_is_an_error(busy):
    with images.ImageDecoder(SIZE, workers=2, capacity=8) as decoder:
        decoder.submit([JPEG] * 8).result()
        stopped(decoder._processes)
        pending = decoder.submit([bytes(bytearray(JPEG)) for _ in range(8)]) if busy else None
        victim = decoder._processes[1]
        os.kill(victim.pid, signal.SIGKILL)
        os.kill(decoder._processes[0].pid, signal.SIGCONT)
        message = f"image worker {victim.pid} was killed by signal 9 .* memory"
        with pytest.raises(RuntimeError, match=message):
            # The other may take all of a batch, but its end is seen by some later one.
            while True:
                pending = pending or decoder.submit([JPEG])
                pending.result()
                pending = None
        with pytest.raises(RuntimeError, match=message):
            decoder.submit([JPEG])


def test_all_workers_dead():
    with images.ImageDecoder(SIZE, workers=2, capacity=8) as decoder:
        decoder.submit([JPEG]).result()
        for process in decoder._processes:
            process.kill()
            process.wait()
        with pytest.raises(RuntimeError, match="was killed by signal 9"):
            decoder.submit([JPEG]).result()


def test_workers_leave_signals_to_the_parent():
    with images.ImageDecoder(SIZE, workers=1, capacity=8) as decoder:
        decoder.submit([JPEG]).result()
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(decoder._processes[0].pid, number)
        found, _ = decoder.submit([JPEG]).result()
    np.testing.assert_array_equal(found[0], by_hand(JPEG))


PARENT = """
import sys, time
from ambient_jax.data import images
decoder = images.ImageDecoder((24, 32), workers=2, capacity=8)
blob = open(sys.argv[1], "rb").read()
pending = decoder.submit([blob])
if sys.argv[2] == "done":
    pending.result()
print(*(process.pid for process in decoder._processes), flush=True)
if sys.argv[2] != "exit":
    time.sleep(600)
"""


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def gone(pids, seconds=20):
    end = time.monotonic() + seconds
    while any(alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.02)
    return not any(alive(pid) for pid in pids)


@pytest.mark.parametrize("how", ["done", "pending", "exit"])
def test_no_worker_outlives_its_parent(tmp_path, how):
    (tmp_path / "image").write_bytes(JPEG)
    root = pathlib.Path(images.__file__).parents[2]
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "image"), how],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])},
    )
    with parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        if how == "exit":
            assert parent.wait(30) == 0
        else:
            assert all(psutil.pid_exists(pid) for pid in pids)
            parent.kill()
        parent.wait()
        assert gone(pids)


def test_a_worker_holds_little_and_leaves_nothing():
    before = set(os.listdir("/proc/self/fd"))
    shape, capacity = (64, 64), 16
    blobs = [encode(scene(64, 64, seed)) for seed in range(capacity)]
    with images.ImageDecoder(shape, workers=2, capacity=capacity) as decoder:
        process = psutil.Process(decoder._processes[0].pid)
        for _ in range(20):
            decoder.submit(blobs).result()
        loaded = {pathlib.Path(region.path).name for region in process.memory_maps()}
        file, grown = os.fstat(decoder._file).st_blocks, []
        # A leak of one decoded image in ten would be 3 MiB a round. On a busy machine this worker
        # may get its first images, and what it loads for them, only in a later round.
        while not grown or (grown[-1] >= 2**20 and len(grown) < 4):
            first = process.memory_info().rss
            for _ in range(300):
                decoder.submit(blobs).result()
            grown.append(process.memory_info().rss - first)
        assert grown[-1] < 2**20, grown
        assert os.fstat(decoder._file).st_blocks == file
        # Two rings of 16 images and as many encoded ones, in 512-byte blocks, and 16 pages.
        most = 2 * (capacity * 64 * 64 * 3 + sum(map(len, blobs))) + 16 * 4096
        assert file * 512 <= most
    assert not any("jax" in name for name in loaded)
    assert set(os.listdir("/proc/self/fd")) <= before
