"""Converts a data set of any format to RLDS or to LeRobot v3.0.

python -m ambient_jax.data convert FROM TO --format lerobot
python -m ambient_jax.data convert FROM TO --format rlds [--processes=8]

Numbers and texts are copied unchanged, and so are encoded pictures, unless they go to a video.
RLDS is written by shard: after an interruption, or once a damaged shard is mended, the same
command does what is missing. Exit status 1: some shard could not be converted, and there is no
data set yet.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ambient_jax import _checks
from ambient_jax.data import storage, write
from ambient_jax.data.dataset import LAST_ACTION
from ambient_jax.data.features import flatten, is_dict, is_sequence, leaves, select
from ambient_jax.data.paths import expanded
from ambient_jax.data.prepare import conversion, engine
from ambient_jax.data.storage import lerobot_write
from ambient_jax.data.storage.video_write import CODECS

FORMATS = ("lerobot", "rlds")
IMAGES = ("png", "jpeg")


def write_rlds(
    directory: str | os.PathLike[str],
    dataset: storage.Dataset,
    *,
    images: str = "png",
    version: str = "1.0.0",
    overwrite: bool = False,
    processes: int = 0,
    options: Sequence[str] = (),
) -> Path:
    """Writes a split's episodes as RLDS and returns the folder, ``<directory>/<version>``.

    float64 is kept whole. Beside TFDS's files lies ``metadata.json``: whether the last action is
    real, and rate, robot, tasks and names of numbers, as LeRobot gives them. The same call goes on
    where an earlier one ended; the result is the same for any number of processes.

    Args:
      directory: the new data set, whose last part is its name.
      dataset: from ``storage.open_dataset``, best with ``decode_images=False``, which keeps the
        encoded pictures, and ``last_step="keep"``.
      images: format of pictures of videos; "png" loses nothing.
      version: such as ``"1.0.0"``.
      overwrite: replace a data set of that name and version.
      processes, options: see ``engine.run``.

    Raises:
      FileExistsError: it exists and ``overwrite`` is False.
      UnfinishedError: an episode cannot be read or written, which is a ValueError that names it;
        what else was converted is kept for the next call.
      ValueError: a name is malformed, or no episode can be read.
      ImportError: Beam is not installed.
    """
    _checks.one_of("images", images, IMAGES)
    write.check_names(directory, "any", version, [])
    place = Path(os.path.abspath(expanded(directory)))
    split = dataset.split.partition("[")[0].strip()
    write.check_names(place.parent, place.name, version, [split])
    stored = flatten(_first(dataset))
    notes: dict[str, Any] = {} if dataset.ends_in_filler else {LAST_ACTION: "real"}
    if known := lerobot_write.about(dataset):
        notes["lerobot"] = known
    conversion.convert(
        place / version,
        dataset,
        _features(dataset.features, images, set(stored)),
        notes=notes,
        settings={path: str(getattr(value, "dtype", "")) for path, value in stored.items()},
        overwrite=overwrite,
        processes=processes,
        options=options,
    )
    return place / version


def _first(dataset: storage.Dataset) -> Any:
    """Returns the first episode that can be read."""
    problem: Exception | None = None
    for position in range(len(dataset)):
        try:
            return dataset[position]
        except (ValueError, OSError) as error:
            problem = problem or error
    raise problem or ValueError(f"{dataset.directory} holds no episode")


def _features(feature: Any, images: str, stored: set[str], path: str = "") -> Any:
    """Returns the connectors of the ``stored`` leaves, which keep all bits; None for no leaf."""
    if is_dict(feature) or is_sequence(feature):
        inner = feature if is_dict(feature) else feature.feature
        if not is_dict(inner):
            return feature if path in stored else None
        below = {
            name: _features(child, images, stored, f"{path}/{name}" if path else name)
            for name, child in inner.items()
        }
        below = {name: child for name, child in below.items() if child is not None}
        if is_dict(feature):
            return tfds.features.FeaturesDict(below) if below or not path else None
        return tfds.features.Dataset(below) if below else None
    if path not in stored:
        return None
    if type(feature) is tfds.features.Image:
        encoding = feature.to_json_content().encoding_format or images
        return tfds.features.Image(
            shape=feature.shape, dtype=feature.np_dtype, encoding_format=encoding
        )
    if type(feature) in (tfds.features.Tensor, tfds.features.Scalar):
        if np.dtype(feature.np_dtype) == np.float64:  # TFDS stores float32
            return tfds.features.Tensor(
                shape=feature.shape, dtype=np.float64, encoding=tfds.features.Encoding.BYTES
            )
    return feature


def _open(path: str, split: str, leave_out: Iterable[str]) -> storage.Dataset:
    dataset = storage.open_dataset(path, split, decode_images=False, last_step="keep")
    every = list(leaves(dataset.features))
    dropped = set(select(every, leave_out, path))
    if not dropped:
        return dataset
    keys = [p for p in every if p not in dropped]
    return storage.open_dataset(path, split, keys=keys, decode_images=False, last_step="keep")


def main(argv: Sequence[str]) -> None:
    """The command, without its name; prints where the new data set lies.

    Raises:
      ValueError, OSError, ImportError: as ``storage.open_dataset`` and the writers.
    """
    parser = argparse.ArgumentParser("python -m ambient_jax.data convert", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("source", metavar="FROM", help="folder of a data set of any format")
    add("target", metavar="TO", help="the new folder")
    add("--format", choices=FORMATS, required=True)
    add("--split", default="train", help="also a part of it: 'train[:10]', 'train[3,8:12]'")
    add("--leave-out", action="append", default=[], metavar="FIELD", help="such as steps/a; repeat")
    add("--hz", type=float, help="steps per second, if the data set does not state it")
    add("--videos", default="h264", choices=(*CODECS, "none"), help="to LeRobot; none: in tables")
    add("--language", default=lerobot_write.LANGUAGE, help="to LeRobot: the text of the tasks")
    add("--images", default="png", choices=IMAGES, help="to RLDS: pictures of videos")
    add("--overwrite", action="store_true", help="replace a data set at TO")
    text = (
        "to RLDS: worker processes on Apache Beam; 0, the default: this process. LeRobot's files "
    )
    text += "number their rows and pictures from the first one on: one process writes them"
    add("--processes", type=int, default=0, metavar="N", help=text)
    text = 'options of Apache Beam, such as "--runner=FlinkRunner,..."; repeat'
    add("--beam_options", action="append", default=[], metavar="OPTIONS", help=text)
    options = parser.parse_args(list(argv))
    _checks.number("--processes", options.processes, 0, 4096, whole=True)
    if options.format == "lerobot" and (options.processes or options.beam_options):
        parser.error("--processes and --beam_options are for --format rlds")
    dataset = _open(options.source, options.split, options.leave_out)
    if options.format == "rlds":
        path = _to_rlds(options, dataset)
    else:
        path = lerobot_write.write_lerobot(
            options.target,
            dataset,
            hz=options.hz,
            videos=options.videos.replace("none", ""),
            language=options.language,
            overwrite=options.overwrite,
            progress=True,
        )
    print(path)


def _to_rlds(options: argparse.Namespace, dataset: storage.Dataset) -> Path:
    try:
        return write_rlds(
            options.target,
            dataset,
            images=options.images,
            overwrite=options.overwrite,
            processes=options.processes,
            options=engine.split(options.beam_options),
        )
    except conversion.UnfinishedError as error:
        for what, reason in error.failures:
            print(f"failed: {what}: {reason}", file=sys.stderr)
        if error.kept:
            total = error.kept + len(error.failures)
            print(
                f"{error.kept} of {total} shards are kept in {error.folder}: mend the others, and "
                "the same command makes them",
                file=sys.stderr,
            )
        sys.exit(1)
