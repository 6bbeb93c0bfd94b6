"""Off-screen rendering of MuJoCo's scenes, where there is an OpenGL library."""

import ctypes.util
import logging
import os
import sys
from typing import Any

IMAGE = 96  # pixels of an observation's side


def choose() -> None:
    """Sets MUJOCO_GL to an installed library; call it before MuJoCo is first imported.

    MuJoCo's default needs a display, and the import fails if the library is missing.
    """
    if sys.platform == "linux" and not {"DISPLAY", "MUJOCO_GL"} & set(os.environ):
        libraries = {"egl": "EGL", "osmesa": "OSMesa"}
        present = [name for name, lib in libraries.items() if ctypes.util.find_library(lib)]
        os.environ["MUJOCO_GL"] = present[0] if present else "disabled"


def renderer(model: Any, size: int) -> Any:
    """Returns a ``mujoco.Renderer`` of images [size, size, 3]; OSError without OpenGL."""
    import mujoco  # after ``choose``

    if not hasattr(mujoco, "Renderer"):
        raise OSError(
            "no OpenGL library to render with (MUJOCO_GL is "
            f"{os.environ.get('MUJOCO_GL')}): install EGL or OSMesa, or do without camera"
        )
    logging.getLogger("OpenGL").setLevel(logging.WARNING)  # its notes on what it does not need
    try:
        return mujoco.Renderer(model, size, size)
    except Exception as error:
        raise OSError(
            f"MuJoCo cannot render here (MUJOCO_GL is {os.environ.get('MUJOCO_GL')}): {error}"
        ) from error
