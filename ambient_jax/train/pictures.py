"""Draws pictures of a training's policies at each checkpoint, in a thread beside the training.

Process 0 draws, with host copies of the parameters on its first device: it changes no number of the
training, compiles nothing of it and calls no other host. A failure is a warning.
"""

import collections
import concurrent.futures
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import ml_collections
import numpy as np
from absl import logging

from ambient_jax import _checks, _names
from ambient_jax.data import mixture as mixtures
from ambient_jax.train import metrics

# What is drawn is built on policies, and these on the training's checkpoints: hence a name.
_PAINTER = "ambient_jax.evaluate.pictures:Painter"


class Painter(Protocol):
    """Draws a policy of parameters: {name: image uint8 [h, w, 3]}."""

    def __call__(self, params: Any) -> Mapping[str, np.ndarray]: ...


def check(train: ml_collections.ConfigDict) -> None:
    """Raises ValueError for an impossible number of pictures, or if matplotlib is missing."""
    _checks.number("config.train.pictures", train.pictures, 0, 64, whole=True)
    if train.pictures and importlib.util.find_spec("matplotlib") is None:
        raise ValueError(
            f"config.train.pictures is {train.pictures} and the package matplotlib is not "
            "installed: pip install matplotlib, or set the field to 0"
        )


class Pictures:
    """Draws the policies of ``writers`` at the steps of their checkpoints."""

    def __init__(self, painter: Painter, writers: Sequence[metrics.Writer]):
        self._painter, self._writers = painter, writers
        self._pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="pictures")
        self._jobs: collections.deque[concurrent.futures.Future] = collections.deque()

    def draw(self, step: int, params: Sequence[Any]) -> None:
        """Draws each policy's parameters (host copies). Returns at once, unless the step before the
        last one is not yet drawn."""
        while len(self._jobs) > 1:
            self._jobs.popleft().result()
        self._jobs.append(self._pool.submit(self._draw, step, params))

    def _draw(self, step: int, params: Sequence[Any]) -> None:
        for writer, of_policy in zip(self._writers, params, strict=True):
            try:
                for name, image in self._painter(of_policy).items():
                    writer.picture(step, name, image)
            except Exception as error:  # noqa: BLE001 (training continues after any failure)
                text = " ".join(str(error).split())
                logging.warning("no pictures of step %d (%s: %s)", step, type(error).__name__, text)

    def close(self) -> None:
        """Waits for what is being drawn."""
        self._pool.shutdown()


def begin(
    config: ml_collections.ConfigDict,
    mixture: mixtures.Mixture,
    writers: Sequence[metrics.Writer | None],
) -> Pictures | None:
    """Returns what draws the policies of a config, or None if it asks for no pictures or another
    host draws. Of a sweep, all policies are drawn as the first one's config says. Raises ValueError
    if a source has no split ``train.pictures_split``."""
    mine = [writer for writer in writers if writer]
    if not config.train.pictures or not mine:
        return None
    return Pictures(_names.resolve("painter", _PAINTER, {})(config, mixture), mine)
