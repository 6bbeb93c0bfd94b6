"""Pictures and rollouts of a training's policies at each checkpoint, in a thread beside it.

Process 0 makes them, with host copies of the parameters on its first device: they change no number
of the training, compile nothing of it and call no other host. A failure is a warning.
"""

import collections
import concurrent.futures
import importlib.util
from collections.abc import Sequence
from typing import Any, Protocol

import ml_collections
from absl import logging

from ambient_jax import _checks, _names
from ambient_jax.data import mixture as mixtures
from ambient_jax.train import metrics, parallel

# These are built on policies, and policies on the training's checkpoints: hence names.
_PAINTERS = {
    "train.pictures": "ambient_jax.evaluate.pictures:Painter",
    "rollouts": "ambient_jax.rollout.training:Rollouts",
}
_PACKAGES = {"train.pictures": ("matplotlib", "matplotlib")}
_PACKAGES["rollouts"] = ("gymnasium", "'ambient_jax[rollout]'")


class Painter(Protocol):
    """Writes what a policy of parameters (host copies) does at a step. It is made of the config and
    the mixture, by ``Painter(config, mixture)``, which raises ValueError for what cannot work."""

    def __call__(self, step: int, params: Any, writer: metrics.Writer) -> None: ...


def _asked(config):
    """Returns what a config asks for, of ``_PAINTERS``."""
    asked = {"train.pictures": config.train.pictures > 0, "rollouts": bool(config.rollouts.env)}
    return [name for name, value in asked.items() if value]


def check(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError for an impossible number, or if a package for what is asked is missing."""
    _checks.number("config.train.pictures", config.train.pictures, 0, 64, whole=True)
    _checks.number("config.rollouts.episodes", config.rollouts.episodes, 1, whole=True)
    _checks.number("config.rollouts.seed", config.rollouts.seed, 0, 2**31, whole=True)
    for name in _asked(config):
        package, install = _PACKAGES[name]
        if importlib.util.find_spec(package) is None:
            raise ValueError(
                f"config.{name} asks for what needs the package {package}, which is not "
                f"installed: pip install {install}, or leave the field as it was"
            )


class Pictures:
    """Calls painters for the policies of ``writers`` at the steps of their checkpoints."""

    def __init__(self, painters: Sequence[Painter], writers: Sequence[metrics.Writer]):
        self._painters, self._writers = painters, writers
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
            for painter in self._painters:
                try:
                    painter(step, of_policy, writer)
                except Exception as error:  # noqa: BLE001 (training continues after any failure)
                    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
                    logging.warning("no pictures of step %d (%s)", step, text)

    def close(self) -> None:
        """Waits for what is being drawn."""
        self._pool.shutdown()


def begin(
    config: ml_collections.ConfigDict,
    mixture: mixtures.Mixture,
    writers: Sequence[metrics.Writer | None],
) -> Pictures | None:
    """Returns what draws the policies of a config, or None if it asks for nothing or another host
    draws. Of a sweep, all policies are drawn as the first one's config says. Raises ValueError for
    what cannot be drawn, such as a source without the split ``train.pictures_split``."""
    asked, mine = _asked(config), [writer for writer in writers if writer]
    if not asked:
        return None
    painters, error = [], None
    if mine:
        try:
            painters = [_names.resolve(name, name, _PAINTERS)(config, mixture) for name in asked]
        except (ValueError, OSError) as e:
            error = e
    # The other hosts would wait for this one.
    if message := parallel.tell_all(str(error) if error else ""):
        raise error or ValueError(message)
    return Pictures(painters, mine) if mine else None
