"""Decoding of camera images: against PIL, closed forms, and every way that it can be cut short."""

import io
import re
import struct
import threading
import time
import zlib

import numpy as np
import PIL.Image
import pytest

from ambient_jax.data import images

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


def by_hand(blob, size=SIZE):
    """The same by PIL alone."""
    with PIL.Image.open(io.BytesIO(blob)) as image:
        image = image.convert("RGB")
    if image.size != size[::-1]:
        image = image.resize(size[::-1], PIL.Image.Resampling.BILINEAR)
    return np.asarray(image)


def decode(blob, size=SIZE, bgr=False):
    out = np.full((*size, 3), 77, np.uint8)
    return out, images.decode_into(blob, out, bgr)


@pytest.fixture(scope="module")
def mixed():
    """[(blob, what PIL makes of it)]: equal, larger, smaller, odd, far larger, png."""
    shapes = [SIZE, (40, 50), (10, 12), (37, 61), (2 * 24, 2 * 32), (125, 257), (24 * 9, 32 * 9)]
    made = [encode(scene(*shape, seed), quality=90) for seed, shape in enumerate(shapes)]
    wanted = [by_hand(blob) for blob in made]
    for seed, shape in enumerate(shapes):
        made.append(encode(scene(*shape, seed), "PNG"))
        wanted.append(by_hand(made[-1]))
    return list(zip(made, wanted, strict=True))


@pytest.fixture(scope="module", params=[0, 1, 2])
def decoder(request):
    with images.ImageDecoder(SIZE, workers=request.param) as made:
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
    calls, really = [], images.decode_into
    monkeypatch.setattr(
        images, "decode_into", lambda blob, *rest: calls.append(blob) or really(blob, *rest)
    )
    with images.ImageDecoder(SIZE, workers=0) as decoder:
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


@pytest.mark.parametrize("shape", [(48, 64), (125, 257), (216, 288), (30, 41), (10, 12)])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_how_pixels_are_stored_does_not_matter(shape, subsampling):
    """A jpeg, a png of what it decodes to, and that frame itself: the same to the last bit."""
    rng = np.random.default_rng(0)
    jpeg = encode(rng.integers(0, 256, (*shape, 3), np.uint8), subsampling=subsampling)
    frame = by_hand(jpeg, shape)
    found, _ = decode(jpeg)
    np.testing.assert_array_equal(found, decode(encode(frame, "PNG"))[0])
    np.testing.assert_array_equal(found, images.resize(frame, SIZE))
    history = np.stack([frame, frame[::-1]])[None]
    np.testing.assert_array_equal(images.resize(history, SIZE)[0, 0], found)
    np.testing.assert_array_equal(images.decode(jpeg, SIZE), found)
    np.testing.assert_array_equal(images.decode(jpeg), frame)
    assert images.resize(frame, shape).tobytes() == frame.tobytes()


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
    found, reason = decode(cut)
    assert reason and not found.any()
    assert images.cannot_be_decoded(cut) and not images.cannot_be_decoded(blob)
    if kept == 0.99:  # its pixels are lost, its markers whole
        assert images.looks_whole(cut) == ""


def test_whole():
    for blob in (JPEG, PROGRESSIVE, PNG):
        for tail in (bytes(5), b"\n", b"cam0 t=12", b"\xff\xd8\xff", blob, b"\xff" * 9):
            padded = blob + tail
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
    assert decode(cmyk)[1].startswith("a CMYK jpeg of 4 colours, expected colour (3) or grey (1)")
    depth = encode(np.full(SIZE, 40000, np.uint16), "PNG")
    assert decode(depth)[1].startswith("a png of 16 bits a colour, expected 8")
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
        assert images.looks_whole(bytes(damaged)) == reason


def png(header, data, width=5, height=3):
    """A png by its standard: the header's depth, colour type and interlacing, and raw rows."""
    depth, colours, interlaced = header
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, interlaced),
        b"PLTE": bytes(range(9)),
        b"IDAT": data,
        b"IEND": b"",
    }
    told = b"\x89PNG\r\n\x1a\n"
    for kind, body in parts.items():
        told += struct.pack(">I", len(body)) + kind + body
        told += zlib.crc32(kind + body).to_bytes(4)
    return told


