"""Times the decoding of camera images into batches, beside tf.data doing the same work.

Both have the same two cores: our decoder two worker processes, tf.data its own choice of threads
(``map`` with AUTOTUNE, ``batch``, ``prefetch``) in a process of its own. The images, smoothed noise
with shapes at quality 95, are the same; each side hands out numpy batches [64, h, w, 3] uint8. They
take turns, and each turn's ratio is one row of the spread. The processor's time an image is printed
too: other work on the machine changes it less, but not nothing. In the second row ours shrinks by
two while decoding and resizes the rest; tf.data decodes in full and resizes, as is usual there.

    python -m experiments.benchmarks.images --repeats=9
"""

import io
import json
import os
import subprocess
import sys
import time

import numpy as np
import PIL.Image
import PIL.ImageDraw
from absl import app, flags

from ambient_jax.data import images

_REPEATS = flags.DEFINE_integer("repeats", 9, "Turns of each side.")
_SECONDS = flags.DEFINE_float("seconds", 1.0, "Length of a turn, in about.")
_WORKERS = flags.DEFINE_integer("workers", 2, "Our processes, and the cores of both sides.")
_SERVE = flags.DEFINE_string("serve", "", "Be the other side, for the row of this name.")

BATCH, DISTINCT = 64, 128
ROWS = {  # name: (source, result), (h, w) each
    "256x256": ((256, 256), (256, 256)),
    "480x640 to 224x224": ((480, 640), (224, 224)),
}


def scene(height: int, width: int, seed: int) -> bytes:
    """A jpeg with broad shades, some texture and shapes."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 128.0)
    for cell, amplitude in ((64, 50), (16, 18), (6, 6)):
        coarse = rng.normal(size=(3, height // cell + 2, width // cell + 2)).astype(np.float32)
        for channel, plane in enumerate(coarse):
            smooth = PIL.Image.fromarray(plane).resize((width, height), PIL.Image.BICUBIC)
            image[..., channel] += amplitude * np.asarray(smooth)
    image += rng.normal(size=(height, width, 1)) * 1.5  # the sensor's noise
    picture = PIL.Image.fromarray(image.clip(0, 255).astype(np.uint8))
    draw = PIL.ImageDraw.Draw(picture)
    for _ in range(8):
        x, y, size = rng.integers(0, width), rng.integers(0, height), rng.integers(10, height // 4)
        shape = draw.rectangle if rng.random() < 0.5 else draw.ellipse
        shape([(x, y), (x + size, y + size)], fill=tuple(rng.integers(0, 255, 3).tolist()))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=95)
    return out.getvalue()


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of some processes."""
    ticks = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as file:
            ticks += sum(map(int, file.read().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


class Ours:
    def __init__(self, blobs: list[bytes], size: tuple[int, int], workers: int):
        self.decoder = images.ImageDecoder(size, workers=workers, capacity=BATCH, in_flight=3)
        self.batches = [blobs[i : i + BATCH] for i in range(0, len(blobs), BATCH)]
        self.waiting = []
        self.pids = [os.getpid(), *(process.pid for process in self.decoder._processes)]

    def take(self, count: int) -> np.ndarray:
        """The last of so many batches."""
        for i in range(count):
            while len(self.waiting) < 3:
                self.waiting.append(self.decoder.submit(self.batches[i % len(self.batches)]))
            batch, failures = self.waiting.pop(0).result()
            assert not failures
        return batch


class TensorFlow:
    def __init__(self, blobs: list[bytes], size: tuple[int, int], workers: int):
        import tensorflow as tf

        def decode(blob):
            image = tf.io.decode_jpeg(blob, channels=3)
            if ROWS[_SERVE.value][0] != size:
                image = tf.image.resize(image, size, antialias=True)
                image = tf.cast(tf.round(image), tf.uint8)
            return tf.ensure_shape(image, (*size, 3))

        data = tf.data.Dataset.from_tensor_slices(blobs).repeat()
        data = data.map(decode, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH).prefetch(2)
        options = tf.data.Options()
        options.threading.private_threadpool_size = workers
        self.batches = data.with_options(options).as_numpy_iterator()
        self.pids = [os.getpid()]

    def take(self, count: int) -> np.ndarray:
        for _ in range(count):
            batch = next(self.batches)
        return batch


def turn(side: "Ours | TensorFlow", count: int) -> dict[str, float]:
    """Images/s and the processor's microseconds an image."""
    side.take(6)  # what ran ahead while the other had its turn
    cpu, begin = cpu_seconds(side.pids), time.perf_counter()
    side.take(count)
    seconds, number = time.perf_counter() - begin, count * BATCH
    return {"rate": number / seconds, "cpu": (cpu_seconds(side.pids) - cpu) / number * 1e6}


def make(name: str, side: type, workers: int) -> "Ours | TensorFlow":
    source, size = ROWS[name]
    return side([scene(*source, seed) for seed in range(DISTINCT)], size, workers)


def serve(name: str) -> None:
    """Answers each line, a number of batches, with a turn of TensorFlow's; first a batch's mean."""
    other = make(name, TensorFlow, _WORKERS.value)
    print(json.dumps(float(other.take(1).mean())), flush=True)
    for line in sys.stdin:
        print(json.dumps(turn(other, int(line))), flush=True)


def compare(name: str) -> None:
    command = [sys.executable, "-m", "experiments.benchmarks.images", f"--serve={name}"]
    command += [f"--workers={_WORKERS.value}"]
    other = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )

    def theirs(count):
        print(count, file=other.stdin, flush=True)
        return json.loads(other.stdout.readline())

    with other:
        mean = json.loads(other.stdout.readline())
        ours = make(name, Ours, _WORKERS.value)
        assert abs(ours.take(1).mean() - mean) < 2  # the same images
        count = max(4, int(_SECONDS.value * turn(ours, 8)["rate"] / BATCH))
        theirs(count)  # AUTOTUNE finds its number of threads
        found = [(turn(ours, count), theirs(count)) for _ in range(_REPEATS.value)]
        ours.decoder.close()
        other.stdin.close()
    kilobytes = np.mean([len(blob) for batch in ours.batches for blob in batch]) / 1000
    spread = lambda values, form: (  # noqa: E731
        f"{np.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"
    )
    rates = [[side["rate"] for side in pair] for pair in found]
    cells = [spread([pair[i] for pair in rates], ",.0f") for i in range(2)]
    cells += [spread([a / b for a, b in rates], ".2f")]
    cells += [spread([b["cpu"] / a["cpu"] for a, b in found], ".2f")]
    print(f"| {name}, {kilobytes:.0f} kB | {' | '.join(cells)} |", flush=True)


def main(argv):
    del argv
    cores = sorted(os.sched_getaffinity(0))[: _WORKERS.value]
    os.sched_setaffinity(0, cores)  # and so of all processes from here on
    if _SERVE.value:
        serve(_SERVE.value)
        return
    print(f"{len(cores)} cores, images/s: median (least to most) of {_REPEATS.value} turns\n")
    print("| images | ours | tf.data | ours / tf.data | tf.data's processor time / ours |")
    print("|---|---|---|---|---|")
    for name in ROWS:
        compare(name)


if __name__ == "__main__":
    app.run(main)
