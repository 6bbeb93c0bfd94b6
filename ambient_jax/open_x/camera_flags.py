"""Whether a camera's flag (``| if /flag`` of its field) and the pictures beside it agree."""

import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import PIL.Image

from ambient_jax.data.features import flatten
from ambient_jax.data.storage.video import Clip
from ambient_jax.open_x.spec import Field, Spec

# Of 255: coding leaves a picture of one colour flat to the last level or two.
_FLAT = 4


def problems(
    spec: Spec, episode: Mapping[str, Any], cameras: Iterable[str]
) -> Iterator[tuple[str, str]]:
    """Yields ("flag", text) for each contradiction of one stored episode, images encoded or not.

    Checks the first, the middle and the last picture of the steps that a flag denies, and of those
    that it promises, until one shows something.
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
            there = np.broadcast_to(np.ravel(flat[key]).astype(bool), len(images))
            if _shows(images, ~there):
                yield (
                    "flag",
                    f"{role} is masked as {flag} is false, and {field.path} has pictures: if they "
                    f"are good, use a spec without '| if {flag}'",
                )
            elif there.any() and not _shows(images, there):
                yield (
                    "flag",
                    f"{role} is used as {flag} is true, and the pictures of {field.path} are "
                    "blank: correct the flag, or leave the episode out",
                )


def _shows(images, steps) -> bool:
    """Whether some picture of these steps [T] is of more than one colour."""
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
                opened.draft(None, (16, 16))  # of a JPEG no more than an eighth of the pixels
                image = np.asarray(opened)
        except (OSError, ValueError, SyntaxError):
            return False  # that it is damaged is another problem
    image = np.asarray(image, np.float32)
    return bool(np.ptp(image.reshape(-1, image.shape[-1]), axis=0).max(initial=0) <= _FLAT)
