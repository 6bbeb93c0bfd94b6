"""Checkpoints, from which a run resumes exactly and a policy is loaded.

``<workdir>/checkpoints/<step>/`` has four items and ``digests.json`` (``checkpoint_files``):

* ``state``       step, parameters, optimizer, metric sums
* ``ema_params``  parameters of a policy
* ``data``        position of the input stream, one entry per host (absent if data are on device)
* ``assets``      JSON: config, normalisation statistics, fingerprints of the data, git revision

A checkpoint appears under its name when it is complete. ``<workdir>/best.json`` names the best step
(``record_best``), which is not deleted; ``<workdir>/best`` is a path to it.
"""

import os
import pathlib
import subprocess
import types
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from jax.experimental import multihost_utils

from ambient_jax import __version__
from ambient_jax.train import checkpoint_files as files
from ambient_jax.train import state as state_lib
from ambient_jax.train.checkpoint_files import absolute, best_step, find, record_best, steps_in

__all__ = ["absolute", "best_step", "find", "record_best", "steps_in", "Checkpointer"]

FORMAT = 1
_ARRAYS, _POLICY = ("state", "ema_params"), ("assets", "ema_params")
RUN = ("assets", *_ARRAYS, "data")


def git_revision() -> str:
    """Returns the revision of the code, with "+changes" if the tree differs; "" outside git, as
    where the package is installed below the folder of another repository."""
    file = pathlib.Path(__file__)

    def git(*arguments):
        options = dict(cwd=file.parent, capture_output=True, text=True)
        return subprocess.run(["git", *arguments], timeout=10, check=True, **options).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", file.name)
        changes = "+changes" if git("status", "--porcelain", "-uno") else ""
        return git("rev-parse", "HEAD") + changes
    except (OSError, subprocess.SubprocessError):
        return ""


class Checkpointer:
    """Saves asynchronously and restores train states of one run. Keeps the ``keep`` newest
    checkpoints, those whose step is a multiple of ``keep_every``, and the best."""

    def __init__(
        self,
        directory: str | os.PathLike,
        *,
        keep: int = 2,
        keep_every: int | None = None,
        processes: ocp.options.MultiprocessingOptions | None = None,
    ):
        self._directory = pathlib.Path(absolute(directory))
        self._saving = 0  # step
        self._sound: int | None = None
        policies = ocp.checkpoint_managers
        best = types.SimpleNamespace(should_preserve=self._is_best)
        preserved = [policies.LatestN(keep), best]
        if keep_every is not None:
            preserved.append(policies.EveryNSteps(keep_every))
        handlers: dict[str, Any] = dict.fromkeys(_ARRAYS, ocp.StandardCheckpointHandler)
        handlers |= dict.fromkeys(("data", "assets"), ocp.JsonCheckpointHandler)
        create = processes is None  # all hosts see the directory
        processes = processes or ocp.options.MultiprocessingOptions()
        self._manager = ocp.CheckpointManager(
            epath.Path(self._directory),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(preserved),
                create=create,
                multiprocessing_options=processes,
                # Runs on the saving thread, between the last file and the commit.
                async_options=ocp.AsyncOptions(post_finalization_callback=self._complete),
            ),
            item_names=tuple(handlers),
            item_handlers={n: h(multiprocessing_options=processes) for n, h in handlers.items()},
        )

    def _complete(self) -> pathlib.Path:
        """Writes the digests of the step that is saved; returns its folder."""
        unfinished = self._directory.glob(f"{self._saving}.orbax-checkpoint-tmp*")
        folder = max(unfinished, key=lambda path: path.stat().st_mtime)
        files.await_metadata(folder)
        files.write_digests(folder, self._saving)
        return folder

    def _is_best(self, checkpoints, *, context):
        try:
            best = best_step(self._directory.parent)
        except (ValueError, OSError) as error:  # the training must not stop
            logging.warning("%s", error)
            best = None
        return [checkpoint.step == best for checkpoint in checkpoints]

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def sound_step(self, at_most: int | None = None) -> int | None:
        """Returns the newest undamaged step, up to ``at_most``; None without checkpoints. Renames
        newer, damaged ones to ``<step>.damaged``; raises ValueError if all are damaged. All hosts
        must call it."""
        step, error = -1, None
        if jax.process_index() == 0:
            try:
                step = self._set_aside(at_most)
            except (ValueError, OSError) as e:
                step, error = -2, e
        if jax.process_count() > 1:
            step = int(multihost_utils.broadcast_one_to_all(np.int32(step)))
        if step == -2:
            raise error or ValueError(f"no checkpoint in {self._directory} is sound, see host 0")
        self._manager.reload()
        self._sound = step if jax.process_index() == 0 else None
        return step if step >= 0 else None

    def _set_aside(self, at_most: int | None) -> int:
        return files.set_aside(self._directory, RUN, at_most)

    def all_steps(self) -> list[int]:
        return list(self._manager.all_steps())

    def drop_after(self, step: int) -> None:
        """Deletes the checkpoints of later steps."""
        for later in list(self._manager.all_steps()):
            if later > step:
                self._manager.delete(later)

    def save(self, step: int, state: state_lib.TrainState, assets: dict, data: Any = None) -> None:
        """Saves a host copy of the state (from ``parallel.fetch``) in the background. Raises
        FloatingPointError, and saves nothing, if parameters or moments are not finite."""
        if step in self._manager.all_steps():
            return
        state = jax.tree.map(np.asarray, state)
        check_finite(step, state)
        items = dict(
            state=ocp.args.StandardSave(_without_ema(state)),
            ema_params=ocp.args.StandardSave(state.ema_params),
            assets=ocp.args.JsonSave({"format": FORMAT, **assets}),
        )
        if data is not None:
            items["data"] = ocp.args.JsonSave(data)
        self._manager.wait_until_finished()  # the previous save must have written its digests
        self._saving = step
        self._manager.save(step, args=ocp.args.Composite(**items), custom_metadata=files.METADATA)

    def restore(self, step: int, like: state_lib.TrainState) -> tuple[state_lib.TrainState, Any]:
        """Returns the train state and the data position of a step; ``like`` may be only shapes.
        Raises ValueError if the checkpoint is damaged or its shapes differ from ``like``."""
        folder = self._directory / str(step)
        if step != self._sound:
            files.check(folder, RUN)
        self._sound = None
        with files.reading(folder, _ARRAYS):
            item = self._manager.item_metadata(step)
            saved = {name: getattr(item[name], "tree", item[name]) for name in _ARRAYS}
        expected = {"state": _without_ema(like), "ema_params": like.ema_params}
        check_shapes(saved.pop("state"), expected["state"], folder)
        check_shapes(saved, {"ema_params": like.ema_params}, folder)
        position = files.read_json(folder, "data") if (folder / "data").exists() else None
        empty = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), expected)
        items = {name: ocp.args.StandardRestore(tree) for name, tree in empty.items()}
        with files.reading(folder, _ARRAYS):
            restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        tree = restored["state"]
        zero: Any = np.zeros(like.sums.nonfinite.shape, like.sums.nonfinite.dtype)
        tree["sums"] = state_lib.Sums(**tree["sums"], nonfinite=zero)
        return state_lib.TrainState(ema_params=restored["ema_params"], **tree), position

    def close(self) -> None:
        """Waits for pending saves."""
        self._manager.wait_until_finished()
        self._manager.close()