@pytest.mark.parametrize("interlaced", [0, 1])
@pytest.mark.parametrize("depth, colours, bits", [(8, 2, 24), (8, 6, 32), (1, 3, 1), (4, 0, 4)])
def test_a_png_says_what_its_rows_are(depth, colours, bits, interlaced):
    """5 x 3 pixels; by hand, an interlaced one's parts are 1x1, 1x1, none, 1x1, 3x1, 2x2, 5x1
    (width x height; of the pattern in its standard), 15 pixels in all."""
    parts = [(1, 1), (1, 1), (1, 1), (3, 1), (2, 2), (5, 1)] if interlaced else [(5, 3)]
    rows = b"".join((b"\0" + bytes((w * bits + 7) // 8)) * h for w, h in parts)
    whole = png((depth, colours, interlaced), zlib.compress(rows))
    assert images.looks_whole(whole) == decode(whole)[1] == ""
    for damaged, told in {
        zlib.compress(rows[:-1]): "it is cut",
        zlib.compress(b"\x05" + rows[1:]): "no such filter",
        zlib.compress(rows)[:4]: "it is cut|cannot be unpacked",
        b"junk" + zlib.compress(rows): "cannot be unpacked",
    }.items():
        blob = png((depth, colours, interlaced), damaged)
        assert re.search(told, images.looks_whole(blob)) and decode(blob)[1]


VARIANTS = {
    "jpeg": encode(scene(40, 50)),
    "progressive": encode(scene(40, 50), progressive=True),
    "restarts": encode(scene(40, 50), restart_marker_blocks=1),
    "grey jpeg": encode(scene(40, 50), mode="L"),
    "444": encode(scene(40, 50), subsampling=0),
    "exif": encode(scene(40, 50), exif=b"Exif\0\0\xff\xd9\xff\xd9"),
    "a comment with an end in it": encode(scene(40, 50), comment=b"\xff\xd9"),
    "cmyk": encode(scene(40, 50), mode="CMYK"),
    "16 bits": encode(np.full((40, 50), 40000, np.uint16), "PNG"),
    "png": PNG,
    "grey png": encode(scene(40, 50), "PNG", "L"),
    "one bit": encode(scene(40, 50), "PNG", "1"),
    "palette": encode(scene(40, 50), "PNG", "P"),
    "palette, transparent": encode(scene(40, 50), "PNG", "P", transparency=3),
    "alpha": encode(scene(40, 50), "PNG", "RGBA"),
    "animated": encode(
        scene(40, 50),
        "PNG",
        save_all=True,
        append_images=[PIL.Image.fromarray(scene(40, 50, 1))],
    ),
    "stored": encode(scene(40, 50), "PNG", compress_level=0),
    "bmp": encode(scene(40, 50), "BMP"),
    "gif": encode(scene(40, 50), "GIF"),
}
REFUSED = ("cmyk", "16 bits", "bmp", "gif")


@pytest.mark.parametrize("kind", VARIANTS)
def test_check_and_decoder_agree(kind):
    blob = VARIANTS[kind]
    found, reason = decode(blob)
    assert images.looks_whole(blob) == reason == images.cannot_be_decoded(blob)
    assert bool(reason) == (kind in REFUSED) and "\n" not in reason
    if not reason:
        np.testing.assert_array_equal(found, by_hand(blob))
    # Wherever it is damaged: what the check finds, the decoder does not take, and what it does not
    # find may be a jpeg's pixels.
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(blob)
        damaged[rng.integers(len(blob))] ^= int(rng.integers(1, 256))
        damaged = bytes(damaged[: rng.integers(len(blob) // 2, len(blob) + 1)])
        reason = decode(damaged)[1]
        assert not images.looks_whole(damaged) or reason
        assert bool(images.cannot_be_decoded(damaged)) == bool(reason)


def test_failures_are_named_by_image(decoder):
    found, failures = decoder.submit([JPEG, JPEG[:-30], PNG, PNG[:60], JPEG[:-30]]).result()
    assert set(failures) == {1, 3, 4} and all(0 < len(text) < 201 for text in failures.values())
    assert not found[[1, 3, 4]].any()
    np.testing.assert_array_equal(found[[0, 2]], [by_hand(JPEG), by_hand(PNG)])


def test_every_image_fails(decoder):
    batch = [b"\xff\xd8\xff" + bytes([i]) for i in range(32)]
    for _ in range(10):
        pending = decoder.submit(batch)
    found, failures = pending.result()
    assert set(failures) == set(range(32)) and not found.any()


def test_results_out_of_order(decoder, mixed):
    rng = np.random.default_rng(0)
    orders = [rng.integers(0, len(mixed), rng.integers(0, 33)) for _ in range(12)]
    pending = [decoder.submit([mixed[i][0] for i in order]) for order in orders]
    for k in rng.permutation(12):
        found, failures = pending[k].result()
        assert not failures and len(found) == len(orders[k])
        for image, i in zip(found, orders[k], strict=True):
            np.testing.assert_array_equal(image, mixed[i][1])


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
    with pytest.raises(ValueError, match="workers of the image decoder is -1, expected at least 0"):
        images.ImageDecoder(SIZE, workers=-1)
    with images.ImageDecoder(SIZE, workers=0) as decoder:
        with pytest.raises(ValueError, match=r"bgr has shape \(1,\), expected \[2\]"):
            decoder.submit([JPEG] * 2, np.zeros(1, bool))
        with pytest.raises(TypeError, match=r"blob 1 is a NoneType, expected bytes"):
            decoder.submit([JPEG, None])


@pytest.fixture
def held(monkeypatch):
    """Decoding waits until this event is set."""
    event, really = threading.Event(), images.decode_into
    monkeypatch.setattr(images, "decode_into", lambda *given: event.wait() and really(*given))
    yield event
    event.set()


def test_a_batch_is_decoded_in_the_background(held):
    with images.ImageDecoder(SIZE, workers=1) as decoder:
        pending = decoder.submit([JPEG] * 3)
        held.set()
        np.testing.assert_array_equal(pending.result()[0], [by_hand(JPEG)] * 3)


@pytest.mark.parametrize("workers", [0, 2])
def test_close(workers):
    before = set(threading.enumerate())
    decoder = images.ImageDecoder(SIZE, workers=workers)
    pending = decoder.submit([JPEG])
    pending.result()
    decoder.close()
    decoder.close()
    assert set(threading.enumerate()) <= before
    np.testing.assert_array_equal(pending.result()[0], [by_hand(JPEG)])
    with pytest.raises(RuntimeError, match="the image decoder is closed"):
        decoder.submit([JPEG])


def test_close_while_a_thread_waits(held):
    decoder, errors = images.ImageDecoder(SIZE, workers=1), []
    decoder.submit([JPEG])
    pending = decoder.submit([JPEG])

    def wait():
        try:
            pending.result()
        except RuntimeError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=act) for act in (wait, decoder.close)]
    for thread in threads:
        thread.start()
    threads[0].join(20)
    assert errors == ["the image decoder is closed"]
    held.set()
    threads[1].join(20)
    assert not threads[1].is_alive()


def test_a_decoder_that_is_gone_leaves_no_thread():
    before = set(threading.enumerate())
    decoder = images.ImageDecoder(SIZE, workers=2)
    decoder.submit([JPEG, PNG]).result()
    assert set(threading.enumerate()) - before
    del decoder
    end = time.monotonic() + 20
    while set(threading.enumerate()) - before and time.monotonic() < end:
        time.sleep(0.01)
    assert set(threading.enumerate()) <= before


def test_a_decoder_writes_where_it_is_told(decoder, mixed):
    """Scattered rows of a batch, a repeated object and an empty one."""
    blobs = [mixed[0][0], b"", mixed[1][0], mixed[0][0]]
    batch = np.full((9, *SIZE, 3), 7, np.uint8)
    rows = [8, 1, 4, 2]
    found, failures = decoder.submit(blobs, out=[batch[row] for row in rows]).result()
    assert not failures
    for row, blob, image in zip(rows, blobs, found, strict=True):
        assert np.shares_memory(image, batch)
        np.testing.assert_array_equal(batch[row], decode(blob)[0])
    assert (batch[[0, 3, 5, 6, 7]] == 7).all()


def test_a_pending_batch_says_when_it_is_done(held):
    with images.ImageDecoder(SIZE, workers=1) as decoder:
        pending = decoder.submit([JPEG])
        assert not pending.done()
        held.set()
        pending.result()
        assert pending.done()


def test_a_jpeg_may_be_filled_before_its_markers():
    """Any number of ff may precede a marker; ff 00 and restarts in the data are none (T.81 B.1)."""
    scan = JPEG.index(b"\xff\xda")
    filled = JPEG[:scan] + b"\xff\xff\xff" + JPEG[scan:-2] + b"\xff\xff\xff\xd9"
    assert images.jpeg_size(filled) == images.jpeg_size(JPEG)
    for end in (b"\xff", b"\xff\x00", b"\xff\xff\x00", b"\xff\xd7", b"\xff\xff\xff"):
        with pytest.raises(ValueError, match="a jpeg without its end"):
            images.jpeg_size(JPEG[:-2] + end)
