"""Batches whose encoded images a pool of threads decodes, ahead of the batch in use."""

from __future__ import annotations

import collections
from typing import Any

import grain
import numpy as np

from ambient_jax.data import images


class DecodedBatches(grain.DatasetIterator):
    """Decodes images, some batches ahead of the one that is taken.

    Args:
      batches: an iterable of batches with encoded images.
      mixture: their ``mixture.Mixture``, whose chain has images.
    """

    _AHEAD = 2

    def __init__(self, batches, mixture):
        super().__init__()
        self._batches = iter(batches)
        self._mixture, self._images = mixture, mixture.chain.images
        self._sources = [mixture.datasets[n] for n in mixture.names]
        self._decoder: images.ImageDecoder | None = None
        self._pending: collections.deque[tuple] = collections.deque()
        self._state = self._batches.get_state()

    def __next__(self) -> dict[str, Any]:
        self._assert_not_closed()
        if self._decoder is None:
            for name, source in self._mixture.datasets.items():
                source.refuse_images(self._mixture.statistics[name].problems)
        while len(self._pending) < self._AHEAD:
            batch = next(self._batches)
            self._pending.append((batch, self._submit(batch), self._batches.get_state()))
        batch, pending, self._state = self._pending.popleft()
        decoded, failures = pending.result()
        observation, cameras = batch["observation"], self._images.cameras
        shape = observation[f"image_{cameras[0]}"].shape
        for index, reason in failures.items():
            self._report(batch, index, reason)
        size = shape[0] * shape[1]
        bad = np.zeros(size * len(cameras), bool)
        bad[list(failures)] = True
        for i, camera in enumerate(cameras):
            part, name = slice(i * size, (i + 1) * size), f"image_{camera}"
            there = np.array([bool(blob) for blob in observation[name].flat]) & ~bad[part]
            observation[name] = decoded[part].reshape(*shape, *decoded.shape[1:])
            observation[f"{name}_mask"] = there.reshape(shape)
        return batch

    def _submit(self, batch):
        blobs, bgr = [], []
        for camera in self._images.cameras:
            encoded = batch["observation"][f"image_{camera}"]
            blobs += list(encoded.flat)
            flipped = np.array([source.bgr.get(camera, False) for source in self._sources])
            bgr.append(np.repeat(flipped[batch["source"]], encoded.shape[1]))
        if self._decoder is None:
            workers = self._mixture.format.workers
            self._decoder = images.ImageDecoder(self._images.size, workers=workers)
        return self._decoder.submit(blobs, np.concatenate(bgr))

    def _report(self, batch, index, reason):
        """Says where an image that cannot be decoded comes from; its source may refuse it."""
        cameras = self._images.cameras
        rows, history = batch["observation"][f"image_{cameras[0]}"].shape
        camera, row = cameras[index // (rows * history)], index // history % rows
        k, episode, step = batch["id"][row].tolist()
        step = max(0, step - (history - 1 - index % history))
        self._sources[k].damaged_image(
            f"source {self._mixture.names[k]!r}, episode {episode}, step {step}: image of the "
            f"{camera} camera cannot be decoded ({reason})"
        )

    def get_state(self) -> dict[str, Any]:
        return self._state

    def set_state(self, state: dict[str, Any]) -> None:
        self._pending.clear()
        self._batches.set_state(state)
        self._state = state

    def close(self) -> None:
        if not self._closed:
            self._batches.close()
            if self._decoder is not None:
                self._decoder.close()
        super().close()
