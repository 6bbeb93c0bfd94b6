"""Bad messages for a policy of "state" [3], "goal" [2], two cameras and a text, T = 2.

``MESSAGES`` {kind: (message, part of the answer)}: each is answered with one line, and its
connection goes on. ``FRAMES`` {kind: (bytes on the wire, close code)}: each ends its connection.
"""

import struct

import msgpack
import numpy as np

from ambient_jax.serve.client import pack
from tests.serve import made

GOOD = made.observation(0, sees=True)
WHOLE = made.observation(0, history=2, sees=True)
KNOWN = np.zeros((made.HORIZON, 2))
WEIGHTS = np.ones(made.HORIZON)
NO_MSGPACK = "is no msgpack of plain values and arrays"


def changed(base=GOOD, **fields):
    return pack({**base, **fields})


def without(*names):
    return pack({n: v for n, v in GOOD.items() if n not in names})


def raw(name="state", **fields):
    """A message whose array ``name`` is made of these fields."""
    sound = {"__ndarray__": True, "data": bytes(12), "dtype": "<f4", "shape": [3]}
    array = {k.encode(): v for k, v in {**sound, **fields}.items() if v is not None}
    rest = {n: made_plain(v) for n, v in GOOD.items() if n != name}
    return msgpack.packb({**rest, name: array})


def made_plain(value):
    return msgpack.unpackb(pack(value), strict_map_key=False)


def scalar(**fields):
    array = {b"__npgeneric__": True, b"data": 1.0, b"dtype": "<f4"}
    array |= {k.encode(): v for k, v in fields.items()}
    return msgpack.packb({"state": array})


def nested(depth, inner=b"\x01"):
    return b"\x81\xa5state" + b"\x91" * depth + inner


