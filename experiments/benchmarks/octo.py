"""The operations of Octo's training pipeline in plain tf.data, on the data sets of ``images``.

Octo (``make_interleaved_dataset`` in
https://github.com/octo-models/octo/blob/main/octo/data/dataset.py) reads each RLDS data set by TFDS
with its steps undecoded; per trajectory it renames fields, normalises action and state, marks what
is padding, cuts windows of observations and chunks of actions at every step, and flattens them. It
mixes the data sets by weight, shuffles, decodes and resizes the images of each window (also to the
size that they have), and batches. This is written anew from that list. Left out are goal images,
which are more images to decode, and augmentation, which ours does on the device.
"""

import functools
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

_FILES = 16  # read at once


def batches(
    root: str,
    names: Mapping[str, int],
    *,
    window: int,
    horizon: int,
    size: tuple[int, int],
    resize: bool,
    buffer: int,
    batch: int,
    threads: int,
) -> Iterator[Any]:
    """Yields batches as NumPy arrays: images [B, window, h, w, 3] uint8 among others.

    Args:
      root: folder of the data sets.
      names: their names and weights.
      window, horizon: steps observed, and actions from the present on.
      size: (h, w) of the images.
      resize: False leaves out the resizing.
      buffer: frames that are shuffled together.
      batch: B.
      threads: of the private pool.
    """
    import tensorflow as tf
    import tensorflow_datasets as tfds

    auto = tf.data.AUTOTUNE

    def restructure(steps):
        observation = steps["observation"]
        length = tf.shape(steps["action"])[0]
        return {
            "observation": {
                "image_primary": observation["image"],
                "proprio": tf.cast(observation["state"], tf.float32),
                "timestep": tf.range(length),
            },
            "task": {"language_instruction": tf.fill([length], "")},
            "action": tf.cast(steps["action"], tf.float32),
        }

    def normalise(moments, trajectory):
        for field, (mean, deviation) in moments.items():
            node = trajectory if field == "action" else trajectory["observation"]
            node[field] = (node[field] - mean) / (deviation + 1e-8)
        return trajectory

    def mark_padding(trajectory):
        for part in ("observation", "task"):
            masks = {}
            for name, values in trajectory[part].items():
                text = values.dtype == tf.string
                masks[name] = tf.strings.length(values) != 0 if text else tf.ones_like(values, bool)
            trajectory[part]["pad_mask_dict"] = masks
        return trajectory

    def cut(trajectory):
        length = tf.shape(trajectory["action"])[0]
        past = tf.range(length)[:, None] + tf.range(1 - window, 1)[None]
        ahead = tf.range(length)[:, None] + tf.range(horizon)[None]
        observed = tf.maximum(past, 0)
        observation = tf.nest.map_structure(
            lambda x: tf.gather(x, observed), trajectory["observation"]
        )
        observation["timestep_pad_mask"] = past >= 0
        acted = tf.gather(trajectory["action"], tf.minimum(ahead, length - 1))
        # For each observation of the window, the chunk from it on.
        trajectory["action"] = tf.gather(acted, observed)
        inside = tf.gather(ahead < length, observed)
        shape = tf.shape(trajectory["action"])
        trajectory["action_pad_mask"] = tf.broadcast_to(inside[..., None], shape)
        trajectory["observation"] = observation
        return trajectory

    def decode(frame):
        def one(blob):
            image = tf.io.decode_image(blob, expand_animations=False, dtype=tf.uint8)
            if resize:
                resized = tf.image.resize(image, size, method="lanczos3", antialias=True)
                image = tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
            return tf.ensure_shape(image, (*size, 3))

        images = frame["observation"]["image_primary"]
        frame["observation"]["image_primary"] = tf.map_fn(one, images, fn_output_signature=tf.uint8)
        return frame

    def opened(name):
        builder = tfds.builder_from_directory(_version(os.path.join(root, name)))
        reading = tfds.ReadConfig(
            skip_prefetch=True,
            num_parallel_calls_for_interleave_files=_FILES,
            interleave_cycle_length=_FILES,
        )
        decoders = {"steps": tfds.decode.SkipDecoding()}
        return builder.as_dataset(
            split="train", shuffle_files=True, decoders=decoders, read_config=reading
        ).map(lambda episode: episode["steps"], num_parallel_calls=auto)

    def moments(name):
        steps = list(opened(name).map(restructure))
        actions = np.concatenate([s["action"] for s in steps])
        states = np.concatenate([s["observation"]["proprio"] for s in steps])
        return {n: (x.mean(0), x.std(0)) for n, x in (("action", actions), ("proprio", states))}

    sources = []
    for name in names:
        data = opened(name).repeat()
        for step in (restructure, functools.partial(normalise, moments(name)), mark_padding, cut):
            data = data.map(step, num_parallel_calls=auto)
        sources.append(data.flat_map(tf.data.Dataset.from_tensor_slices))
    weights = np.array(list(names.values()), np.float64)
    data = tf.data.Dataset.sample_from_datasets(sources, (weights / weights.sum()).tolist())
    data = data.shuffle(buffer).map(decode, num_parallel_calls=auto).batch(batch)
    options = tf.data.Options()
    options.autotune.enabled = True
    options.autotune.ram_budget = 2**30
    options.deterministic = False
    options.experimental_optimization.map_fusion = True
    options.experimental_optimization.inject_prefetch = False
    options.threading.private_threadpool_size = threads
    return data.prefetch(4).with_options(options).as_numpy_iterator()


def _version(path: str) -> str:
    return os.path.join(path, sorted(os.listdir(path))[-1])
