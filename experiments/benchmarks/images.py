"""Times batches of camera images beside tf.data doing the same work: decoding alone, and all.

Both have the same two cores: our decoder two threads, tf.data its own choice of them (AUTOTUNE).
Both read the same images, smoothed noise with shapes at quality 95, and return numpy batches,
images [256, h, w, 3] uint8. They take turns, each stopped during the other's; the spread is that of
the ratios of all turns. Processor time (user and system) feels other work on the machine less.

decode  from bytes in memory. Both decode 480x640 in full and resize all pixels.
loader  from the shards of two data sets: parse the episodes, normalise, cut a chunk of 16 actions
        at each step, shuffle the chunks of each among ``WINDOW``, mix, decode, batch. tf.data mixes
        by fixed shares; ours draws noise levels, sources from the ambient law at them, and ids too.
        It cannot read array_record: in that row it reads the same episodes as TFRecord.

    python -m experiments.benchmarks.images --repeats=9
"""

import functools
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import tensorflow_datasets as tfds
from absl import flags

from ambient_jax import mixing, schedules
from ambient_jax.cli import console, report
from ambient_jax.data import images, pipeline, write
from ambient_jax.train import config as train_config
from experiments import demos
from experiments.benchmarks import harness

_REPEATS = flags.DEFINE_integer("repeats", 9, "Turns of each side.")
_SECONDS = flags.DEFINE_float("seconds", 1.0, "Length of a turn, in about.")
_WORKERS = flags.DEFINE_integer("workers", 2, "Our threads, and the cores of both sides.")
_ROWS = flags.DEFINE_multi_string("row", [], "Rows of the table that begin so; all by default.")
_SERVE = flags.DEFINE_enum("serve", None, ("ours", "theirs"), "Be one side, for the one row.")
_ROOT = flags.DEFINE_string("root", "", "Its data.")

BATCH, DISTINCT = 256, 256
ROWS = {  # name: (file format, images as stored, as handed out), (h, w) each
    "decode 256x256": ("", (256, 256), (256, 256)),
    "decode 480x640 to 224x224": ("", (480, 640), (224, 224)),
    "loader, TFRecord, 256x256": ("tfrecord", (256, 256), (256, 256)),
    "loader, array_record, 256x256": ("array_record", (256, 256), (256, 256)),
}
COLUMNS = ("", "ours/s", "tf.data/s", "ours / tf.data", "ours, us", "tf.data, us", "tf.data / ours")
EPISODES = {"clean": 20, "corrupt": 60}
SHARDS, WINDOW, HORIZON, WIDTH = 4, 500, 16, 7
AHEAD = 4  # batches


def scene(height: int, width: int, seed: int) -> bytes:
    """Returns a jpeg with broad shades, some texture and shapes."""
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


def build(root: str, file_format: str) -> None:
    """Writes the two data sets of the loaders: episodes of 40 to 80 steps, each image once."""
    scenes = [scene(256, 256, seed) for seed in range(DISTINCT)]
    rng = np.random.default_rng(0)
    vector = np.zeros(WIDTH, np.float32)
    image = tfds.features.Image(shape=(256, 256, 3), encoding_format="jpeg")
    features = write.rlds_features({"state": vector, "image": image}, vector)
    episodes = {}
    for name, count in EPISODES.items():
        episodes[name] = []
        for _ in range(count):
            length = int(rng.integers(40, 80))
            action = rng.uniform(0, 0.1, (length, WIDTH)).astype(np.float32)
            action[:, -1] = rng.random(length) < 0.5
            state = rng.normal(size=(length, WIDTH)).astype(np.float32)
            frames = [scenes[i] for i in rng.integers(0, DISTINCT, length)]
            steps = demos.steps({"state": state, "image": frames}, action)
            episodes[name].append({"steps": steps})
    harness.write_sources(root, file_format, features, episodes)


def our_decoder(name: str, root: str, workers: int) -> Iterator[np.ndarray]:
    """Yields images of some blobs that are decoded over and over."""
    source, size = ROWS[name][1:]
    blobs = [scene(*source, seed) for seed in range(DISTINCT)]
    batches = itertools.cycle([blobs[i : i + BATCH] for i in range(0, len(blobs), BATCH)])
    with images.ImageDecoder(size, workers=workers) as decoder:
        waiting = [decoder.submit(next(batches)) for _ in range(2)]
        while True:
            waiting.append(decoder.submit(next(batches)))
            batch, failures = waiting.pop(0).result()
            assert not failures
            yield batch


