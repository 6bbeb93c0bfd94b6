"""Rendering MuJoCo's scenes off screen, where there is something to render with."""

from __future__ import annotations

import ctypes.util
import logging
import os
import sys
from typing import Any


def choose() -> None:
    """Sets MUJOCO_GL; call it before MuJoCo is first imported.

    It chooses its renderer then, and by default one that needs a display; one whose library is
    missing makes the import fail, hence the look at what is there.
    """
    if sys.platform == "linux" and not {"DISPLAY", "MUJOCO_GL"} & set(os.environ):
        libraries = {"egl": "EGL", "osmesa": "OSMesa"}
        found = [name for name, lib in libraries.items() if ctypes.util.find_library(lib)]
        os.environ["MUJOCO_GL"] = found[0] if found else "disabled"


def renderer(model: Any, size: int) -> Any:
    """A ``mujoco.Renderer`` of images [size, size, 3]; RuntimeError without OpenGL."""
    import mujoco  # after ``choose``

    if not hasattr(mujoco, "Renderer"):
        raise RuntimeError(
            "no OpenGL library to render with (MUJOCO_GL is "
            f"{os.environ.get('MUJOCO_GL')}): install EGL or OSMesa, or do without camera"
        )
    logging.getLogger("OpenGL").setLevel(logging.WARNING)  # it tells what it found not to need
    try:
        return mujoco.Renderer(model, size, size)
    except Exception as error:
        raise RuntimeError(
            f"MuJoCo cannot render here (MUJOCO_GL is {os.environ.get('MUJOCO_GL')}): {error}"
        ) from error
