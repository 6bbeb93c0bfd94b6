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


class Cameras:
    """Images of a scene by its cameras; renderers are made when first asked for."""

    def __init__(self, model: Any):
        self._model, self._renderers = model, {}

    def image(self, data: Any, camera: str, size: int) -> Any:
        """An image [size, size, 3] uint8 of the scene's state ``data``.

        Raises:
          RuntimeError: there is no OpenGL to render with.
        """
        if size not in self._renderers:
            self._renderers[size] = renderer(self._model, size)
        self._renderers[size].update_scene(data, camera)
        return self._renderers[size].render()

    def close(self) -> None:
        for each in self._renderers.values():
            each.close()
        self._renderers.clear()


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