def our_loader(name: str, root: str, workers: int) -> Iterator[np.ndarray]:
    """Yields the images of ``pipeline.stream_batches``."""
    config = train_config.default().data
    config.root, config.placement = os.path.join(root, ROWS[name][0]), "stream"
    config.history, config.horizon = 1, HORIZON
    config.normalization, config.normalize_per = "gaussian", "source"
    config.shuffle_window, config.prefetch = WINDOW, AHEAD
    form = config.open_x
    form.cameras, form.image_size = ("primary",), ROWS[name][2]
    form.action_width = form.state_width = WIDTH
    form.workers = workers
    spec = {
        "hz": 5,
        "action": "xyz action[0:3]; rpy action[3:6]; grip action[6]",
        "state": "observation/state",
        "primary": "observation/image",
    }
    for source in EPISODES:
        options = {"sigma_min": 0.0 if source == "clean" else 0.2, "last_step": "keep"}
        config.sources[source] = train_config.source(source, source, open_x=spec, **options)
    law = mixing.Ambient()
    mixture = pipeline.open_mixture(config, law, cache=os.path.join(root, "cache"))
    batches = pipeline.stream_batches(mixture, law, schedules.vp(), seed=0, batch_size=BATCH)
    for batch in batches:
        assert batch["action"].shape == (BATCH, HORIZON, WIDTH)
        yield batch["observation"]["image_primary"][:, 0]


def tensorflow(name: str, root: str, workers: int) -> Iterator[np.ndarray]:
    """Yields images of tf.data: the blobs decoded, or all that ``our_loader`` does but the law."""
    import tensorflow as tf

    file_format, source, size = ROWS[name]

    def decode(blob):
        image = tf.io.decode_jpeg(blob, channels=3)
        if source != size:
            image = tf.image.resize(image, size, antialias=True)
            image = tf.cast(tf.round(image), tf.uint8)
        return tf.ensure_shape(image, (*size, 3))

    if file_format:
        data = _chunks(tf, os.path.join(root, "tfrecord"))
        full = lambda chunk: {**chunk, "image": decode(chunk["image"])}  # noqa: E731
    else:
        blobs = [scene(*source, seed) for seed in range(DISTINCT)]
        data = tf.data.Dataset.from_tensor_slices({"image": blobs}).repeat()
        full = lambda chunk: {"image": decode(chunk["image"])}  # noqa: E731
    data = data.map(full, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH)
    options = tf.data.Options()
    options.threading.private_threadpool_size = workers
    options.deterministic = False
    for batch in data.prefetch(AHEAD).with_options(options).as_numpy_iterator():
        yield batch["image"]


def _chunks(tf, root):
    """Returns chunks [H, D] of both data sets with their encoded images, shuffled and mixed."""
    auto = tf.data.AUTOTUNE
    strings = tf.io.FixedLenSequenceFeature([], tf.string, allow_missing=True)
    floats = tf.io.FixedLenSequenceFeature([WIDTH], tf.float32, allow_missing=True)
    names = {"steps/action": floats, "steps/observation/state": floats}
    names["steps/observation/image"] = strings

    def cut(moments, record):
        read = tf.io.parse_single_example(record, names)
        action, state = (read[n] for n in ("steps/action", "steps/observation/state"))
        (mean, deviation), (middle, spread) = moments
        action, state = (action - mean) / deviation, (state - middle) / spread
        length = tf.shape(action)[0]
        ahead = tf.range(length)[:, None] + tf.range(HORIZON)[None]
        return {
            "action": tf.gather(action, tf.minimum(ahead, length - 1)),
            "mask": ahead < length,
            "state": state,
            "image": read["steps/observation/image"],
        }

    def moments(files):
        read = [tf.io.parse_single_example(r, names) for r in tf.data.TFRecordDataset(files)]
        values = [np.concatenate([r[n] for r in read]) for n in list(names)[:2]]
        return [(v.mean(0), v.std(0)) for v in values]

    sources = []
    for name in EPISODES:
        files = sorted(tf.io.gfile.glob(os.path.join(root, name, "*", "*.tfrecord*")))
        data = tf.data.Dataset.from_tensor_slices(files).shuffle(SHARDS).repeat()
        data = data.interleave(
            tf.data.TFRecordDataset, cycle_length=SHARDS, num_parallel_calls=auto
        )
        data = data.map(functools.partial(cut, moments(files)), num_parallel_calls=auto)
        data = data.flat_map(tf.data.Dataset.from_tensor_slices)
        sources.append(data.shuffle(WINDOW))
    shares = np.array(list(EPISODES.values())) / sum(EPISODES.values())
    return tf.data.Dataset.sample_from_datasets(sources, shares.tolist())