def check_finite(step: int, state: state_lib.TrainState) -> None:
    """Raises FloatingPointError if parameters or moments are not finite."""
    saved = {"params": state.params, "ema_params": state.ema_params, "opt_state": state.opt_state}
    for name, leaf in by_name(saved).items():
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not np.isfinite(leaf).all():
            raise FloatingPointError(
                f"{name} is not finite at step {step}, which is not saved: lower "
                "config.train.learning_rate or weight_decay in a new workdir; "
                "config.train.init_from takes this one's last checkpoint, which is from before"
            )


def _without_ema(state):
    sums = {name: v for name, v in vars(state.sums).items() if name != "nonfinite"}  # 0 if saved
    return {n: getattr(state, n) for n in ("step", "params", "opt_state")} | {"sums": sums}


def by_name(tree: Any) -> dict[str, Any]:
    """Returns leaves of a tree by their path, such as "dense/kernel", in the tree's order."""
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    name = lambda k: str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k))))  # noqa: E731
    return {"/".join(map(name, path)): leaf for path, leaf in flat}


def check_shapes(saved: Any, expected: Any, where: Any) -> None:
    """Raises ValueError at the first array whose shape differs between a checkpoint and a model."""
    shapes, model = (
        {name: tuple(leaf.shape) for name, leaf in by_name(tree).items()}
        for tree in (getattr(saved, "tree", saved), expected)
    )
    for name in sorted(shapes.keys() | model.keys()):
        if shapes.get(name) != model.get(name):
            raise ValueError(
                f"checkpoint {where} has {name} of shape {shapes.get(name, 'nothing')}, the config "
                f"makes {model.get(name, 'nothing')}: use the config saved beside it, or another "
                "--workdir"
            )


def load_assets(path: str | os.PathLike, items: Sequence[str] = ("assets",)) -> dict[str, Any]:
    """Returns the assets of a checkpoint (``make_assets``, ``find``); checks files of ``items``.
    Raises ValueError if the checkpoint has another format or is damaged."""
    directory, step = find(path)
    folder = directory / str(step)
    if not (folder / "assets").is_dir():
        files.check(folder, items)
    assets = files.read_json(folder, "assets")
    if isinstance(assets, dict) and assets.get("format", FORMAT) != FORMAT:
        raise ValueError(
            f"checkpoint {files.shown(folder)} has format {assets['format']}, expected {FORMAT}: "
            f"load it with the version that wrote it ({assets.get('version', 'unknown')})"
        )
    files.check(folder, items)
    types = {"format": int, "config": dict, "statistics": str, "data": dict}
    for name, expected in types.items():
        if not isinstance(assets, dict) or not isinstance(assets.get(name), expected):
            raise ValueError(
                f"checkpoint {files.shown(folder)} has unreadable assets (their JSON has no "
                f"{name!r} of type {expected.__name__}); {files.remedy(folder, items)}"
            )
    return assets


def load_policy_assets(path: str | os.PathLike) -> dict[str, Any]:
    """Returns ``config``, ``statistics``, ``masks``, EMA ``params`` and ``step`` for a policy.
    Raises the errors of ``load_assets``."""
    directory, step = find(path)
    folder = directory / str(step)
    assets = load_assets(folder, _POLICY)
    # Each host reads on its own and does not wait for others.
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"policy_{me}"
    )
    with (
        files.reading(folder, ("ema_params",)),
        ocp.StandardCheckpointer(multiprocessing_options=alone) as reader,
    ):
        params = reader.restore(folder / "ema_params")
    needed = {"config": ml_collections.ConfigDict(assets["config"]), "params": params, "step": step}
    return needed | {"statistics": assets["statistics"], "masks": assets.get("masks", {})}


def make_assets(
    config: ml_collections.ConfigDict, statistics: str, data: dict[str, str] | None = None
) -> dict:
    """Returns the JSON saved with every checkpoint. It has the config, the JSON of the chain of
    transforms (``statistics``) and the fingerprints of the sources (``data``)."""
    return {
        "config": config.to_dict(),
        "statistics": statistics,
        "data": data or {},
        "version": __version__,
        "git_revision": git_revision(),
    }
