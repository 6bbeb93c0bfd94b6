"""Writes the policy folder of a checkpoint, with the model card that its run can tell."""

import importlib.metadata
import json
import os
import pathlib
import platform
import re
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import logging

from ambient_jax import __version__
from ambient_jax.data import mixture as mixtures
from ambient_jax.data import paths
from ambient_jax.data.bucket import BucketPath
from ambient_jax.publish import card, folder
from ambient_jax.train import checkpoint, checkpoint_files, lock, metrics, mirror, parallel
from ambient_jax.transforms.chain import Chain
from ambient_jax.transforms.steps import Text

NAME = "policy"  # folder in the workdir
_PACKAGES = ("jax", "flax", "optax", "numpy")
# Folders of a workdir with reports on its policy.
_REPORTS = ("report", "evaluation/*", "rollouts", "rollouts/*", "rollouts/*/*")


def recorded(mixture: mixtures.Mixture) -> dict[str, Any]:
    """Returns what every checkpoint keeps for its card: the versions of the packages, and the size
    and the bounds of each source."""
    versions = {"ambient_jax": __version__, "python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in _PACKAGES}
    sources = {}
    for name, measured in mixture.statistics.items():
        facts = {"episodes": int(np.sum(measured.lengths > 0)), "chunks": measured.num_steps}
        bounds = mixture.bounds.get(name)
        sources[name] = facts | ({"bounds": _bounds(bounds, name)} if bounds else {})
    return {"versions": versions, "sources": sources}


def _bounds(table, name):
    """Returns statistics of a source's rows in a bounds file."""
    rows = table.rows(name)
    low, high = table.sigma_min[rows].astype(float), table.sigma_max[rows].astype(float)
    clean, unusable = low <= 0, low >= 1
    middle = low[~clean & ~unusable]
    share = lambda mask: float(np.mean(mask)) if rows.size else 0.0  # noqa: E731
    facts = {"method": table.method, "steps": int(rows.size), "clean": share(clean)}
    facts |= {"unusable": share(unusable & (high <= 0)), "low": share(~clean & (high > 0))}
    if middle.size:
        facts["sigma_min"] = np.quantile(middle, (0.05, 0.5, 0.95)).tolist()
    return facts


def write(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str] = "",
    *,
    license: str = "",
    overwrite: bool = False,
) -> paths.AnyPath:
    """Writes a policy folder (``publish.folder``) of a checkpoint and returns its path.

    Args:
      path: workdir or checkpoint, see ``checkpoint.find``.
      out: the folder, on a disk; "" for ``<workdir>/policy``, in a bucket too.
      license: identifier of the hub, such as "apache-2.0"; "" for the one stated before, if any.
      overwrite: replace another policy, or an edited card.

    Raises:
      FileNotFoundError: there is no checkpoint.
      FileExistsError: ``out`` is taken.
      ValueError: the checkpoint is damaged, the licence is no identifier, or ``out`` is in a
        bucket.
    """
    if not re.fullmatch(r"[a-z0-9.-]*", license):
        raise ValueError(f"license is {license!r}, expected an identifier such as apache-2.0, mit")
    paths.check_local("--out", out)
    directory, step = checkpoint_files.where(path)
    workdir = directory.parent if directory.name == "checkpoints" else None
    if not out and workdir is None:
        raise ValueError(f"{path} is in no workdir, expected --out=<folder to write>")
    if isinstance(workdir, BucketPath):
        with mirror.local_path(path) as local:
            written = write(local, out, license=license, overwrite=overwrite)
        return written if out else workdir / NAME
    directory, step = checkpoint.find(path)
    final = pathlib.Path(paths.expanded(out)) if out else workdir / NAME  # type: ignore[operator]
    assets = checkpoint.load_assets(directory / str(step))
    params = checkpoint.load_policy_assets(directory / str(step))["params"]
    _check_embeddings(assets)
    content = {"step": step, **assets, "license": license or _stated(final)}
    size = sum(np.size(value) for value in folder.flat(params).values())
    text = card.text(content, size, _losses(workdir, step), list(_reports(workdir, step)))
    return folder.write(final, params, content, text, overwrite=overwrite)


def _check_embeddings(assets):
    """Raises ValueError if the instruction embeddings are not those of the training any more."""
    trained = assets["data"].get("data.open_x.embeddings")
    for step in Chain.from_json(assets["statistics"]).steps:
        if trained and isinstance(step, Text) and step.table and step.table.digest != trained:
            raise ValueError(
                f"the instruction embeddings {step.embeddings} have changed since the training, "
                "expected the file that it read: bring it back"
            )


def at_the_end(workdir: paths.AnyPath, *, again: bool = False) -> None:
    """Writes ``<workdir>/policy`` unless it is that of the newest checkpoint, or ``again``.

    For the end of a training, which must not fail: it logs an error. All hosts must call it.
    """
    try:
        with lock.hold(workdir):
            if parallel.is_first_host():
                with mirror.local_copy(workdir) as local:
                    _write_newest(local, again)
    except Exception as error:  # the training is done and saved, whatever happens here
        logging.warning(
            "%s was not written (%s): python -m ambient_jax.publish --checkpoint=%s writes it",
            *(workdir / NAME, " ".join(str(error).split()), workdir),
        )


def _write_newest(workdir, again):
    paths.restore_folder(workdir / NAME)
    for left in [*workdir.glob(f".{NAME}.partial-*"), *workdir.glob(f".{NAME}.replaced-*")]:
        shutil.rmtree(left, ignore_errors=True)  # by a process that was killed
    _, step = checkpoint.find(workdir)
    saved = checkpoint.load_assets(workdir) | {"step": step}
    try:
        there = folder.about(workdir / NAME)
        is_current = all(there.get(name) == saved[name] for name in ("step", "config", "data"))
    except (OSError, ValueError):
        is_current = False
    if again or not is_current:
        final = write(workdir, overwrite=not is_current)
        logging.info("%s is the policy of step %d, with its model card", final, step)


def _stated(final):
    """Returns the licence that a folder states, "" without one."""
    try:
        return str(folder.about(final).get("license") or "")
    except (OSError, ValueError):
        return ""


def _losses(workdir, step):
    """Returns the row of ``metrics.jsonl`` at a step, or the last one before; None without rows."""
    rows = metrics.read(workdir / "metrics.jsonl") if workdir else []
    return max((r for r in rows if r["step"] <= step), key=lambda r: r["step"], default=None)


def _reports(workdir: pathlib.Path | None, step: int) -> Iterator[tuple[str, str]]:
    """Returns name and table of each report in a workdir, except those on another step."""
    if workdir is None:
        return
    found = [p for pattern in _REPORTS for p in workdir.glob(f"{pattern}/results.json")]
    for file in sorted(found):
        name = file.parent.relative_to(workdir).as_posix()
        try:
            results = json.loads(file.read_bytes())
            table = file.with_name("table.md").read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            logging.warning("%s is not in the model card: %s", file.parent, error)
            continue
        if isinstance(results, dict) and results.get("step", step) == step:
            yield name, table
