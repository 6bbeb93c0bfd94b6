"""A workdir with one checkpoint of an untrained network, as a training would leave it."""

import json

import jax
import numpy as np

from ambient_jax.data.normalizer import Normalizer
from ambient_jax.train import checkpoint, trainer
from ambient_jax.train import config as config_lib
from ambient_jax.transforms.chain import Chain
from ambient_jax.transforms.steps import Text

STEP = 20
NORMALIZER = Normalizer(
    "bounds",
    {"action": np.float64([1.0, -2.0]), "observation/state": np.float64([0.1, 0.5, 1 / 3])},
    {"action": np.float32([2.0, 0.5]), "observation/state": np.float32([4.0, 1.0, 2.0])},
)
FACTS = {
    "versions": {"ambient_jax": "0.2.0", "jax": "0.10.2"},
    "sources": {
        "good": {"episodes": 12, "chunks": 150},
        "bad": {"episodes": 40, "chunks": 500},
        "graded": {
            "episodes": 7,
            "chunks": 80,
            "bounds": {
                "method": "classifier",
                "steps": 80,
                "clean": 0.25,
                "unusable": 0.125,
                "low": 0.0,
                "sigma_min": [0.2, 0.3, 0.41],
            },
        },
    },
}


def config(name="mine"):
    """The config of a small policy with a clean source and two corrupt ones."""
    config = config_lib.default()
    config.name = name
    config.data.root = "/nowhere/at all"
    config.data.sources.good = config_lib.source("good", "clean", split="train[:90%]")
    config.data.sources.bad = config_lib.source("bad", "corrupt", sigma_min=0.3, weight=0.5)
    config.data.sources.graded = config_lib.source("graded", "corrupt", bounds="bounds.parquet")
    config.data.horizon, config.policy.execute = 8, 4
    config.policy.steps = 2
    config.model.update({"features": (8,), "blocks": 1, "groups": 2, "embed_dim": 16})
    return config


def workdir(folder, seed=0, config=None, embeddings=""):
    """Writes the checkpoint and its metrics; returns the folder."""
    config = config or globals()["config"]()
    chain = Chain(NORMALIZER, (Text(0, str(embeddings)),) if embeddings else ())
    shapes = trainer.make_learner(config, chain.inputs(2), 2, 3, None).shapes
    rng = np.random.default_rng(seed)
    state = jax.tree.map(lambda a: (0.1 * rng.normal(size=a.shape)).astype(a.dtype), shapes)
    marks = {"good": "1234", "bad": "5678"}
    if embeddings:
        marks["data.open_x.embeddings"] = chain.steps[0].table.digest
    assets = checkpoint.make_assets(config, chain.to_json(), marks)
    saver = checkpoint.Checkpointer(folder / "checkpoints")
    saver.save(STEP, state, assets | FACTS)
    saver.close()
    rows = [
        {"step": 10, "loss": 9.0, "loss_source/good": 9.0, "share_source/good": 1.0},
        {"step": STEP, "loss": 0.5, "loss_source/good": 0.75, "share_source/good": 0.25}
        | {"loss_source/bad": 0.0625, "share_source/bad": 0.75},
        {"step": 30, "loss": 8.0, "loss_source/good": 8.0, "share_source/good": 1.0},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def observation(batch=3):
    """Observations of some rows."""
    return {"state": np.random.default_rng(1).normal(size=(batch, 2, 3)).astype(np.float32)}
