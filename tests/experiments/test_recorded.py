"""Data that others recorded, end to end: BridgeData V2 as RLDS, humanoids as LeRobot with video."""

import json

import av
import jax
import numpy as np
import pytest

from ambient_jax import evaluate, mixing, schedules
from ambient_jax.annotate import command
from ambient_jax.data import bounds, pipeline, statistics
from ambient_jax.data import mixture as mixtures
from ambient_jax.policy.policy import Policy
from ambient_jax.train import config as config_lib
from ambient_jax.train import trainer
from ambient_jax.transforms.frames import resize
from experiments.annotate import config as annotate_config


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(statistics.CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        yield


def small(config):
    config.model.update({"features": (8, 16), "groups": 4, "blocks": 1})
    config.train.update(dict(steps=4, warmup=1, batch_size=8, log_every=2, checkpoint_every=2))
    config.policy.update(dict(steps=2, execute=2))
    return config


@pytest.fixture(scope="module")
def common(recorded_data, tmp_path_factory):
    """A policy of images, instruction and state, and its workdir."""
    config = config_lib.default()
    path = str(recorded_data / "rlds_bridge")
    config.data.sources.bridge = config_lib.source(path, "clean", open_x="bridge_orig")
    config.data.placement, config.data.horizon = "stream", 4
    config.data.open_x.cameras, config.data.open_x.image_size = ("primary", "secondary"), (32, 32)
    config.data.open_x.instruction_bytes = 64
    small(config)
    config.model.encoder = {"width": 16, "vision": {"widths": (8,), "group_size": 4}}
    config.model.encoder.language = {"width": 8, "depth": 1}
    workdir = tmp_path_factory.mktemp("bridge")
    assert trainer.train(config, workdir).step == 4
    return workdir


@pytest.mark.slow
def test_images_instructions_and_states_are_trained_and_evaluated(common):
    rows = [json.loads(line) for line in (common / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4]
    assert all(np.isfinite(row["loss"]) for row in rows)
    assert "| bridge " in evaluate.evaluate(common, split="val", samples=32, sampled=8).table


@pytest.mark.slow
def test_the_policy_takes_what_a_robot_sees(common):
    policy = Policy.from_checkpoint(common)
    frame = np.random.default_rng(0).integers(0, 255, (1, 2, 32, 32, 3), dtype=np.uint8)
    observation = {
        "state": np.zeros((1, 2, 7), np.float32),
        "image_primary": frame,
        "instruction": ["put the spoon on the towel"],
    }
    chunk = np.asarray(policy(observation, jax.random.key(0)))
    assert chunk.shape == (1, 4, 7) and np.isfinite(chunk).all()
    other = policy(observation | {"image_primary": 255 - frame}, jax.random.key(0))
    assert np.abs(np.asarray(other) - chunk).max() > 0


@pytest.mark.slow
def test_plain_vectors_of_the_same_data(recorded_data, tmp_path):
    config = small(config_lib.default())
    path = str(recorded_data / "rlds_bridge")
    config.data.sources.good = config_lib.source(path, "clean")
    config.data.sources.bad = config_lib.source(path, "corrupt", split="val", sigma_min=0.2)
    config.data.horizon = 4
    assert trainer.train(config, tmp_path).step == 4
    policy = Policy.from_checkpoint(tmp_path)
    assert policy({"state": np.zeros((3, 2, 7), np.float32)}, jax.random.key(0)).shape == (3, 4, 7)


@pytest.mark.slow
def test_bounds_by_classifier(recorded_data, tmp_path):
    config = annotate_config.get_config("rlds")
    path = str(recorded_data / "rlds_bridge")
    for role, split in (("clean", "train"), ("corrupt", "val")):
        config.data.sources[role].update(dict(path=path, split=split))
    config.data.horizon = 4
    config.task.update(dict(folds=2, steps=20, levels=4, granularity=("dataset",), compared=100))
    config.task.update(dict(crops=(), analyses=(), evaluate_every=10, features=(8, 16)))
    command.by_classifier(config, str(tmp_path))
    made = bounds.read(tmp_path / "bounds" / "dataset.parquet")
    assert set(made.names) == {"corrupt"} and len(set(made.sigma_min.tolist())) == 1


@pytest.mark.slow
def test_a_humanoid_from_its_videos(recorded_data, tmp_path):
    """LeRobot v2.0: two of its fields, a camera that is absent, pictures decoded from mp4."""
    config = small(config_lib.default())
    path = str(recorded_data / "lerobot_v21_gr00t" / "robot_sim.PickNPlace")
    spec = {
        "action": "joint action[0:14]",
        "state": "observation/state[0:14]",
        "language": "language_instruction",
        "primary": "observation/images.ego_view",
        "secondary": "observation/images.egoview",
    }
    config.data.sources.arms = config_lib.source(path, "clean", split="train[:3]", open_x=spec)
    config.data.placement, config.data.horizon, config.data.shuffle_window = "stream", 4, 500
    form = dict(cameras=("primary", "secondary"), image_size=(48, 48), instruction_bytes=128)
    config.data.open_x.update(form | dict(action_width=14, state_width=14))
    config.model.encoder = {"width": 16, "vision": {"widths": (8,), "group_size": 4}}
    config.model.encoder.language = {"width": 8, "depth": 1}
    config.data.open_x.on_problem.camera = "raise"
    with pytest.raises(ValueError, match="secondary is absent.*on_problem.camera to 'skip' or"):
        trainer.train(config, tmp_path / "refused")
    config.data.open_x.on_problem.camera = "keep"
    assert trainer.train(config, tmp_path / "run").step == 4
    table = evaluate.evaluate(tmp_path / "run", split="train[3:]", samples=32, sampled=8).table
    assert "| arms " in table
    # What the stream shows of a step is the picture that PyAV decodes there.
    mixture = mixtures.open_mixture(config.data, mixing.CoTraining())
    stream = pipeline.stream_batches(
        mixture, mixing.CoTraining(), schedules.vp(), seed=0, batch_size=8
    )
    batch = next(stream)
    stream.close()
    for row in range(8):
        _, episode, step = batch["id"][row].tolist()
        video = f"{path}/videos/chunk-000/observation.images.ego_view/episode_{episode:06d}.mp4"
        with av.open(video) as container:
            frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
        shown = batch["observation"]["image_primary"][row, -1]
        np.testing.assert_array_equal(shown, resize(frames[step], (48, 48)))
        assert batch["observation"]["image_primary_mask"][row].all()
        assert not batch["observation"]["image_secondary_mask"][row].any()


@pytest.mark.slow
def test_a_humanoids_joints(recorded_data, tmp_path):
    """LeRobot v2.1 without its videos: plain vectors of 26 joints, on the device."""
    config = small(config_lib.default())
    path = str(recorded_data / "lerobot_v21_g1")
    config.data.sources.good = config_lib.source(path, "clean", split="train[:20]")
    config.data.sources.bad = config_lib.source(
        path, "corrupt", split="train[20:40]", sigma_min=0.2
    )
    config.data.horizon = 4
    assert trainer.train(config, tmp_path).step == 4
    policy = Policy.from_checkpoint(tmp_path)
    assert policy({"state": np.zeros((3, 2, 26), np.float32)}, jax.random.key(0)).shape[2] == 26
