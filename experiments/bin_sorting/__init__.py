"""Bin sorting: the wrong rule, the right motions (sigma_max and locality)."""

import ctypes.util
import os
import sys

# MuJoCo chooses its renderer when it is first imported, and by default one that needs a display;
# one whose library is missing makes the import fail, hence the look at what is there.
if sys.platform == "linux" and not {"DISPLAY", "MUJOCO_GL"} & set(os.environ):
    _LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}
    _FOUND = [name for name, lib in _LIBRARIES.items() if ctypes.util.find_library(lib)]
    os.environ["MUJOCO_GL"] = _FOUND[0] if _FOUND else "disabled"
