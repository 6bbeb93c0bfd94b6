"""Streams of data sets of many kinds in one form: a batch is what its ids say."""

import copy
import io
import itertools
import json
from concurrent import futures

import jax
import numpy as np
import PIL.Image
import pytest
from scipy.spatial.transform import Rotation

from ambient_jax import mixing, schedules
from ambient_jax.data import assembler, bounds, pipeline, rlds, source
from ambient_jax.data.stream import ChunkStream

VP, LAW = schedules.vp(), mixing.Ambient()
CAMERAS = ("primary", "wrist")
H, T, D, S, TEXT = 4, 3, 9, 8, 20  # horizon, history, widths of action and state, bytes


def flipped(x):
    return 1 - np.asarray(x, np.float64).reshape(len(x), -1)


def end_effector(s):
    a = np.asarray(s["action"], np.float64)
    turn = Rotation.from_rotvec(a[:, 3:6] / 10).as_euler("xyz")
    return np.hstack([a[:, :3] / 10, turn, (a[:, 6:] + 1) / 2])


def stateless(s):
    a = s["action"]
    grip = flipped(np.clip(a["gripper_closedness_action"], 0, 1))
    return np.hstack([a["world_vector"], a["rotation_delta"], grip])


# By name, the row of the registry and by hand: action, which of it there is, state, fields of the
# cameras, of the text, and quality.
NO_ROTATION = [1, 1, 1, 0, 0, 1, 1]
KINDS = {
    "bgr": (
        "stanford_hydra_dataset_converted_externally_to_rlds",
        lambda s: np.hstack([s["action"][:, :6], flipped(s["action"][:, 6:])]),
        [1] * 7,
        lambda o: np.hstack([o["state"][:, :3], o["state"][:, 7:10], o["state"][:, -3:-2]]),
        {"primary": "image", "wrist": "wrist_image"},
        lambda s: s["language_instruction"],
        lambda s: s["is_dense"].astype(np.float32),
    ),
    "eef": (
        "maniskill_dataset_converted_externally_to_rlds",
        *(end_effector, [1] * 7, lambda o: np.hstack([o["tcp_pose"], o["state"][:, 7:8]])),
        {"primary": "image", "wrist": "wrist_image"},
        *(lambda s: s["language_instruction"], None),
    ),
    "joints": (
        "berkeley_mvp_converted_externally_to_rlds",
        lambda s: np.hstack([s["action"][:, :7], flipped(s["action"][:, 7:])]),
        *([1] * 8, lambda o: np.hstack([o["pose"], o["gripper"][:, None]])),
        *({"wrist": "hand_image"}, lambda s: s["language_instruction"], None),
    ),
    "stateless": (
        *("roboturk", stateless, [1] * 7, lambda o: np.zeros((len(o["front_rgb"]), 0))),
        {"primary": "front_rgb"},
        *(lambda s: s["observation"]["natural_language_instruction"], None),
    ),
    "yaw": (
        "robo_net",
        lambda s: np.hstack([s["action"][:, :3], 0 * s["action"][:, :2], s["action"][:, 3:]]),
        *(NO_ROTATION, lambda o: o["state"], {"primary": "image"}),
        *(lambda s: s["language_instruction"], None),
    ),
}
ROLES = {"eef": {"sigma_min": 0.4}, "stateless": {"sigma_min": 0.6, "sigma_max": 0.2}}
LENGTHS = {"bgr": (5, 4), "eef": (7, 3, 6), "joints": (4, 4, 5), "stateless": (6, 3), "yaw": (3, 8)}
FORM = {
    **{"cameras": CAMERAS, "instruction_bytes": TEXT, "action_width": D, "state_width": S},
    "quality": ("dense", "success"),
}


@pytest.fixture
def stream(write_row, make_common):
    """``stream(form, names, formats, **fields) -> (mixture, make)``: ``make(**options)`` begins a
    stream of it."""
    begun = []

    def prepare(form=(), names=tuple(KINDS), formats=("array_record", "tfrecord"), **fields):
        sources = {
            name: (
                write_row(
                    KINDS[name][0],
                    LENGTHS[name],
                    *(f"{name}_{formats[i % len(formats)]}",),
                    file_format=formats[i % len(formats)],
                    shards=2,
                    overwrite=True,
                ),
                *(KINDS[name][0], ROLES.get(name, {})),
            )
            for i, name in enumerate(names)
        }
        fields = {"history": T, "horizon": H, "shuffle_window": 8} | fields
        config = make_common(sources, FORM | dict(form), **fields)
        return again(pipeline.open_mixture(config, LAW))

    def again(mixture):
        def make(**options):
            options = {"seed": 0, "batch_size": 8} | options
            begun.append(pipeline.stream_batches(mixture, LAW, VP, **options))
            return begun[-1]

        return mixture, make

    prepare.again = again
    yield prepare
    for iterator in begun:
        iterator.close()


