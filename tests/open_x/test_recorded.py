"""BridgeData V2 as others recorded it: read as stock TFDS reads it, and usable from a few lines."""

import os
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ambient_jax import mixing, schedules
from ambient_jax.data import device, pipeline, rlds, statistics
from ambient_jax.data import mixture as mixtures
from ambient_jax.data.features import flatten
from ambient_jax.open_x import registry, standardize
from ambient_jax.train import config as train_config

LAW, VP = mixing.CoTraining(), schedules.vp()
STOCK_READER = """
import pickle, sys
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

def flat(tree, prefix=""):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}/")
        else:
            yield prefix + name, value

seen = {}
builder = tfds.builder_from_directory(sys.argv[1])
for split in builder.info.splits:
    seen[split] = []
    cameras = {f"image_{i}": tfds.decode.SkipDecoding() for i in range(4)}
    skip = {"steps": {"observation": cameras}}  # two decoders of JPEG round differently
    for episode in tfds.as_numpy(builder.as_dataset(split=split, decoders=skip)):
        steps = [dict(flat(step)) for step in episode["steps"]]
        found = {f"steps/{n}": [s[n] for s in steps] for n in steps[0]}
        rest = {n: v for n, v in episode.items() if n != "steps"}
        seen[split].append(found | dict(flat(rest)))
assert tf.__version__
pickle.dump(seen, open(sys.argv[2], "wb"))
"""
# What a user writes; the flags of this sample deny cameras that are there, so they are left out.
FEW_LINES = {
    "hz": 5,
    "action": "xyz action[0:3]; rpy action[3:6]; grip action[6]",
    "state": "observation/state",
    "language": "language_instruction",
    "primary": "observation/image_0",
}


@pytest.fixture(scope="module")
def bridge(recorded_data):
    path = recorded_data / "rlds_bridge"
    if not path.is_dir():
        pytest.skip(f"no {path}")
    return path


