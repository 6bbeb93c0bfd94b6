"""Training on a data set that no registry knows, from its features and five lines of config."""

import io

import jax
import ml_collections
import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from ambient_jax.data import pipeline, statistics, write
from ambient_jax.train import config as train_config
from ambient_jax.train import trainer


def _episode(number, length):
    rng = np.random.default_rng(number)
    frames = []
    for _ in range(length):
        out = io.BytesIO()
        PIL.Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8)).save(out, "PNG")
        frames.append(out.getvalue())
    steps = {
        "observation": {"front": frames, "arm": rng.normal(size=(length, 9)).astype(np.float32)},
        "action": rng.uniform(0, 1, (length, 7)).astype(np.float32),
        "said": np.array([b"tidy up"] * length, object),
        "is_first": np.arange(length) == 0,
        "is_last": np.arange(length) == length - 1,
        "is_terminal": np.zeros(length, bool),
        "reward": np.zeros(length, np.float32),
        "discount": np.ones(length, np.float32),
    }
    return {"steps": steps}


def test_a_few_lines_are_enough(tmp_path, monkeypatch):
    monkeypatch.setenv(statistics.CACHE_VARIABLE, str(tmp_path / "cache"))
    camera = tfds.features.Image(shape=(12, 16, 3), encoding_format="png")
    episodes = [_episode(i, n) for i, n in enumerate((6, 5, 7))]
    stored = [e["steps"] for e in episodes]
    path = write.write_dataset(
        tmp_path,
        name="nobody_knows_it",
        version="1.0.0",
        features=write.rlds_features(
            {"front": camera, "arm": np.zeros(9, np.float32)},
            np.zeros(7, np.float32),
            {"said": str},
        ),
        episodes=episodes,
    )
    config = train_config.default()
    config.data.sources.mine = train_config.source(
        str(path),
        "clean",
        open_x={
            "hz": 10,
            "action": "xyz action[0:3]; rpy action[3:6]; grip action[6]",
            "state": "observation/arm[0:7] + observation/arm[-1]",
            "language": "said",
            "primary": "observation/front",
            "last_step": "keep",
        },
    )
    config.data.placement = "stream"
    config.data.horizon, config.policy.execute, config.policy.steps = 4, 2, 2
    form = config.data.open_x
    form.cameras, form.image_size, form.instruction_bytes = ("primary", "wrist"), (8, 8), 8
    form.workers = 0
    config.augmentation.crop, config.augmentation.brightness = (6, 6), 0.2
    encoder = {"name": "multimodal", "width": 8, "vision": {"widths": (4,), "group_size": 2}}
    encoder["language"] = {"width": 8}
    config.model = ml_collections.ConfigDict({"name": "unet", "features": (8,), "groups": 2})
    config.model.encoder = encoder
    config.train.batch_size = 4
    parts = trainer.assemble(config, None)
    batches = pipeline.stream_batches(
        parts.mixture, parts.law, parts.schedule, seed=0, batch_size=config.train.batch_size
    )
    batch = next(batches)
    batches.close()
    actions = np.concatenate([steps["action"] for steps in stored])
    low, high = actions.min(0), actions.max(0)
    for i, (_, episode, step) in enumerate(batch["id"].tolist()):
        steps, observation = stored[episode], {n: v[i] for n, v in batch["observation"].items()}
        wanted = 2 * (steps["action"][step] - low) / (high - low) - 1
        np.testing.assert_allclose(batch["action"][i, 0], wanted, atol=1e-5)
        assert observation["instruction"].tobytes() == b"tidy up\0"
        assert observation["image_primary"].std() > 0
        assert observation["image_primary_mask"].all() and not observation["image_wrist_mask"].any()
    # The whole train step takes it, images, text and all; nothing is compiled for that.
    after = jax.eval_shape(parts.train_step, parts.shapes, batch, jax.random.key(0))
    assert jax.tree.structure(after) == jax.tree.structure(parts.shapes)
    with pytest.raises(ValueError, match=r"crop is \(9, 6\) for images of 8x8 pixels"):
        config.augmentation.crop = (9, 6)
        trainer.assemble(config, None)
    # Strengths are looked at before the data are.
    config.augmentation.brightness, config.data.root = 1.5, "/nowhere"
    config.data.sources.mine.path = "gone"
    with pytest.raises(ValueError, match="brightness is 1.5, expected 0 to 1"):
        trainer.assemble(config, None)
