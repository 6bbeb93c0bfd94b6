"""Converts an episode of a data set to the common form."""

import io

import numpy as np
import PIL.Image

from ambient_jax.data import rlds
from ambient_jax.data.storage.video import Clip
from ambient_jax.open_x import spec as spec_lib
from ambient_jax.open_x import standardize
from ambient_jax.open_x.common_form import CommonForm


def to_common_form(
    episode: rlds.Episode, spec: spec_lib.Spec, form: CommonForm, hz: float | None
) -> rlds.Episode:
    """Returns an episode as ``source.OpenXSource`` describes it, at ``hz`` steps a second (None:
    at its own rate)."""
    common = standardize.standardise(
        spec, episode, hz=hz, rotation=form.rotation, cameras=form.cameras
    )["steps"]
    length, observation = len(common["action"]), common["observation"]
    unlabelled = np.full(length, np.nan, np.float32)
    steps = {
        "action": _widened(common["action"], form.action_width),
        "observation": {},
        "camera_mask": {c: common["camera_mask"][c] for c in form.cameras},
        "quality": {label: common["quality"].get(label, unlabelled) for label in form.quality},
    }
    if form.state_width:
        state = observation.get("state", np.zeros((length, 0), np.float32))
        steps["observation"]["state"] = _widened(state, form.state_width)
    if form.text:
        steps["instruction"] = common["language_instruction"]
    for camera in form.cameras:
        there = steps["camera_mask"][camera]
        blobs = observation.get(f"image_{camera}", there)
        if not isinstance(blobs, Clip):
            blobs = _encoded(blobs, there, camera in spec.bgr)
        steps[f"image_{camera}"] = blobs
    return {"steps": steps}


def _widened(values, width):
    return np.pad(values, ((0, 0), (0, width - values.shape[1])))


def _encoded(blobs, present, bgr):
    """Returns encoded images [L], b"" for none; arrays are encoded in the stored channel order."""
    out = np.full(len(present), b"", object)
    for step in np.flatnonzero(present):
        blob = blobs[step]
        if not isinstance(blob, bytes):
            image = np.ascontiguousarray(blob[..., ::-1] if bgr else blob)
            file = io.BytesIO()
            PIL.Image.fromarray(image).save(file, "PNG", compress_level=1)
            blob = file.getvalue()
        out[step] = blob
    return out
