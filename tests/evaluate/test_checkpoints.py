"""The evaluation command on a policy trained for a few steps."""

import json
import shutil

import jax
import numpy as np
import pytest

from ambient_jax import evaluate
from ambient_jax.data import rlds
from ambient_jax.data.rlds_source import RldsSource
from ambient_jax.evaluate import evaluation
from ambient_jax.policy.policy import Policy
from ambient_jax.train import checkpoint, checkpoint_files, trainer
from ambient_jax.train import config as config_lib


@pytest.fixture(scope="module")
def trained(toy_data, tmp_path_factory):
    """A workdir with the checkpoints of steps 2, 4 and 6."""
    workdir = tmp_path_factory.mktemp("trained")
    config = config_lib.default()
    config.data.sources.good = config_lib.source(toy_data["good"], "clean")
    config.data.sources.bad = config_lib.source(toy_data["bad"], "corrupt", sigma_min=0.3)
    config.data.observation, config.data.normalize_per = ("state", "goal"), "source"
    config.data.horizon, config.policy.execute = 8, 4
    config.model.update({"features": (8,), "groups": 2, "blocks": 1, "embed_dim": 16})
    config.train.update(dict(steps=6, warmup=1, batch_size=16, checkpoint_every=2, keep=3))
    trainer.train(config, workdir)
    return workdir


def test_every_source_has_its_losses_and_errors(trained):
    table = evaluate.evaluate(trained, split="train[:50%]", samples=64, sampled=16).table
    assert "| good " in table and "| bad " in table and "(at most 16 chunks)" in table
    folder = trained / "evaluation" / "train[:50%]"
    results = json.loads((folder / "results.json").read_text())
    for found in results["sources"].values():
        assert len(found["loss"]) == len(results["levels"])
        assert np.all(np.array(found["loss"]) > 0) and len(found["action_error"]) == 2
        assert len(found["action_error_by_step_ahead"]) == 8
    assert (folder / "evaluation.png").exists()
    with pytest.raises(ValueError, match="nowhere"):
        evaluate.evaluate(trained, split="nowhere")


@pytest.mark.slow
def test_the_best_checkpoint_is_recorded_and_found(trained, toy_data, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(trained, workdir)
    # Not the newest, so that the two can be told apart.
    for step, other in ((6, 4), (4, 2)):
        shutil.rmtree(workdir / "checkpoints" / str(other))
        shutil.copytree(trained / "checkpoints" / str(step), workdir / "checkpoints" / str(other))
    shutil.rmtree(workdir / "checkpoints" / "6" / "ema_params")
    shutil.copytree(
        trained / "checkpoints" / "2" / "ema_params", workdir / "checkpoints" / "6" / "ema_params"
    )
    for step in (2, 4, 6):  # as if each had been saved with these
        checkpoint_files.write_digests(workdir / "checkpoints" / str(step), step)
    table = evaluate.best(workdir, split="train[:50%]", samples=64).table
    results = json.loads((workdir / "checkpoints_by_loss" / "results.json").read_text())
    expected = {}
    for step in (2, 4, 6):
        policy = Policy.from_checkpoint(workdir / "checkpoints" / str(step), source="good")
        dataset = rlds.open_dataset(toy_data["good"], "train[:50%]", last_step="drop")
        source = RldsSource(dataset, observation=("state", "goal"))
        chunks = evaluation.recorded(source, policy, samples=64)
        loss = evaluation.denoising_loss(policy, *chunks[:3], samples=64)
        np.testing.assert_allclose(results["losses"][str(step)]["good"], loss, rtol=1e-5)
        expected[step] = loss.mean()
    assert min(expected, key=expected.get) == results["best"] == 4
    assert "| 4 (best) |" in table and set(results["losses"]["4"]) == {"good"}
    record = json.loads((workdir / "best.json").read_text())
    assert record["step"] == 4 and record["loss"] == pytest.approx(expected[4], rel=1e-5)
    assert checkpoint.find(workdir / "best") == (workdir / "checkpoints", 4)
    assert checkpoint.find(workdir) == (workdir / "checkpoints", 6)
    best, newest = (Policy.from_checkpoint(p, source="good") for p in (workdir / "best", workdir))
    same = jax.tree.map(lambda a, b: bool((a == b).all()), best.params, newest.params)
    assert not all(jax.tree.leaves(same))
    with pytest.raises(ValueError, match="is one checkpoint, expected a workdir"):
        evaluate.best(workdir / "best")
