"""Problems of an episode's pictures and instructions, from steps in the common form."""

import io

import numpy as np
import PIL.Image
import pytest

from ambient_jax.open_x import contents, spec
from ambient_jax.open_x.common_form import CommonForm
from ambient_jax.transforms import instructions

SPEC = spec.parse({"hz": 5, "action": "base action", "wrist": "observation/wrist"}, "mine")


def picture(kind="PNG", cut=0):
    out = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    PIL.Image.fromarray(pixels).save(out, kind)
    return out.getvalue()[: -cut or None]


def found(steps, **fields):
    return list(contents.problems(SPEC, CommonForm(**fields), "mine, episode 3", steps))


def test_absent_and_cut_pictures_of_a_camera_that_the_spec_names():
    blobs = [picture(), b"", picture(cut=20), picture(cut=30)]
    absent, cut = found({"image_wrist": blobs}, cameras=("wrist",))
    assert absent == ("camera", "wrist is absent in 1 of 4 steps")
    assert cut[0] == "image" and cut[1].startswith("wrist at step 2: ")  # the first one only
    # A data set without the camera lacks nothing.
    assert found({"image_primary": [b"", b""]}, cameras=("primary",)) == []


def test_pictures_are_decoded_only_where_episodes_are_left_out():
    closed = picture("JPEG", cut=500) + b"\xff\xd9"  # its markers are whole, its pixels are not
    steps = {"image_wrist": [closed]}
    assert found(steps, cameras=("wrist",)) == []
    ((kind, text),) = found(steps, cameras=("wrist",), on_problem={"image": "skip"})
    assert kind == "image" and text.startswith("wrist at step 0: ")


def test_instructions_that_are_empty_or_too_long():
    steps = {"instruction": np.array([b"push", b" ", b"push the block"], object)}
    assert found(steps, instruction_bytes=8) == [
        ("instruction", "empty in 1 of 3 steps"),
        ("instruction", "b'push the block' has 14 bytes, over 8: it is cut"),
    ]


def test_an_instruction_without_an_embedding_is_named(tmp_path):
    file = tmp_path / "table.npz"
    table = instructions.InstructionTable(("push",), np.ones((1, 4), np.float32))
    instructions.save_instructions(file, table)
    steps = {"instruction": np.array([b"pull"], object)}
    with pytest.raises(ValueError, match="mine, episode 3: .*pull"):
        found(steps, embeddings=str(file))
    ((kind, text),) = found(steps, embeddings=str(file), on_problem={"instruction": "skip"})
    assert kind == "instruction" and "pull" in text
