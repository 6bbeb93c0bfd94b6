"""Converts a data set of any format to RLDS or to LeRobot v3.0.

python -m ambient_jax.data convert FROM TO --format lerobot
python -m ambient_jax.data convert FROM TO --format rlds

Numbers and texts are copied unchanged, and so are encoded pictures, unless they go to a video.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
import tqdm

from ambient_jax import _checks
from ambient_jax.data import storage, write
from ambient_jax.data.dataset import LAST_ACTION, NOTES
from ambient_jax.data.example_proto import object_array
from ambient_jax.data.features import flatten, is_dict, is_sequence, leaves, nest, select
from ambient_jax.data.paths import expanded, write_text
from ambient_jax.data.storage import lerobot_fields, lerobot_write
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
    progress: bool = False,
) -> Path:
    """Writes a split's episodes as RLDS and returns the folder, ``<directory>/<version>``.

    float64 is kept whole. Beside TFDS's files lies ``metadata.json``: whether the last action is
    real, and rate, robot, tasks and names of numbers, as LeRobot gives them.

    Args:
      directory: the new data set, whose last part is its name.
      dataset: from ``storage.open_dataset``, best with ``decode_images=False``, which keeps the
        encoded pictures, and ``last_step="keep"``.
      images: format of pictures of videos; "png" loses nothing.
      version: such as ``"1.0.0"``.
      overwrite: replace a data set of that name and version.
      progress: show a bar.

    Raises:
      FileExistsError: it exists and ``overwrite`` is False.
      ValueError: an episode cannot be read or written; the message names it.
    """
    _checks.one_of("images", images, IMAGES)
    place = Path(os.path.abspath(expanded(directory)))
    sources = leaves(dataset.features)
    stored = flatten(dataset[0])
    features = _features(dataset.features, images, set(stored))
    fields = leaves(features)

    def episodes() -> Iterator[dict[str, Any]]:
        bar = tqdm.tqdm(total=len(dataset), unit="episode", desc=place.name, disable=not progress)
        with bar:
            for shard in range(len(dataset.shard_lengths)):
                for number, episode in dataset.stream(shard):
                    flat = flatten(episode)
                    for path, value in flat.items():
                        if sources[path].kind == "image" and sources[path].sequence:
                            try:
                                blobs = lerobot_fields.encoded(value, fields[path].feature)
                                flat[path] = object_array(list(blobs))
                            except ValueError as error:
                                where = f"{dataset.directory}, episode {number}: {path}"
                                raise ValueError(f"{where}: {error}") from error
                    yield nest(flat)
                    bar.update()

    folder = write.write_dataset(
        place.parent,
        name=place.name,
        version=version,
        features=features,
        episodes=episodes(),
        split=dataset.split.partition("[")[0],
        description=f"{dataset.name} {dataset.version}, converted",
        overwrite=overwrite,
    )
    notes: dict[str, Any] = {} if dataset.ends_in_filler else {LAST_ACTION: "real"}
    if known := lerobot_write.about(dataset):
        notes["lerobot"] = known
    if notes:
        write_text(folder / NOTES, json.dumps(notes, indent=1, ensure_ascii=False))
    return folder


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
    options = parser.parse_args(list(argv))
    dataset = _open(options.source, options.split, options.leave_out)
    shared = {"overwrite": options.overwrite, "progress": True}
    if options.format == "rlds":
        path = write_rlds(options.target, dataset, images=options.images, **shared)
    else:
        path = lerobot_write.write_lerobot(
            options.target,
            dataset,
            hz=options.hz,
            videos=options.videos.replace("none", ""),
            language=options.language,
            **shared,
        )
    print(path)