def as_stored(mixture):
    """Raw steps by source and episode: everything that the data set has, images encoded."""
    return {
        name: list(rlds.open_dataset(mixture.datasets[name].directory, decode_images=False))
        for name in mixture.names
    }


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def standard(values):
    """Mean 0 and deviation 1, what is constant to 0: (shift, scale)."""
    values = np.concatenate(values).astype(np.float64)
    scale = values.std(0)
    constant = np.ptp(values, 0) <= 1e-6 * np.abs(values).max(0)
    return values.mean(0), np.where(constant, np.inf, scale)


def decoded(blob, bgr):
    image = np.asarray(PIL.Image.open(io.BytesIO(blob)).convert("RGB"), int)
    return image[..., ::-1] if bgr else image


@pytest.mark.parametrize(
    "formats", [("array_record",), ("tfrecord",), ("tfrecord", "array_record")]
)
def test_batches_are_what_their_ids_say(stream, formats):
    mixture, make = stream(
        formats=formats, normalization="gaussian", normalize_per="source", prefetch=2
    )
    raw, batches = as_stored(mixture), make()
    maps = {}
    for name, (_, action, _, state, *_) in KINDS.items():
        steps = [e["steps"] for e in raw[name]]
        found = [action(s) for s in steps], [state(s["observation"]) for s in steps]
        maps[name] = [(values, *standard(values)) for values in found]
    seen = set()
    for batch in itertools.islice(batches, 24):
        for i, (k, episode, step) in enumerate(batch["id"].tolist()):
            name = mixture.names[k]
            _, _, parts, _, cameras, text, quality = KINDS[name]
            seen.add((name, episode, step))
            steps, length = raw[name][episode]["steps"], LENGTHS[name][episode]
            past = [max(step - T + 1 + j, 0) for j in range(T)]
            ahead = np.minimum(step + np.arange(H), length - 1)
            assert batch["mask"][i].tolist() == (step + np.arange(H) < length).tolist()
            (actions, shift, scale), (states, *state_map) = maps[name]
            width = len(parts)
            wanted = (actions[episode][ahead] - shift) / scale
            np.testing.assert_allclose(batch["action"][i, :, :width], wanted, atol=2e-5)
            assert not batch["action"][i, :, width:].any()
            assert batch["dims"][i].tolist() == [bool(p) for p in parts] + [False] * (D - width)
            observation = {n: v[i] for n, v in batch["observation"].items()}
            width = states[episode].shape[1]
            wanted = (states[episode][past] - state_map[0]) / state_map[1]
            np.testing.assert_allclose(observation["state"][:, :width], wanted, atol=2e-5)
            assert not observation["state"][:, width:].any()
            mask = [1] * width + [0] * (S - width)
            assert observation["state_mask"].tolist() == [mask] * T
            for camera in CAMERAS:
                there, images = (observation[f"image_{camera}{m}"] for m in ("_mask", ""))
                assert there.tolist() == [camera in cameras] * T
                if camera in cameras:
                    stored = steps["observation"][cameras[camera]][past]
                    wanted = np.stack([decoded(b, bgr=name == "bgr") for b in stored])
                    np.testing.assert_allclose(images.astype(int), wanted, atol=2)
                else:
                    assert not images.any()
            wanted = text(steps)[step][:TEXT].rstrip().ljust(TEXT, b"\0")  # after a whole word
            assert observation["instruction"].tobytes() == wanted
            wanted = quality(steps)[step] if quality else np.nan
            np.testing.assert_array_equal(batch["quality"]["dense"][i], wanted)
            assert np.isnan(batch["quality"]["success"][i])
        low, high = batch["sigma_min"], batch["sigma_max"]
        assert np.all((batch["sigma"] > low) | (batch["sigma"] < high))
    everything = {
        (n, e, t) for n, ls in LENGTHS.items() for e, c in enumerate(ls) for t in range(c)
    }
    assert seen == everything, "24 batches of 8 are more than two epochs of 58 steps"
    shapes = mixture.observation_shapes
    assert {n: (v.shape[1:], v.dtype) for n, v in batch["observation"].items()} == {
        n: (s.shape, s.dtype) for n, s in shapes.items()
    }


