"""Times batches of camera images beside tf.data doing the same work: decoding alone, and all.

Both have the same two cores: our decoder two threads, or the loader ``--assemblers`` processes that
share them, tf.data its own choice of them (AUTOTUNE). Both read the same images, smoothed noise
with shapes at quality 95, and return numpy batches, images [256, h, w, 3] uint8. They take turns,
each stopped during the other's; the spread is that of the ratios of all turns. Processor time (user
and system, of all processes of a side) feels other work on the machine less.

decode  from bytes in memory. Both decode 480x640 in full and resize all pixels.
loader  from the shards of two data sets: parse the episodes, normalise, cut a chunk of 16 actions
        at each step, shuffle the chunks of each among ``WINDOW``, mix, decode, batch. tf.data mixes
        by fixed shares; ours draws noise levels, sources from the ambient law at them, and ids too.
        It cannot read array_record: in that row it reads the same episodes as TFRecord.
octo    the same beside the operations of Octo's pipeline (``octo``): two images a row, chunks of 4.
        It resizes images to the size that they have; another row leaves that out.

    python -m experiments.benchmarks.images --repeats=9
"""

import contextlib
import functools
import io
import itertools
import os
import tempfile
from collections.abc import Iterator

import ml_collections
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
from experiments.benchmarks import harness, octo, sides

_REPEATS = flags.DEFINE_integer("repeats", 9, "Turns of each side.")
_SECONDS = flags.DEFINE_float("seconds", 1.0, "Length of a turn, in about.")
_WORKERS = flags.DEFINE_integer("workers", 2, "Our threads, and the cores of both sides.")
_ROWS = flags.DEFINE_multi_string("row", [], "Rows of the table that begin so; all by default.")
_ASSEMBLERS = flags.DEFINE_integer("assemblers", 1, "Processes of our loader, 1: no other.")
_SERVE = flags.DEFINE_enum("serve", None, ("ours", "theirs"), "Be one side, for the one row.")
_ROOT = flags.DEFINE_string("root", "", "Folder of the data, by default a temporary one.")

BATCH, DISTINCT = 256, 256
ROWS = {  # name: (file format, images as stored, as handed out), (h, w) each
    "decode 256x256": ("", (256, 256), (256, 256)),
    "decode 480x640 to 224x224": ("", (480, 640), (224, 224)),
    "loader, TFRecord, 256x256": ("tfrecord", (256, 256), (256, 256)),
    "loader, array_record, 256x256": ("array_record", (256, 256), (256, 256)),
    "octo, TFRecord, 256x256": ("tfrecord", (256, 256), (256, 256)),
    "octo without resizing, TFRecord, 256x256": ("tfrecord", (256, 256), (256, 256)),
}
COLUMNS = ("", "ours/s", "tf.data/s", "ours / tf.data", "ours, us", "tf.data, us", "tf.data / ours")
WINDOW_OF_OCTO, CHUNK_OF_OCTO = 2, 4  # as its released models
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
    """Writes the two data sets of the loaders, if they are missing: episodes of 40 to 80 steps."""
    if os.path.exists(os.path.join(root, file_format)):
        return
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


def configure(name: str, root: str, workers: int) -> ml_collections.ConfigDict:
    """Returns the data section of our side of a row."""
    config = train_config.default().data
    config.root, config.placement = os.path.join(root, ROWS[name][0]), "stream"
    octos = name.startswith("octo")
    config.history, config.horizon = (WINDOW_OF_OCTO, CHUNK_OF_OCTO) if octos else (1, HORIZON)
    config.normalization, config.normalize_per = "gaussian", "source"
    config.shuffle_window, config.prefetch = WINDOW, AHEAD
    config.assemblers = _ASSEMBLERS.value
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
    return config


def our_loader(name: str, root: str, workers: int) -> Iterator[np.ndarray]:
    """Yields the images of ``pipeline.stream_batches``."""
    config, law = configure(name, root, workers), mixing.Ambient()
    mixture = pipeline.open_mixture(config, law, cache=os.path.join(root, "cache"))
    rows = BATCH // config.history
    options = dict(seed=0, batch_size=rows, shards=SHARDS)
    for batch in pipeline.stream_batches(mixture, law, schedules.vp(), **options):
        assert batch["action"].shape == (rows, config.horizon, WIDTH)
        yield batch["observation"]["image_primary"].reshape(BATCH, *ROWS[name][2], 3)


def their_octo(name: str, root: str, workers: int) -> Iterator[np.ndarray]:
    """Yields the images of ``octo.batches``."""
    folder, window = os.path.join(root, ROWS[name][0]), WINDOW_OF_OCTO
    options = dict(window=window, horizon=CHUNK_OF_OCTO, size=ROWS[name][2], threads=workers)
    options |= dict(resize="without" not in name, buffer=2 * WINDOW, batch=BATCH // window)
    for batch in octo.batches(folder, EPISODES, **options):
        yield batch["observation"]["image_primary"].reshape(BATCH, *ROWS[name][2], 3)


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


def compare(name: str, root: str) -> list[str]:
    """Returns the row of this name."""
    if ROWS[name][0]:
        for file_format in {ROWS[name][0], "tfrecord"}:
            build(root, file_format)
    given = [f"--row={name}", f"--root={root}", f"--workers={_WORKERS.value}"]
    given.append(f"--assemblers={_ASSEMBLERS.value}")
    module = __spec__.name
    both = [sides.of_module(module, f"--serve={label}", *given) for label in ("ours", "theirs")]
    with sides.started(both) as pair:
        assert abs(pair[0].mean - pair[1].mean) < 2  # the same images
        turns = sides.take_turns(pair, _REPEATS.value, _SECONDS.value, BATCH)
    return [name, *sides.pair_cells(turns)]


def data_folder() -> contextlib.AbstractContextManager[str]:
    """Returns ``--root``, or a folder that is deleted at the end."""
    return contextlib.nullcontext(_ROOT.value) if _ROOT.value else tempfile.TemporaryDirectory()


def side(name: str, label: str) -> Iterator[np.ndarray]:
    """Yields one side's images of a row."""
    decodes, octos = not ROWS[name][0], name.startswith("octo")
    ours = our_decoder if decodes else our_loader
    theirs = their_octo if octos else tensorflow
    return (ours if label == "ours" else theirs)(name, _ROOT.value, _WORKERS.value)


@console.one_line_errors()
def main(argv):
    del argv
    cores = sorted(os.sched_getaffinity(0))[: _WORKERS.value]
    os.sched_setaffinity(0, cores)  # and so of all processes from here on
    if _SERVE.value:
        # So many batches that AUTOTUNE finds its number of threads.
        sides.serve(side(_ROWS.value[0], _SERVE.value), 16)
        return
    print(
        f"{len(cores)} cores, {_ASSEMBLERS.value} assemblers; images/s and microseconds of "
        f"processor time an image: median (least to most) of {_REPEATS.value} turns\n"
    )
    prefixes = tuple(_ROWS.value or [""])
    with data_folder() as root:
        rows = [compare(name, root) for name in ROWS if name.startswith(prefixes)]
    print(report.markdown(COLUMNS, rows))


if __name__ == "__main__":
    console.run(main)
