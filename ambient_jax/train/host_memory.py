"""Keeps freed memory in the process, which saves 16 to 24% of a training step's CPU time."""

import ctypes
import sys

# From glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> bool:
    """Tells glibc to keep large freed blocks; returns whether it does (False on other systems).

    XLA's CPU client allocates the scratch memory of every step, about 200 MB in 50,000 page faults.
    Keeping it avoids them, but the process's peak stays resident and all threads share the main
    arena, the only one with large blocks. Call it before any thread starts (importing pyarrow
    starts one), as XLA's threads would use that thread's arena.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 2**28}
    return all([mallopt(name, value) == 1 for name, value in settings.items()])
