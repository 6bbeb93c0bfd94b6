"""The evaluation command on a policy trained for a few steps."""

import json

import numpy as np
import pytest

from ambient_jax.train import config as config_lib
from ambient_jax.train import trainer
from experiments import evaluate


def test_every_source_has_its_losses_and_errors(toy_data, tmp_path):
    config = config_lib.default()
    config.data.sources.good = config_lib.source(toy_data["good"], "clean")
    config.data.sources.bad = config_lib.source(toy_data["bad"], "corrupt", sigma_min=0.3)
    config.data.observation, config.data.normalize_per = ("state", "goal"), "source"
    config.data.horizon, config.policy.execute = 8, 4
    config.model.update({"features": (8, 16), "groups": 2})
    config.train.update(dict(steps=5, warmup=1, batch_size=16))
    trainer.train(config, tmp_path)
    table = evaluate.evaluate(tmp_path, split="train[:50%]", samples=64, sampled=16)
    assert "| good " in table and "| bad " in table
    folder = tmp_path / "evaluation" / "train[:50%]"
    results = json.loads((folder / "results.json").read_text())
    for found in results["sources"].values():
        assert len(found["loss"]) == len(results["levels"])
        assert np.all(np.array(found["loss"]) > 0) and len(found["action_error"]) == 2
        assert len(found["action_error_by_step_ahead"]) == 8
    assert (folder / "evaluation.png").exists()
    with pytest.raises(ValueError, match="nowhere"):
        evaluate.evaluate(tmp_path, split="nowhere")