PACKED = pack(GOOD)
FILL = np.zeros((2, 2, 3), np.uint8)
MESSAGES = {
    "text frame": ("hello", "a text message came, expected a binary one"),
    "text frame of json": ('{"state": [1, 2, 3]}', "a text message came"),
    "empty text frame": ("", "a text message came"),
    "empty": (b"", NO_MSGPACK),
    "one byte of no type": (b"\xc1", NO_MSGPACK),
    "noise": (np.random.default_rng(0).bytes(1000), NO_MSGPACK),
    "html": (b"<html>hello</html>", "no msgpack"),
    "pickle": (b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.", NO_MSGPACK),
    "cut to a half": (PACKED[: len(PACKED) // 2], NO_MSGPACK),
    "cut by one byte": (PACKED[:-1], NO_MSGPACK),
    "with a byte too many": (PACKED + b"\x00", NO_MSGPACK),
    "two messages in one": (PACKED + PACKED, NO_MSGPACK),
    "nil": (msgpack.packb(None), "the message is a NoneType, expected a map"),
    "a number": (msgpack.packb(7), "the message is a int, expected a map"),
    "a list": (msgpack.packb([1, 2]), "the message is a list, expected a map"),
    "an array alone": (pack(np.zeros(3)), "the message is a ndarray, expected a map"),
    "an empty map": (msgpack.packb({}), "observation 'state' is missing"),
    "seed alone": (pack({"seed": 1}), "observation 'state' is missing"),
    "bad utf-8 in a name": (b"\x81\xa2\xff\xfe\x01", NO_MSGPACK),
    "bad utf-8 in a text": (b"\x81\xabinstruction\xa2\xff\xfe", NO_MSGPACK),
    "numbers as names": (msgpack.packb({1: 2}), NO_MSGPACK),
    "bytes as names": (
        msgpack.packb({b"state": [1, 2, 3]}),
        "the name \"b'state'\", expected text",
    ),
    "a list as a name": (b"\x81\x91\x01\x01", NO_MSGPACK),
    "known without weights": (changed(known=KNOWN), "known actions need weights, and weights"),
    "weights without known": (changed(weights=WEIGHTS), "known actions need weights, and weights"),
    "known of another chunk": (
        changed(known=KNOWN[1:], weights=WEIGHTS),
        "known has shape (3, 2), expected (4, 2)",
    ),
    "known with a batch": (changed(known=KNOWN[None], weights=WEIGHTS), "expected (4, 2)"),
    "weights of each number": (
        changed(known=KNOWN, weights=np.ones((4, 2))),
        "weights has shape (4, 2), expected (4,)",
    ),
    "a weight above 1": (changed(known=KNOWN, weights=WEIGHTS + 0.5), "expected from 0 to 1"),
    "known is nan": (changed(known=KNOWN + np.nan, weights=WEIGHTS), "known has entries that are"),
    "known is huge": (changed(known=KNOWN + 1e300, weights=WEIGHTS), "known has entries that are"),
    "known is a text": (changed(known="all", weights=WEIGHTS), "expected numbers"),
    "known is a map": (
        changed(known={"a": 1}, weights=WEIGHTS),
        "known is a map, expected an",
    ),
    "known is ragged": (changed(known=[[1], [1, 2]], weights=WEIGHTS), "known is no array"),
    "an unknown name": (changed(speed=np.zeros(2)), "observation is 'speed', expected one of"),
    "a misspelt name": (
        pack({**{n: v for n, v in GOOD.items() if n != "state"}, "stat": GOOD["state"]}),
        "did you mean 'state'?",
    ),
    "a name twice": (changed(**{"observation/state": np.zeros(3)}), "has 'state' twice"),
    "prompt and instruction": (changed(prompt="go"), "has 'instruction' twice"),
    "a missing state": (without("state"), "observation 'state' is missing"),
    "a missing instruction": (without("instruction"), "observation 'instruction' is missing"),
    "too many names": (pack({f"n{i}": 0 for i in range(300)}), NO_MSGPACK),
    "a long name": (pack({"n" * 100_000: 0}), NO_MSGPACK),
    "a long unknown name": (pack({"n" * 60_000: 0}), "a name of 60000 characters, 'nnn"),
    "a long text": (changed(instruction="n" * 100_000), NO_MSGPACK),
    "nan": (changed(state=np.array([0, np.nan, 0])), "'state' of environment 0 is not finite"),
    "infinity": (changed(goal=np.array([np.inf, 0])), "'goal' of environment 0 is not finite"),
    "infinite as float32": (changed(goal=np.array([1e300, 0])), "is not finite"),
    "nan in a history": (changed(WHOLE, state=np.full((2, 3), np.nan)), "is not finite"),
    "a wrong width": (changed(state=np.zeros(4)), "has shape (1, 4), expected (1, 3)"),
    "no numbers": (changed(state=np.zeros(0)), "has shape (1, 0), expected (1, 3)"),
    "a number for a vector": (
        changed(state=1.0),
        "has shape (), expected (3,) for the newest step",
    ),
    "too many axes": (changed(state=np.zeros((1, 2, 3))), "expected (3,) for the newest step, or"),
    "a history too long": (changed(WHOLE, state=np.zeros((5, 3))), "expected (1, 2, 3)"),
    "a history and a step": (changed(state=np.zeros((2, 3))), "expected the same of all"),
    "a text for numbers": (changed(state="1 2 3"), "is an array of <U5, expected numbers"),
    "texts for numbers": (changed(state=["1", "2", "3"]), "is an array of <U1, expected numbers"),
    "an array of text for numbers": (changed(state=np.array(["1", "2", "3"])), "expected numbers"),
    "nil for numbers": (changed(state=None), "is an array of object, expected numbers"),
    "nil among numbers": (changed(state=[1, None, 2]), "is an array of object"),
    "a ragged list": (changed(state=[[1, 2], [3]]), "is no array"),
    "a map for numbers": (changed(state={"x": 1}), "is a map, expected an array"),
    "a list too long": (changed(state=[0] * 5000), NO_MSGPACK),
    "many lists": (changed(state=[[[0] * 100] * 20] * 20), "over 20000 items in lists"),
    "many maps": (changed(state=[{str(i): {} for i in range(200)}] * 200), "over 20000 items"),
    "depth 100": (nested(100), "is no array"),
    "depth 100 000": (nested(100_000), NO_MSGPACK),
    "depth without an end": (nested(100_000, b""), NO_MSGPACK),
    "a list that promises 4e9 items": (b"\x81\xa5state\xdd\xff\xff\xff\xff\x01", NO_MSGPACK),
    "a map that promises 4e9 items": (b"\xdf\xff\xff\xff\xff", NO_MSGPACK),
    "bytes that promise 4 GB": (b"\x81\xa5state\xc6\xff\xff\xff\xff1", NO_MSGPACK),
    "a text that promises 4 GB": (b"\x81\xa5state\xdb\xff\xff\xff\xff1", NO_MSGPACK),
    "an extension": (msgpack.packb({"state": msgpack.ExtType(5, b"x")}), NO_MSGPACK),
    "a time": (msgpack.packb({"state": msgpack.Timestamp(1, 2)}), NO_MSGPACK),
    "objects": (raw(dtype="|O"), "the dtype '|O', expected numbers"),
    "void": (raw(dtype="|V4"), "the dtype '|V4'"),
    "a record": (raw(dtype="<f4,<f4,<f4"), "the dtype '<f4,<f4,<f4'"),
    "a subarray": (raw(dtype="(3,)<f4"), "the dtype '(3,)<f4'"),
    "complex numbers": (raw(dtype="<c8"), "the dtype '<c8'"),
    "dates": (raw(dtype="<M8[ns]"), "the dtype '<M8[ns]'"),
    "an unknown dtype": (raw(dtype="float99"), "the dtype 'float99'"),
    "a dtype of python": (raw(dtype="__import__('os')"), "the dtype"),
    "a dtype that is no text": (raw(dtype=4), "the dtype '4'"),
    "a long dtype": (raw(dtype="f" * 10_000), "the dtype"),
    "no dtype": (raw(dtype=None), "the dtype 'None'"),
    "no data": (raw(data=None), "data of type NoneType, expected bytes"),
    "no shape": (raw(shape=None), "the shape None"),
    "data of text": (raw(data="0" * 12), "data of type str, expected bytes"),
    "a negative size": (raw(shape=[-3]), "the shape [-3], expected whole numbers >= 0"),
    "two negative sizes": (raw(shape=[-1, -3]), "the shape [-1, -3]"),
    "a size that is no whole number": (raw(shape=[3.0]), "the shape [3.0]"),
    "a size that is a truth": (raw(shape=[True, 3]), "the shape [True, 3]"),
    "a shape that is a number": (raw(shape=3), "the shape 3, expected up to 8 numbers"),
    "a shape that is a map": (raw(shape={"a": 1}), "the shape {'a': 1}"),
    "a shape with a deep list": (
        raw(shape=[]).replace(b"\xc4\x05shape\x90", b"\xc4\x05shape" + b"\x91" * 900 + b"\x01"),
        NO_MSGPACK,
    ),
    "more axes than numpy has": (raw(shape=[1] * 70), "the shape [1, 1"),
    "data too short": (raw(data=bytes(8)), "has 8 bytes, expected 12"),
    "data too long": (raw(data=bytes(16)), "has 16 bytes, expected 12"),
    "a huge shape": (raw(shape=[2**30, 2**30, 3]), "has 12 bytes, expected 13835058055282163712"),
    "a shape beyond 64 bits": (raw(shape=[2**31 - 1] * 8), "has 12 bytes, expected"),
    "a huge shape of no numbers": (raw(data=b"", shape=[0, 2**31 - 1, 2**31 - 1]), NO_MSGPACK),
    "a scalar of objects": (scalar(dtype="|O"), "the dtype '|O'"),
    "a scalar too large for its dtype": (scalar(data=300, dtype="|u1"), NO_MSGPACK),
    "a scalar of a list": (scalar(data=[1]), "a NumPy scalar has data of type list"),
    "an image of floats": (
        changed(image_wrist=FILL.astype(np.float32)),
        "expected [..., height, width, 3] uint8: numbers in [0, 1]",
    ),
    "channels first": (
        changed(image_wrist=np.zeros((3, 8, 6), np.uint8)),
        "channels come first here",
    ),
    "a grey image": (changed(image_wrist=FILL[..., 0]), "expected (8, 6, 3) for the newest step"),
    "an image of four channels": (
        changed(image_wrist=np.zeros((8, 6, 4), np.uint8)),
        "remove the fourth channel",
    ),
    "an image without pixels": (changed(image_wrist=FILL[:0]), "it has no pixels"),
    "a thousand images": (
        changed(WHOLE, image_wrist=np.zeros((1000, 8, 6, 3), np.uint8)),
        "expected (1, 2, height, width, 3)",
    ),
    "a mask of numbers": (changed(image_wrist_mask=1.0), "expected (1,) bool"),
    "an instruction of numbers": (changed(instruction=np.zeros(5)), "'instruction' has shape"),
    "two instructions": (changed(instruction=["go", "stop"]), "'instruction' has shape (2, 16)"),
    "a map as an instruction": (changed(instruction={"go": 1}), "'instruction' is a map"),
    "a negative seed": (changed(seed=-1), "'seed' is -1, expected a whole number of 32 bits"),
    "a seed beyond 32 bits": (changed(seed=2**32), "'seed' is 4294967296"),
    "a seed of text": (changed(seed="one"), "'seed' is a str, expected a whole number"),
    "a seed that is a truth": (changed(seed=True), "'seed' is a bool"),
    "a seed of deep lists": (
        changed(seed=[]).replace(b"\xa4seed\x90", b"\xa4seed" + b"\x91" * 900 + b"\x01"),
        "'seed' is a list, expected a whole number",
    ),
    "a key of three numbers": (
        changed(key=np.zeros(3, np.uint32)),
        "'key' is uint32 (3,), expected",
    ),
    "a key of floats": (changed(key=np.zeros(2)), "'key' is float64 (2,)"),
    "seed and key": (changed(seed=1, key=np.zeros(2, np.uint32)), "expected one of them"),
    "a reset of numbers": (changed(reset=1), "'reset' is a int, expected True or False"),
}


def frame(payload, opcode=2, final=True, reserved=0, masked=True, length=None):
    """The bytes of one websocket frame (RFC 6455, section 5.2), masked with zeros."""
    head = bytes([(final << 7) | (reserved << 4) | opcode])
    length, bit = len(payload) if length is None else length, masked << 7
    if length < 126:
        head += bytes([bit | length])
    elif length < 2**16:
        head += bytes([bit | 126]) + struct.pack("!H", length)
    else:
        head += bytes([bit | 127]) + struct.pack("!Q", length)
    return head + (bytes(4) if masked else b"") + payload


# The test's server takes messages of at most this many bytes.
MOST = 400_000
FRAMES = {
    "too large": (frame(bytes(MOST + 1)), 1009),
    "announced as 2^62 bytes": (frame(b"1", length=2**62), 1009),
    "too large in fragments": (
        frame(bytes(MOST // 2), final=False) + frame(bytes(MOST), opcode=0),
        1009,
    ),
    "a length with the highest bit": (frame(b"1", length=2**63), 1009),
    "not masked": (frame(PACKED, masked=False), 1002),
    "a reserved bit": (frame(PACKED, reserved=4), 1002),
    "an unknown opcode": (frame(PACKED, opcode=3), 1002),
    "an unknown control frame": (frame(b"", opcode=11), 1002),
    "a continuation of nothing": (frame(PACKED, opcode=0), 1002),
    "a second message inside one": (frame(PACKED, final=False) + frame(PACKED), 1002),
    "a ping in fragments": (frame(b"", opcode=9, final=False), 1002),
    "a ping of 200 bytes": (frame(bytes(200), opcode=9), 1002),
    "text that is no utf-8": (frame(b"\xff\xfe", opcode=1), 1007),
    "a close code of one byte": (frame(b"\x03", opcode=8), 1002),
    "a close code out of range": (frame(b"\x00\x01", opcode=8), 1002),
    "a reason that is no utf-8": (frame(b"\x03\xe8\xff", opcode=8), 1007),
}
# These end within a frame; their connection is then broken off.
BROKEN = {
    "half a frame": PACKED and frame(PACKED)[: len(PACKED) // 2],
    "a head alone": frame(PACKED)[:2],
    "one byte": b"\x82",
    "a fragment without an end": frame(PACKED, final=False),
    "a length alone": frame(b"", length=50_000),
}