def test_another_control_rate(stream):
    """20 Hz to 5 (of the other, 10): four steps become one, what is left a shorter one."""
    mixture, make = stream({"hz": 5.0}, names=("bgr", "eef"), formats=("tfrecord",), horizon=1)
    raw = [e["steps"] for e in as_stored(mixture)["eef"]]
    found = {name: s.lengths.tolist() for name, s in mixture.statistics.items()}
    assert found == {"bgr": [3, 2], "eef": [2, 1, 2]}
    seen = set()
    for batch in itertools.islice(make(), 8):
        for i, (k, episode, step) in enumerate(batch["id"].tolist()):
            if not k:
                continue
            seen.add((episode, step))
            a = np.asarray(raw[episode]["action"], np.float64)
            first = 4 * step
            part = slice(first, first + 4)
            turn = Rotation.identity()
            for vector in a[part, 3:6] / 10:
                turn = Rotation.from_rotvec(vector) * turn  # in the axes of the base
            grip = (a[part, 6][-1:] + 1) / 2
            wanted = np.hstack([a[part, :3].sum(0) / 10, turn.as_euler("xyz"), grip])
            np.testing.assert_allclose(batch["action"][i, 0, :7], wanted, atol=1e-5)
            past = [max(4 * (step - T + 1 + j), 0) for j in range(T)]
            stored = raw[episode]["observation"]
            state = np.hstack([stored["tcp_pose"][past], stored["state"][past, 7:8]])
            np.testing.assert_allclose(batch["observation"]["state"][i, :, :8], state, atol=1e-6)
            for camera, field in KINDS["eef"][4].items():
                images = np.stack([decoded(b, bgr=False) for b in stored[field][past]])
                found = batch["observation"][f"image_{camera}"][i].astype(int)
                np.testing.assert_allclose(found, images, atol=2)
    assert len(seen) == 5


def test_the_number_of_workers_changes_nothing(stream):
    mixture, make = stream(prefetch=2)
    expected = list(itertools.islice(make(), 12))
    kept = copy.deepcopy(expected)
    for workers in (1, 2):
        mixture.config.open_x.workers = workers
        found, again = stream.again(pipeline.open_mixture(mixture.config, LAW))
        assert found.format.workers == workers
        for a, b in zip(expected, again(), strict=False):
            assert_same(a, b)
    assert_same(expected, kept)  # nor do later batches lie in the memory of earlier ones


@pytest.mark.parametrize("prefetch", [0, 2])
def test_resumes_exactly_with_images(stream, prefetch):
    mixture, make = stream(prefetch=prefetch)
    batches, drawn = make(), []
    states = [copy.deepcopy(batches.get_state())]
    for _ in range(16):
        drawn.append(next(batches))
        states.append(json.loads(json.dumps(batches.get_state())))
        assert states[-1]["step"] == len(drawn)
    for start in (0, 3, 15, 1, 7):  # to and fro in one iterator, with batches under way
        batches.set_state(states[start])
        assert batches.get_state() == states[start]
        assert_same(next(batches), drawn[start])
        fresh = make()
        fresh.set_state(states[start])
        for i in range(start, min(start + 4, 16)):
            assert_same(next(fresh), drawn[i])
            assert fresh.get_state() == states[i + 1]


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_any_number_of_hosts_gives_the_same_batches(stream, shards):
    mixture, make = stream()
    whole = list(itertools.islice(make(shards=shards), 10))
    for count in (c for c in (2, 4) if shards % c == 0):
        hosts = [make(shards=shards, process_index=h, process_count=count) for h in range(count)]
        for batch in whole[:5]:
            parts = [next(host) for host in hosts]
            assert_same(batch, jax.tree.map(lambda *p: np.concatenate(p), *parts))
        # The other half on one host again.
        alone = make(shards=shards)
        alone.set_state(pipeline.merge(host.get_state() for host in hosts))
        for batch in whole[5:]:
            assert_same(batch, next(alone))


