"""Checks that a camera's flag (``| if /flag`` of its field) agrees with its pictures."""

import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import PIL.Image

from ambient_jax.data.features import flatten
from ambient_jax.data.storage.video import Clip
from ambient_jax.open_x.spec import Field, Spec

# Largest range of a channel (of 255) in a blank picture: coding adds a level or two.
_FLAT = 4


def problems(
    spec: Spec, episode: Mapping[str, Any], cameras: Iterable[str]
) -> Iterator[tuple[str, str]]:
    """Yields ("flag", text) for each contradiction in a stored episode; images may be encoded.

    Checks the first, middle and last picture of the steps where a flag is False, and of those where
    it is True.
    """
    flat = flatten(episode)
    for role in cameras:
        if role not in spec.cameras:
            continue
        field = spec.cameras[role]
        for flag in field.words("if"):
            images = flat[field.key]
            if isinstance(images, Clip) and images.absent:
                continue
            key = Field(flag.lstrip("/"), flag[0] == "/").key
            present = np.broadcast_to(np.ravel(flat[key]).astype(bool), len(images))
            if _shows(images, ~present):
                yield (
                    "flag",
                    f"{role} is masked as {flag} is false, and {field.path} has pictures: if they "
                    f"are good, use a spec without '| if {flag}'",
                )
            elif present.any() and not _shows(images, present):
                yield (
                    "flag",
                    f"{role} is used as {flag} is true, and the pictures of {field.path} are "
                    "blank: correct the flag, or leave the episode out",
                )


def _shows(images, steps) -> bool:
    """Whether one of three pictures at these steps [T] has more than one colour."""
    steps = np.flatnonzero(steps)
    some = dict.fromkeys(steps[[0, len(steps) // 2, -1]].tolist()) if len(steps) else ()
    return any(not _blank(images, step) for step in some)


def _blank(images, step) -> bool:
    try:
        image = images[step]
    except ValueError:  # of a video that cannot be decoded, as below
        return False
    if isinstance(image, bytes):
        if not image:
            return True
        try:
            with PIL.Image.open(io.BytesIO(image)) as opened:
                opened.draft(None, (16, 16))  # decodes a JPEG at an eighth of its size
                image = np.asarray(opened)
        except (OSError, ValueError, SyntaxError):
            return False  # damage is reported as another problem
    image = np.asarray(image, np.float32)
    return bool(np.ptp(image.reshape(-1, image.shape[-1]), axis=0).max(initial=0) <= _FLAT)
