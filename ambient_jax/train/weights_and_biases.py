"""Sends a run's rows to Weights & Biases, if the config names a project; never stops training."""

import importlib.util
import os
import tempfile
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import logging

from ambient_jax.data import paths
from ambient_jax.data.bucket import is_bucket

_FINISH = 60.0  # seconds to wait for uploads at the end; later rows stay on disk


def check(project: str) -> None:
    """Raises ValueError if a project is named and the package is missing."""
    package = importlib.util.find_spec("wandb") if project else None
    # find_spec also returns a folder of that name, such as the package's logs.
    if project and (package is None or package.origin is None):
        raise ValueError(
            f"config.train.wandb is {project!r} and the package wandb is not installed: "
            "pip install 'ambient_jax[wandb]', or leave the field empty"
        )


def run_id(workdir: str | os.PathLike) -> str:
    """Returns the run's id, stored in ``<workdir>/wandb_id``, so that resuming keeps one run."""
    path = paths.folder(workdir) / "wandb_id"
    if not path.exists():
        paths.write_text(path, uuid.uuid4().hex[:12] + "\n")
    return path.read_text(encoding="utf-8").strip()


class Run:
    """Sends rows to a project; a failure is one warning, and unsent rows stay in ``wandb/``.
    ``config`` is shown beside the curves."""

    def __init__(self, project: str, workdir: str | os.PathLike, config: dict[str, Any]):
        import wandb

        folder = tempfile.gettempdir() if is_bucket(workdir) else os.fspath(workdir)
        options: dict[str, Any] = dict(
            project=project,
            id=run_id(workdir),
            resume="allow",
            name=config.get("name"),
            config=config,
            dir=folder,
            reinit="create_new",  # a sweep has several at once
            settings=wandb.Settings(finish_timeout=_FINISH, silent=True, console="off"),
        )
        self._run: Any = None
        try:
            self._run = wandb.init(**options)
        except Exception as error:  # noqa: BLE001 (training continues after any failure)
            logging.warning(
                "no connection to Weights & Biases (%s); rows are kept in %s, 'wandb sync' sends "
                "them later",
                *(" ".join(str(error).split()), os.path.join(folder, "wandb")),
            )
            wandb.teardown()  # releases the id of the failed run
            self._attempt(lambda: setattr(self, "_run", wandb.init(**options, mode="offline")))
        if self._run is not None and not self._run.offline:
            logging.info("Weights & Biases: %s", self._run.url)

    def log(self, step: int, values: dict[str, Any]) -> None:
        """Adds numbers and images uint8 [h, w, 3] to the curves at a step; returns at once."""
        if self._run is not None:
            self._attempt(lambda: self._run.log(_sent(values), step=step))

    def close(self) -> None:
        """Sends the remaining rows, for at most a minute."""
        if self._run is not None:
            self._attempt(self._run.finish)

    def _attempt(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001
            self._run = None
            logging.warning("Weights & Biases failed and is left out from here on: %s", error)


def _sent(values):
    """Returns values as the package takes them."""
    import wandb

    return {
        name: wandb.Image(value, mode="RGB") if isinstance(value, np.ndarray) else value
        for name, value in values.items()
    }
