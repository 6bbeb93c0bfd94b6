"""Data sets on disk in any format that robotics uses: ``open_dataset`` finds out which.

Where the formats differ ends here: each gives episodes of RLDS's form, ``{"steps": {"observation":
{...}, "action": ...}}``, and ``open_x`` or the plain "rlds" source read them by the same names.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ambient_jax.data import rlds
from ambient_jax.data.dataset import Dataset
from ambient_jax.data.paths import expanded
from ambient_jax.data.storage import agibot, lerobot, robomimic, zarr_buffer

_FORMATS: Mapping[str, tuple[Callable[[str], bool], Callable[..., Dataset]]] = {
    "lerobot": (lerobot.is_here, lerobot.LeRobotDataset),
    "agibot": (agibot.is_here, agibot.AgibotDataset),
    "zarr": (zarr_buffer.is_here, zarr_buffer.ZarrDataset),
    "robomimic": (robomimic.is_here, robomimic.RobomimicDataset),
}


def open_dataset(
    path: str | os.PathLike[str],
    split: str = "train",
    required: Iterable[str] = (),
    *,
    keys: Iterable[str] | None = None,
    decode_images: bool = True,
    allow_missing: bool = False,
    last_step: str = "",
) -> Dataset:
    """Opens one split of a data set of any format: reads and checks its metadata, no episode.

    Args:
      path: the data set's folder, or its file.
      split: a split's name, also sliced: ``"train[:90%]"``, ``"train[10:20]"``; in formats other
        than RLDS also single episodes, ``"train[3,8:12]"``.
      required: features that must be there, such as ``"steps/observation/state"``.
      keys: decode these features or subtrees only; all by default.
      decode_images: False leaves encoded images as bytes. Videos are decoded when they are used.
      allow_missing: open it although files are missing; reading their episodes then fails.
      last_step: "drop" leaves out an episode's last step if its ``is_last`` is set, "keep" keeps
        it; "" drops it in RLDS, where its action is a filler by definition, and keeps it elsewhere,
        unless the data set was converted from the other kind.

    Raises:
      FileNotFoundError: no data set of a known format.
      ValueError, OSError: see ``rlds.open_dataset``.
    """
    folder = expanded(path)
    options: dict[str, Any] = {"keys": keys, "allow_missing": allow_missing, "last_step": last_step}
    for is_here, make in _FORMATS.values():
        if is_here(folder):
            return make(folder, split, required, **options)
    options |= {"decode_images": decode_images, "last_step": last_step or "drop"}
    opened = rlds.open_dataset(path, split, required, **options)
    if opened.ends_in_filler or last_step:
        return opened
    return rlds.open_dataset(path, split, required, **options | {"last_step": "keep"})