def test_bounds_of_each_step(stream, tmp_path):
    """A bounds file makes units of some steps each; their images are still those of the ids."""
    mixture, _ = stream(names=("bgr", "eef"))
    config = mixture.config.copy_and_resolve_references()
    eef = mixture.datasets["eef"]
    episode = np.repeat(np.arange(3), LENGTHS["eef"])
    step = np.concatenate([np.arange(n) for n in LENGTHS["eef"]])
    low = np.float32([0.25, 0.5, 0.75])[(episode + step) % 3]
    high = np.where(low == 0.75, 0.25, 0).astype(np.float32)
    found = bounds.for_source("eef", eef.fingerprint, episode, step, low, high, method="test")
    config.sources.eef.bounds = str(bounds.write(tmp_path / "bounds.parquet", found))
    config.sources.eef.sigma_min = 0.0
    mixture, make = stream.again(pipeline.open_mixture(config, LAW))
    raw, seen = as_stored(mixture), set()
    for batch in itertools.islice(make(), 30):
        for i, (k, e, t) in enumerate(batch["id"].tolist()):
            wanted = (0.0, 1.0)
            if k:
                at = np.flatnonzero((episode == e) & (step == t))[0]
                wanted = low[at], high[at]
                seen.add((e, t))
                blob = raw["eef"][e]["steps"]["observation"]["image"][t]
                image = batch["observation"]["image_primary"][i, -1].astype(int)
                np.testing.assert_allclose(image, decoded(blob, bgr=False), atol=2)
            assert (batch["sigma_min"][i], batch["sigma_max"][i]) == wanted
            assert batch["sigma"][i] > wanted[0] or batch["sigma"][i] < wanted[1]
    assert len(seen) == len(step), "every unit goes by its own epochs"


@pytest.mark.parametrize("formats", [("array_record",), ("tfrecord",)])
def test_little_memory_makes_small_windows_and_whole_epochs(stream, formats):
    """Windows of one step hold one episode: the episodes of a source come one after the other."""
    mixture, make = stream(formats=formats, shuffle_window=1000)
    config = mixture.config.copy_and_resolve_references()
    config.shuffle_memory = 1e-7
    small, make_small = stream.again(pipeline.open_mixture(config, LAW))
    ids = {
        few: np.concatenate([b["id"] for b in itertools.islice(m(), 40)])
        for few, m in ((False, make), (True, make_small))
    }
    torn = False
    for k, name in enumerate(mixture.names):
        every = sorted((e, t) for e, n in enumerate(LENGTHS[name]) for t in range(n))
        for few, found in ids.items():
            mine = [tuple(i) for i in found[found[:, 0] == k][:, 1:].tolist()]
            epochs = [mine[i : i + len(every)] for i in range(0, len(mine), len(every))]
            whole = [e for e in epochs if len(e) == len(every)]
            assert whole and all(sorted(e) == every for e in whole)
            for epoch in whole:
                runs = [e for e, _ in itertools.groupby(epoch, key=lambda i: i[0])]
                assert not few or len(runs) == len(LENGTHS[name])
                torn |= not few and len(runs) > len(LENGTHS[name])
    assert torn, "with memory enough, episodes are mixed"
    hosts = [make_small(shards=2, process_index=h, process_count=2) for h in range(2)]
    for batch in itertools.islice(make_small(shards=2), 10):
        parts = [next(host) for host in hosts]
        assert_same(batch, jax.tree.map(lambda *p: np.concatenate(p), *parts))


@pytest.mark.parametrize("part", [0.5, 0.2])
def test_one_number_bounds_the_bytes_of_all_windows(write_row, make_common, part):
    """Two windows of each source, the one in use and the next, and of each one episode more."""
    rows = {"roboturk": ([3] * 60, {}), "viola": ([3] * 30, {"weight": 3.0, "sigma_min": 0.3})}
    given = {n: (write_row(n, lengths), n, options) for n, (lengths, options) in rows.items()}
    form = {"cameras": CAMERAS, "instruction_bytes": TEXT}
    config = make_common(given, form, history=1, horizon=1, shuffle_window=10**6)
    mixture = pipeline.open_mixture(config, LAW)
    measured = mixture.statistics.values()
    total = sum(s.num_steps * s.step_bytes for s in measured)
    config.shuffle_memory = part * total / 2**30
    windows = assembler.windows(mixture)
    largest = 0
    with futures.ThreadPoolExecutor(1) as executor:
        for k, found in enumerate(measured):
            opened = ChunkStream(mixture, k, window=windows[k], seed=0, executor=executor)
            sizes = [source.size_of(w.steps) for w, _ in opened.take(2 * found.num_steps)]
            assert len(sizes) > 2, "it turns over"
            largest += 2 * (max(sizes) - 3.5 * found.step_bytes)  # texts and images differ a bit
    assert largest <= part * total
    assert largest > 0.5 * part * total, "what may be used is used"