def test_stock_tfds_reads_the_same(bridge, tmp_path):
    out = tmp_path / "seen.pickle"
    command = [sys.executable, "-c", STOCK_READER, str(bridge / "1.0.0"), str(out)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if "No module named 'tensorflow'" in done.stderr:
        pytest.skip("no tensorflow to read it with")
    assert done.returncode == 0, done.stderr[-3000:]
    seen = pickle.loads(out.read_bytes())
    assert {split: len(episodes) for split, episodes in seen.items()} == {"train": 25, "val": 25}
    for split, episodes in seen.items():
        dataset = rlds.open_dataset(bridge, split, decode_images=False)
        for ours, theirs in zip(dataset, episodes, strict=True):
            ours = flatten(ours)
            assert set(ours) == set(theirs)
            for name, value in theirs.items():
                value = np.stack(value) if name.startswith("steps/") else np.asarray(value)
                if value.dtype.kind in "fbiu":
                    assert ours[name].dtype == value.dtype
                    np.testing.assert_array_equal(ours[name], value, err_msg=name)
                else:
                    assert np.ravel(ours[name]).tolist() == value.ravel().tolist()


def few(bridge, tmp_path, monkeypatch, given=FEW_LINES):
    monkeypatch.setenv(statistics.CACHE_VARIABLE, str(tmp_path / "cache"))
    config = train_config.default()
    config.data.sources.bridge = train_config.source(str(bridge), "clean", open_x=given)
    config.data.horizon, config.data.open_x.state_width, config.data.open_x.workers = 4, 7, 0
    return config.data


def stored(bridge):
    return [episode["steps"] for episode in rlds.open_dataset(bridge, decode_images=False)]


def test_a_few_lines_are_a_source_in_device_memory(bridge, tmp_path, monkeypatch):
    mixture = mixtures.open_mixture(few(bridge, tmp_path, monkeypatch), LAW)
    found, raw = mixture.statistics["bridge"], stored(bridge)
    assert found.lengths.tolist() == [10] * 25  # no step of this sample is flagged is_last
    for field, name in (("action", "action"), ("observation/state", "state")):
        each = [s["action"] if field == name else s["observation"][name] for s in raw]
        values = np.concatenate(each)
        np.testing.assert_allclose(found.fields[field].mean, values.mean(0, float), atol=1e-6)
        np.testing.assert_allclose(found.fields[field].std, values.std(0, float), atol=1e-6)
        np.testing.assert_array_equal(found.fields[field].max, values.max(0))
    batch = jax.jit(mixture.sampler(LAW, VP))(
        device.load_device_data(mixture), jax.random.key(0), 0, jnp.arange(32)
    )
    for row, (_, number, step) in enumerate(np.asarray(batch["id"]).tolist()):
        own = raw[number]["action"][step]
        back = mixture.normalizer.unnormalize("action", np.asarray(batch["action"][row, 0]))
        np.testing.assert_allclose(back, own, atol=1e-5)


def test_a_few_lines_are_a_source_with_pictures_and_words(bridge, tmp_path, monkeypatch):
    config = few(bridge, tmp_path, monkeypatch)
    config.placement, config.prefetch = "stream", 0
    form = config.open_x
    form.cameras, form.image_size, form.instruction_bytes = ("primary",), (64, 64), 96
    mixture = mixtures.open_mixture(config, LAW)
    stream = pipeline.stream_batches(mixture, LAW, VP, seed=0, batch_size=8)
    batch = next(stream)
    stream.close()
    whole = rlds.open_dataset(bridge)
    for row, (_, number, step) in enumerate(batch["id"].tolist()):
        steps = whole[number]["steps"]
        image = batch["observation"]["image_primary"][row, -1].astype(int)
        away = np.abs(image - steps["observation"]["image_0"][step])
        assert away.mean() < 2 and batch["observation"]["image_primary_mask"][row].all()
        text = steps["language_instruction"][step]
        assert batch["observation"]["instruction"][row].tobytes().rstrip(b"\0") == text[:96]


def test_the_registry_row_opens_it_and_says_what_its_flags_deny(bridge, tmp_path, monkeypatch):
    config = few(bridge, tmp_path, monkeypatch, "bridge_orig")
    config.placement = "stream"
    config.open_x.cameras = ("primary", "secondary")
    mixture = mixtures.open_mixture(config, LAW)
    found = mixture.statistics["bridge"]
    assert found.lengths.tolist() == [8] * 25  # the first step, and the last one of a difference
    flags = found.problems["flag"]
    assert flags["episodes"] == 25
    told = [text for _, text in flags["examples"]]
    assert all("has_image_" in text and "has pictures" in text for text in told)
    assert {text.split()[0] for text in told} == {"primary", "secondary"}


def test_relabelled_rotations_are_differences_of_euler_angles(bridge):
    """What loaders elsewhere give policies, in NumPy; and what `diff` gives, in SciPy."""
    rows = [registry.get(name).spec for name in ("bridge_dataset", "bridge_orig")]
    turning = {
        "hz": 5,
        "action": "xyz observation/state[0:3] | diff; rpy observation/state[3:6] | diff",
    }
    apart, largest = 0.0, 0.0
    for split in ("train", "val"):
        for episode in rlds.open_dataset(bridge, split, decode_images=False):
            state = episode["steps"]["observation"]["state"].astype(float)
            moved = state[1:, :6] - state[:-1, :6]
            for spec, first in zip(rows, (0, 1), strict=True):
                got = standardize.standardise(spec, episode, cameras=())["steps"]["action"]
                np.testing.assert_allclose(got[:, :6], moved[first:], atol=1e-6)
            turn = Rotation.from_euler("xyz", state[:, 3:6])
            turn = (turn[1:] * turn[:-1].inv()).as_euler("xyz")
            got = standardize.standardise(turning, episode)["steps"]["action"]
            np.testing.assert_allclose(got[:, 3:6], turn, atol=1e-6)
            apart = max(apart, np.abs(turn - moved[:, 3:]).max())
            largest = max(largest, np.abs(moved[:, 3:]).max())
    assert 0.06 < apart < 0.08 and 0.2 < largest < 0.3  # as `spec` tells
