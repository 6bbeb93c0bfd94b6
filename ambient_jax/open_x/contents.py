"""What is wrong with an episode's cameras and instructions."""

from collections.abc import Iterator, Mapping
from typing import Any

from ambient_jax.data import images
from ambient_jax.data.source import Problem
from ambient_jax.data.storage.video import Clip
from ambient_jax.open_x import spec as spec_lib
from ambient_jax.open_x.common_form import CommonForm


def problems(
    spec: spec_lib.Spec, form: CommonForm, name: str, steps: Mapping[str, Any]
) -> Iterator[Problem]:
    """Yields the problems of one episode.

    Args:
      spec: tells which cameras the data set has.
      form: images are decoded only if its policy for them is "skip", otherwise their ends are read.
      name: of the episode, for messages.
      steps: the episode in the common form.

    Raises ValueError for an instruction without an embedding, unless such episodes are skipped.
    """
    for camera in form.cameras:
        blobs = steps[f"image_{camera}"]
        if isinstance(blobs, Clip):
            yield from _of_video(camera, blobs, form)
        else:
            yield from _of_images(camera, blobs, form, expected=camera in spec.cameras)
    if form.text:
        yield from _of_instructions(name, steps["instruction"], form)


def _of_video(camera, clip, form):
    if clip.absent:
        yield "camera", f"{camera} is absent: {clip.path}: {clip.absent}"
    elif why := clip.problem(thorough=form.policy("image") == "skip"):
        yield "image", f"{camera}: {why}"


def _of_images(camera, blobs, form, expected):
    absent = sum(not blob for blob in blobs)
    if expected and absent:
        yield "camera", f"{camera} is absent in {absent} of {len(blobs)} steps"
    skips = form.policy("image") == "skip"
    look = images.cannot_be_decoded if skips else images.looks_whole
    for step, blob in enumerate(blobs):
        if why := look(blob):
            yield "image", f"{camera} at step {step}: {why}"
            return


def _of_instructions(name, texts, form):
    empty = sum(not text.strip() for text in texts)
    if empty:
        yield "instruction", f"empty in {empty} of {len(texts)} steps"
    for text in set(texts):
        if form.text.table:
            try:
                form.text.table.look_up([text])
            except ValueError as error:
                if form.policy("instruction") != "skip":
                    raise ValueError(f"{name}: {error}") from error
                yield "instruction", str(error)
        elif len(text) > form.instruction_bytes:
            yield (
                "instruction",
                f"{text!r} has {len(text)} bytes, over {form.instruction_bytes}: it is cut",
            )
