"""Loads what a policy needs from any place: a run's checkpoint, a policy folder, the hub."""

import os
from typing import Any

from ambient_jax.publish import folder, hub


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns ``config``, ``statistics``, ``masks``, EMA ``params``, ``step``, and the ``file``
    that has all but the parameters. Only checkpoints need Orbax.

    Args:
      path: what ``checkpoint.find`` takes, a policy folder, or an address (``publish.hub``).

    Raises:
      OSError: there is no policy at the path, or no answer from the hub.
      ValueError: the policy is damaged, or one from the hub names code outside of the library.
    """
    if hub.is_address(path):
        assets = folder.read(hub.pull(os.fspath(path)))
        folder.check_code(assets, os.fspath(path))
        return assets
    if folder.is_folder(path):
        return folder.read(path)
    from ambient_jax.train import checkpoint

    directory, step = checkpoint.find(path)
    saved = directory / str(step)
    return checkpoint.load_policy_assets(saved) | {"file": saved / "assets" / "metadata"}


def find(path: str | os.PathLike[str]) -> tuple[str, int]:
    """Returns the path of one policy for ``load``, and its step; a training under way does not
    change it. For the path and errors see ``load``."""
    if hub.is_address(path):
        return os.fspath(path), folder.about(hub.pull(os.fspath(path)))["step"]
    if folder.is_folder(path):
        return os.fspath(path), folder.about(path)["step"]
    from ambient_jax.train import checkpoint

    directory, step = checkpoint.find(path)
    return str(directory / str(step)), step


def check_shapes(assets: dict[str, Any], expected: Any) -> None:
    """Raises ValueError at the first parameter whose shape is not the ``expected`` one."""
    file = assets["file"]
    if file.name == folder.ABOUT:
        folder.check_shapes(assets["params"], expected, file)
    else:
        from ambient_jax.train import checkpoint

        checkpoint.check_shapes(assets["params"], expected, file.parents[1])
