"""Images that are damaged or of another kind, and frames of a robot in another form."""

import io
import struct
import zlib

import numpy as np
import PIL.Image

from ambient_jax.data import images
from ambient_jax.open_x.common_form import CommonForm
from ambient_jax.transforms.chain import Chain
from ambient_jax.transforms.normalizer import Normalizer

SIZE = (8, 8)
SCENE = np.random.default_rng(0).integers(0, 256, (16, 20, 3), np.uint8)


def encoded(image=SCENE, kind="PNG", mode=None, **options):
    out = io.BytesIO()
    picture = PIL.Image.fromarray(image)
    (picture.convert(mode) if mode else picture).save(out, kind, **options)
    return out.getvalue()


PNG, JPEG = encoded(), encoded(kind="JPEG")


def png_of(width, height, data=b"", depth=8, colours=2):
    """A png by its standard, with that header."""
    told = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    for kind, body in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b"")):
        told += struct.pack(">I", len(body)) + kind + body
        told += zlib.crc32(kind + body).to_bytes(4)
    return told


def flipped(blob, at):
    return blob[:at] + bytes([blob[at] ^ 255]) + blob[at + 1 :]


def jpeg_of(at, values):
    """The jpeg with other bytes in its frame's header: depth, height, width and colours."""
    first = JPEG.index(b"\xff\xc0") + 4 + at
    return JPEG[:first] + values + JPEG[first + len(values) :]


def decode(blob, size=SIZE):
    return lambda bench: images.decode(blob, size)


def resize(frame, size=SIZE):
    return lambda bench: images.resize(frame, size)


def chain_of_policy():
    maps = Normalizer("none", {"action": np.zeros(7)}, {"action": np.ones(7)})
    return Chain(maps, CommonForm(cameras=("primary",), image_size=SIZE).steps)


def policy(frames, **others):
    return lambda bench: chain_of_policy().check({"image_primary": frames, **others}, (2,))


def frames(*shape, dtype=np.uint8):
    return np.zeros(shape, dtype)