def turn(side: Iterator[np.ndarray], count: int) -> dict[str, float]:
    """Returns images/s and the processor's microseconds an image."""
    cpu, begin = time.process_time(), time.perf_counter()
    for _ in range(count):
        next(side)
    seconds, number = time.perf_counter() - begin, count * BATCH
    return {"rate": number / seconds, "cpu": (time.process_time() - cpu) / number * 1e6}


def serve(name: str, label: str) -> None:
    """Answers lines (numbers of batches) with turns; first sends the mean of some images."""
    ours = our_loader if ROWS[name][0] else our_decoder
    side = (ours if label == "ours" else tensorflow)(name, _ROOT.value, _WORKERS.value)
    print(json.dumps(np.mean([next(side).mean() for _ in range(8)])), flush=True)
    for line in sys.stdin:
        print(json.dumps(turn(side, int(line))), flush=True)


class Stopped:
    """A side in a process of its own, which runs only during its turns."""

    def __init__(self, name: str, label: str, root: str):
        command = [sys.executable, "-m", "experiments.benchmarks.images", f"--serve={label}"]
        command += [f"--row={name}", f"--root={root}", f"--workers={_WORKERS.value}"]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        self.mean = self._answer()

    def _answer(self) -> Any:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"it ended with status {self.process.wait()}: {self.process.args}")
        self.process.send_signal(signal.SIGSTOP)
        return json.loads(line)

    def turn(self, count: int) -> dict[str, float]:
        self.process.send_signal(signal.SIGCONT)
        print(count, file=self.process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        self.process.kill()  # it holds nothing, and its own end waits for batches read ahead
        self.process.wait()


def compare(name: str, root: str) -> list[str]:
    """Returns the row of this name."""
    if ROWS[name][0]:
        for file_format in {ROWS[name][0], "tfrecord"}:
            if not os.path.exists(os.path.join(root, file_format)):
                build(root, file_format)
    sides = [Stopped(name, label, root) for label in ("ours", "theirs")]
    assert abs(sides[0].mean - sides[1].mean) < 2  # the same images
    counts = [16, 16]  # AUTOTUNE finds its number of threads
    for _ in range(2):
        rates = [side.turn(count)["rate"] for side, count in zip(sides, counts, strict=True)]
        counts = [max(8, int(_SECONDS.value * rate / BATCH)) for rate in rates]
    turns = [[s.turn(n) for s, n in zip(sides, counts, strict=True)] for _ in range(_REPEATS.value)]
    for side in sides:
        side.close()
    cells = [name]
    for measure, ahead in (("rate", 0), ("cpu", 1)):
        values = np.array([[side[measure] for side in pair] for pair in turns])
        ratios = values[:, ahead] / values[:, 1 - ahead]
        for numbers, form in ((values[:, 0], ",.0f"), (values[:, 1], ",.0f"), (ratios, ".2f")):
            low, high = f"{min(numbers):{form}}", f"{max(numbers):{form}}"
            cells.append(f"{np.median(numbers):{form}} ({low} to {high})")
    return cells


def main(argv):
    del argv
    cores = sorted(os.sched_getaffinity(0))[: _WORKERS.value]
    os.sched_setaffinity(0, cores)  # and so of all processes from here on
    if _SERVE.value:
        serve(_ROWS.value[0], _SERVE.value)
        return
    print(
        f"{len(cores)} cores; images/s and microseconds of processor time an image: median (least "
        f"to most) of {_REPEATS.value} turns\n"
    )
    prefixes = tuple(_ROWS.value or [""])
    with tempfile.TemporaryDirectory() as root:
        rows = [compare(name, root) for name in ROWS if name.startswith(prefixes)]
    print(report.markdown(COLUMNS, rows))


if __name__ == "__main__":
    console.run(main)
