"""Orbax checkpoints: train state, EMA parameters, data position and the assets a policy needs.

``<workdir>/checkpoints/<step>/`` holds four items:

* ``state``       step, parameters, optimizer, metric sums
* ``ema_params``  what a policy loads
* ``data``        position of the input stream, one file a host (absent when data live on device)
* ``assets``      JSON: config, normalisation statistics, fingerprints of the data, git revision

and ``digests.json``, which every load compares with the files that it reads. A checkpoint appears
under its name only when it is complete; a killed save leaves nothing to load.
The best one is what ``record_best`` was told, from outside of the training: ``<workdir>/best.json``
names its step, ``<workdir>/best`` is a path to it, and it is not deleted.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
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
from ambient_jax.train import digests, layout
from ambient_jax.train import state as state_lib
from ambient_jax.train.layout import best_step, find, record_best, steps_in  # noqa: F401

FORMAT = 1
_RUN = ("assets", "state", "ema_params", "data")
_POLICY = ("assets", "ema_params")


def git_revision() -> str:
    """Revision of the code that runs, with "+changes" when the tree differs; "" outside git."""
    here = pathlib.Path(__file__).parent
    try:
        run = lambda *a: subprocess.run(  # noqa: E731
            ["git", *a], cwd=here, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
        return run("rev-parse", "HEAD") + (
            "+changes" if run("status", "--porcelain", "-uno") else ""
        )
    except (OSError, subprocess.SubprocessError):
        return ""


class Checkpointer:
    """Saves asynchronously and restores train states of one run.

    Args:
      directory: of the checkpoints.
      keep: number of the newest that stay.
      keep_every: those whose step is a multiple of it stay as well.

    The one that is recorded as the best (``record_best``) stays, too.
    """

    def __init__(
        self, directory: str | os.PathLike, *, keep: int = 2, keep_every: int | None = None
    ):
        self._directory = layout.absolute(directory)
        self._saving, self._sound = 0, None  # steps
        policies = ocp.checkpoint_managers
        preserved = [policies.LatestN(keep), _Best(self._directory)]
        if keep_every is not None:
            preserved.append(policies.EveryNSteps(keep_every))
        self._manager = ocp.CheckpointManager(
            epath.Path(self._directory),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(preserved),
                create=True,
                # On the thread that saves, between the last file and the commit.
                async_options=ocp.AsyncOptions(post_finalization_callback=self._write_digests),
            ),
            item_names=("state", "ema_params", "data", "assets"),
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "ema_params": ocp.StandardCheckpointHandler(),
                "data": ocp.JsonCheckpointHandler(),
                "assets": ocp.JsonCheckpointHandler(),
            },
        )

    def _write_digests(self):
        unfinished = self._directory.glob(f"{self._saving}.orbax-checkpoint-tmp*")
        digests.write(max(unfinished, key=lambda path: path.stat().st_mtime), self._saving)

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def sound_step(self, at_most: int | None = None) -> int | None:
        """The newest step, up to ``at_most``, that is as it was saved; None without checkpoints.

        Newer ones that are damaged are set aside, as ``<step>.damaged``, with a warning: a run that
        goes on from there computes the same again. All hosts must call it.

        Raises:
          ValueError: all are damaged, so that going on would be to begin anew; they stay.
        """
        found, failed = -1, None
        if jax.process_index() == 0:
            try:
                found = digests.set_aside(self._directory, _RUN, at_most)
            except (ValueError, OSError) as error:
                found, failed = -2, error
        if jax.process_count() > 1:
            found = int(multihost_utils.broadcast_one_to_all(np.int32(found)))
        if found == -2:
            raise failed or ValueError(f"no checkpoint in {self._directory} is sound, see host 0")
        self._manager.reload()
        self._sound = found if jax.process_index() == 0 else None
        return found if found >= 0 else None

    def all_steps(self) -> list[int]:
        return list(self._manager.all_steps())

    def drop_after(self, step: int) -> None:
        """Deletes the checkpoints of later steps."""
        for later in self.all_steps():
            if later > step:
                self._manager.delete(later)

    def save(self, step: int, state: state_lib.TrainState, assets: dict, data: Any = None) -> None:
        """Saves a host copy of the state (as from ``parallel.unreplicate``); returns at once.

        Raises:
          FloatingPointError: for parameters or optimizer moments that are not finite; the
            checkpoints before stay as they are.
        """
        if step in self._manager.all_steps():
            return
        state = jax.tree.map(np.asarray, state)
        _check_finite(step, state)
        items = dict(
            state=ocp.args.StandardSave(_without_ema(state)),
            ema_params=ocp.args.StandardSave(state.ema_params),
            assets=ocp.args.JsonSave({"format": FORMAT, **assets}),
        )
        if data is not None:
            items["data"] = ocp.args.JsonSave(data)
        self._manager.wait_until_finished()  # as save does: the one before is done with its digests
        self._saving = step
        self._manager.save(step, args=ocp.args.Composite(**items), custom_metadata=digests.METADATA)

    def restore(self, step: int, like: state_lib.TrainState) -> tuple[state_lib.TrainState, Any]:
        """The train state and the data position saved at a step; ``like`` may be shapes only.

        Raises:
          ValueError: when the checkpoint's shapes are not those of ``like``, naming the first; when
            it is damaged, naming the file.
        """
        folder = self._directory / str(step)
        if step != self._sound:
            digests.check(folder, _RUN)
        self._sound = None
        with digests.reading(folder, ("state", "ema_params")):
            item = self._manager.item_metadata(step)
            saved = [getattr(item[name], "tree", item[name]) for name in ("state", "ema_params")]
        check_shapes(saved[0], _without_ema(like), folder)
        check_shapes({"ema_params": saved[1]}, {"ema_params": like.ema_params}, folder)
        like = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), like)
        items = dict(
            state=ocp.args.StandardRestore(_without_ema(like)),
            ema_params=ocp.args.StandardRestore(like.ema_params),
        )
        position = digests.read_json(folder, "data") if (folder / "data").exists() else None
        with digests.reading(folder, ("state", "ema_params")):
            restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        tree = restored["state"]
        sums = state_lib.Sums(**tree["sums"], nonfinite=np.zeros_like(like.sums.nonfinite))
        state = state_lib.TrainState(
            tree["step"], tree["params"], restored["ema_params"], tree["opt_state"], sums
        )
        return state, position

    def assets(self, step: int) -> dict:
        """See ``load_assets``."""
        return load_assets(self._directory / str(step))

    def close(self) -> None:
        """Waits for pending saves."""
        self._manager.wait_until_finished()
        self._manager.close()


def _check_finite(step: int, state: state_lib.TrainState) -> None:
    saved = {"params": state.params, "ema_params": state.ema_params, "opt_state": state.opt_state}
    for name, leaf in _by_name(saved).items():
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not np.isfinite(leaf).all():
            raise FloatingPointError(
                f"{name} is not finite at step {step}, which is not saved: lower "
                "config.train.learning_rate or weight_decay in a new workdir; "
                "config.train.init_from takes this one's last checkpoint, which is from before"
            )


def _without_ema(state: state_lib.TrainState) -> dict:
    sums = dict(vars(state.sums))
    del sums["nonfinite"]  # 0 wherever a state is saved
    return {
        "step": state.step,
        "params": state.params,
        "opt_state": state.opt_state,
        "sums": sums,
    }


def _by_name(tree: Any) -> dict[str, Any]:
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    name = lambda k: str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k))))  # noqa: E731
    return {"/".join(map(name, path)): leaf for path, leaf in flat}


def _shapes(tree: Any) -> dict[str, tuple]:
    return {name: tuple(leaf.shape) for name, leaf in _by_name(tree).items()}


def check_shapes(saved: Any, expected: Any, where: Any) -> None:
    """Raises ValueError at the first array whose shape differs between a checkpoint and a model."""
    saved, expected = _shapes(getattr(saved, "tree", saved)), _shapes(expected)
    for name in sorted(saved.keys() | expected.keys()):
        if saved.get(name) != expected.get(name):
            raise ValueError(
                f"checkpoint {where} has {name} of shape {saved.get(name, 'nothing')}, the config "
                f"makes {expected.get(name, 'nothing')}: use the config saved beside it, or "
                "another --workdir"
            )


class _Best:
    """Preserves the checkpoint that is recorded as the best while this process runs."""

    def __init__(self, directory: pathlib.Path):
        self._directory = directory

    def should_preserve(self, checkpoints, *, context):
        try:
            best = best_step(self._directory.parent)
        except (ValueError, OSError) as e:  # no reason for the training to stop
            logging.warning("%s", e)
            best = None
        return [each.step == best for each in checkpoints]


def load_assets(path: str | os.PathLike) -> dict[str, Any]:
    """The assets of a checkpoint, see ``make_assets``; no array is read.

    Args:
      path: see ``find``.

    Raises:
      FileNotFoundError: no finished checkpoint at the path.
      ValueError: a checkpoint of another format, or damaged.
    """
    directory, step = find(path)
    return _load_assets(directory / str(step), ("assets",))


def _load_assets(folder, items):
    """The assets, once the files of all ``items`` are found to be what was saved."""
    if not (folder / "assets").is_dir():
        digests.check(folder, items)  # says so
    assets = digests.read_json(folder, "assets")
    if isinstance(assets, dict) and assets.get("format", FORMAT) != FORMAT:
        raise ValueError(
            f"checkpoint {folder} has format {assets['format']}, expected {FORMAT}: load it "
            f"with the version that wrote it ({assets.get('version', 'unknown')})"
        )
    digests.check(folder, items)
    kinds = {"format": int, "config": dict, "statistics": str, "data": dict}
    for name, kind in kinds.items():
        if not isinstance(assets, dict) or not isinstance(assets.get(name), kind):
            raise ValueError(
                f"checkpoint {folder} has unreadable assets (their JSON has no "
                f"{name!r} of type {kind.__name__}); {digests.way_on(folder, items)}"
            )
    return assets


def load_policy_assets(path: str | os.PathLike) -> dict[str, Any]:
    """What a policy needs: ``config`` (ConfigDict), ``statistics``, ``params`` (EMA), ``step``.

    Raises:
      FileNotFoundError, ValueError: see ``load_assets``.
    """
    directory, step = find(path)
    folder = directory / str(step)
    assets = _load_assets(folder, _POLICY)
    # Each host reads for itself: a restore by all hosts together would wait for those that do not.
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"policy_{me}"
    )
    with (
        digests.reading(folder, ("ema_params",)),
        ocp.StandardCheckpointer(multiprocessing_options=alone) as reader,
    ):
        params = reader.restore(folder / "ema_params")
    return {
        "config": ml_collections.ConfigDict(assets["config"]),
        "statistics": assets["statistics"],
        "masks": assets.get("masks", {}),
        "params": params,
        "step": step,
    }


def fine_tune(params: Any, path: str | os.PathLike) -> Any:
    """The parameters with those of a checkpoint where name and shape agree; others stay.

    Takes the moving average, which is what policies use. Logs what was not found.

    Args:
      params: of a new model, a nested dict of arrays.
      path: see ``find``.

    Raises:
      FileNotFoundError: no finished checkpoint at the path.
      ValueError: nothing agrees, or a checkpoint of another format.
    """
    saved = _by_name(load_policy_assets(path)["params"])
    flat, tree = jax.tree_util.tree_flatten_with_path(params)
    taken, fresh, leaves = 0, [], []
    for name, leaf in zip(_by_name(params), (leaf for _, leaf in flat), strict=True):
        found = saved.get(name)
        agrees = found is not None and found.shape == leaf.shape
        leaves.append(jnp.asarray(found, leaf.dtype) if agrees else leaf)
        taken += agrees
        if not agrees:
            fresh.append(f"{name} {tuple(leaf.shape)}")
    if not taken:
        raise ValueError(
            f"no parameter of {path} has name and shape of one of this model's, such as "
            f"{fresh[0]}: fine-tune with the model section of its config.json"
        )
    logging.info(
        "%d of %d parameters from %s; new: %s", taken, len(flat), path, ", ".join(fresh) or "none"
    )
    return jax.tree_util.tree_unflatten(tree, leaves)


def make_assets(
    config: ml_collections.ConfigDict,
    statistics: str,
    data: dict[str, str] | None = None,
) -> dict:
    """The JSON saved with every checkpoint; ``statistics`` is that of its chain of transforms,
    ``data`` the fingerprints of the sources."""
    return {
        "config": config.to_dict(),
        "statistics": statistics,
        "data": data or {},
        "version": __version__,
        "git_revision": git_revision(),
    }