CASES = {
    # One image by itself.
    "a gif": (decode(encoded(kind="GIF")), "neither jpeg nor png, it begins with 47 49 46 38"),
    "a bmp": (decode(encoded(kind="BMP")), "neither jpeg nor png, it begins with 42 4d"),
    "text for an image": (decode("front.png"), "image is str 'front.png', expected the bytes"),
    "no image": (decode(None), "image is NoneType None, expected the bytes of a jpeg"),
    "no bytes": (decode(b""), "image is bytes b'', expected the bytes of a jpeg or png"),
    "an array for an encoded image": (decode(frames(8, 8, 3)), "image is ndarray .*expected the b"),
    "a jpeg cut in its middle": (decode(JPEG[: len(JPEG) // 2]), "a jpeg without its end"),
    "a jpeg cut in its header": (decode(JPEG[:9]), "a jpeg without its end"),
    "a png cut in its middle": (decode(PNG[: len(PNG) // 2]), "a png without its end"),
    "a png without its last chunk": (decode(PNG[:-12]), "a png without its end"),
    "a png with a flipped pixel": (decode(flipped(PNG, len(PNG) // 2)), "a checksum is wrong"),
    "a png with a flipped header": (decode(flipped(PNG, 18)), "a checksum is wrong"),
    "a png with a flipped end": (decode(flipped(PNG, len(PNG) - 1)), "a checksum is wrong"),
    "a png of too few rows": (
        decode(png_of(20, 16, zlib.compress(bytes(61 * 15)))),
        "a png of 915 bytes of pixels, not 976: it is cut",
    ),
    "a png whose data are none": (decode(png_of(20, 16, b"junk")), "cannot be unpacked"),
    "a png without data": (decode(png_of(20, 16)), "0 bytes of pixels, not 976"),
    "a png of an unknown filter": (
        decode(png_of(20, 16, zlib.compress(b"\x09" * 976))),
        "there is no such filter",
    ),
    "a png of an unknown colour type": (
        decode(png_of(20, 16, zlib.compress(bytes(976)), colours=5)),
        "colour type 5, which there is none of",
    ),
    "a png of 16 bits": (
        decode(encoded(np.full(SIZE, 40000, np.uint16))),
        "a png of 16 bits a colour, expected 8",
    ),
    "a png of 16 bits in colour": (
        decode(png_of(2, 1, zlib.compress(bytes(13)), depth=16)),
        "a png of 16 bits a colour, expected 8",
    ),
    "a png of 100000 x 100000": (
        decode(png_of(100_000, 100_000)),
        "its header says 100000 x 100000 pixels, expected 1 to 89478485",
    ),
    "a png of no width": (decode(png_of(0, 16)), "its header says 0 x 16 pixels"),
    "a jpeg of 65500 x 65500": (
        decode(jpeg_of(1, b"\xff\xdc\xff\xdc")),
        "its header says 65500 x 65500 pixels",
    ),
    "a jpeg of no height": (decode(jpeg_of(1, b"\0\0")), "its header says 20 x 0 pixels"),
    "a jpeg of 12 bits": (decode(jpeg_of(0, b"\x0c")), "a jpeg of 12 bits a colour, expected 8"),
    "a jpeg of two colours": (decode(jpeg_of(5, b"\x02")), "a jpeg of 2 colours, expected colour"),
    "a cmyk jpeg": (
        decode(encoded(kind="JPEG", mode="CMYK")),
        "a CMYK jpeg of 4 colours, .*convert it to RGB",
    ),
    "a jpeg cut and closed": (
        decode(JPEG[: len(JPEG) * 9 // 10] + b"\xff\xd9"),
        "the image cannot be decoded: ",
    ),
    # Sizes to resize to.
    "a size of one number": (resize(SCENE, 224), "size of images is 224, expected .height, width."),
    "a size of none": (decode(PNG, (0, 8)), r"size of images is \(0, 8\), expected"),
    "a size in fractions": (resize(SCENE, (8.5, 8)), r"size of images is \(8.5, 8\), expected"),
    "a size with colours": (resize(SCENE, (8, 8, 3)), r"size of images is \(8, 8, 3\), expected"),
    "a size as text": (resize(SCENE, "8x8"), "size of images is '8x8', expected"),
    "a size beyond memory": (resize(SCENE, (10**6, 10**6)), "size of images is .* at most 894"),
    # Frames to resize.
    "frames in floats": (resize(frames(16, 20, 3, dtype=np.float32)), "float32.*255 . frame"),
    "frames in wider integers": (resize(frames(16, 20, 3, dtype=np.int64)), "int64.*to uint8"),
    "channels first": (resize(frames(3, 16, 20)), r"channels come first here: np.moveaxis"),
    "frames with alpha": (resize(frames(16, 20, 4)), r"the fourth channel: frame\[\.\.\., :3"),
    "frames of one channel": (resize(frames(16, 20, 1)), r"repeat the grey: np.repeat\(frame, 3"),
    "frames without channels": (resize(frames(16, 20)), r"frame\[\.\.\., None\], 3"),
    "frames without pixels": (resize(frames(0, 20, 3)), "it has no pixels"),
    # What a policy is given.
    "a policy's frame alone": (
        policy(frames(8, 8, 3)),
        r"expected \(8, 2, height, width, 3\): rows",
    ),
    "a policy's frames without history": (
        policy(frames(4, 8, 8, 3)),
        r"'image_primary' has shape \(4, 8, 8, 3\), expected \(4, 2, height.*steps of the history",
    ),
    "a policy's frames of a longer history": (
        policy(frames(4, 3, 8, 8, 3)),
        r"shape \(4, 3, 8, 8, 3\), expected \(4, 2, height, width, 3\)",
    ),
    "a policy's frames in floats": (
        policy(frames(4, 2, 8, 8, 3, dtype=np.float32)),
        "observation 'image_primary' has .*float32.*np.round",
    ),
    "a policy's frames with channels first": (
        policy(frames(4, 2, 3, 8, 8)),
        "observation 'image_primary' has .*channels come first",
    ),
    "a policy's grey frames": (policy(frames(4, 2, 8, 8, 1)), "'image_primary'.*repeat the grey"),
    "a policy's mask of another batch": (
        policy(frames(4, 2, 8, 8, 3), image_primary_mask=np.ones((3, 2), bool)),
        r"'image_primary_mask' has shape \(3, 2\) and type bool, expected \(4, 2\)",
    ),
    "a policy's mask of frames that are not there": (
        lambda bench: chain_of_policy().check({"image_primary_mask": np.ones((4, 2), bool)}, (2,)),
        "'image_primary' is missing where its mask is True",
    ),
    "a policy's observation of nothing": (
        lambda bench: chain_of_policy().check({}, (2,)),
        "the observation is empty, expected image_primary",
    ),
}


def test_frames_of_another_size_are_brought_to_the_training_s():
    """As `images.resize` does; those of that size stay as they are."""
    history = np.stack([SCENE, SCENE[::-1]])[None]
    found = chain_of_policy().check({"image_primary": history}, (2,))["image_primary"]
    np.testing.assert_array_equal(found, images.resize(history, SIZE))
    by_pillow = PIL.Image.fromarray(SCENE).resize(SIZE[::-1], PIL.Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found[0, 0], by_pillow)
    again = chain_of_policy().check({"image_primary": found}, (2,))["image_primary"]
    np.testing.assert_array_equal(again, found)
