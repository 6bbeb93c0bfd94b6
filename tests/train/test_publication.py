"""A training leaves a policy folder; killed at any moment, the same command leaves the same one."""

import importlib.util
import json
import pathlib
import shutil
import signal

import jax
import numpy as np
import pytest

from ambient_jax.data import bounds as bounds_file
from ambient_jax.policy.policy import Policy
from ambient_jax.publish import folder
from ambient_jax.train import checkpoint, fine_tuning, publication, sweep, trainer

_SPEC = importlib.util.spec_from_file_location(
    "worker_module", pathlib.Path(__file__).parent / "worker.py"
)
worker_module = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(worker_module)

FEW = {"train.steps": 6, "train.checkpoint_every": 3, "train.log_every": 3}


@pytest.fixture(scope="module")
def job(toy_data):
    return {"workdir": "", "data": toy_data, "changes": FEW}


@pytest.fixture(scope="module")
def trained(job, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained") / "run"
    trainer.train(worker_module.config_for(job), workdir)
    return workdir


def _content(path):
    return {file.name: file.read_bytes() for file in (path / "policy").iterdir()}


def _leftovers(path):
    return [p.name for p in path.iterdir() if p.name.startswith(".policy")]


def test_a_training_leaves_the_policy_of_its_last_step_with_its_card(trained):
    about = folder.about(trained / "policy")
    assert about["step"] == 6 and about["config"]["name"] == "worker"
    policy = Policy.from_checkpoint(trained / "policy")
    expected = checkpoint.load_policy_assets(trained)["params"]
    jax.tree.map(np.testing.assert_array_equal, policy.params, expected)
    assert about["sources"]["good"] == {
        "episodes": 12,
        "chunks": about["sources"]["good"]["chunks"],
    }
    assert about["sources"]["bad"]["episodes"] == 40 and about["versions"]["jax"] == jax.__version__
    card = (trained / "policy" / "README.md").read_text()
    row = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
    assert f"| good | {row['loss_source/good']:.4g} | {row['share_source/good']:.4g} |" in card
    assert "| bad | corrupt | train | 40 |" in card and not _leftovers(trained)


def test_the_same_command_writes_what_is_missing_or_damaged(job, trained, tmp_path):
    run = pathlib.Path(shutil.copytree(trained, tmp_path / "run"))
    before = _content(run)
    shutil.rmtree(run / "policy")
    (run / ".policy.partial-12345678").mkdir()  # as a killed process leaves it
    trainer.train(worker_module.config_for(job), run)
    assert _content(run) == before and not _leftovers(run)
    (run / "policy" / "policy.json").write_text("{")
    trainer.train(worker_module.config_for(job), run)
    assert _content(run) == before


def test_a_folder_that_cannot_be_written_does_not_end_a_training(job, trained, tmp_path, caplog):
    run = pathlib.Path(shutil.copytree(trained, tmp_path / "run"))
    shutil.rmtree(run / "policy")
    (run / "policy").mkdir()
    (run / "policy" / "mine.txt").write_text("mine")
    assert trainer.train(worker_module.config_for(job), run).step == 6
    assert "policy was not written" in caplog.text and "has mine.txt" in caplog.text
    assert [p.name for p in (run / "policy").iterdir()] == ["mine.txt"]


def test_a_training_starts_from_a_folder_as_from_its_checkpoint(job, trained):
    config = worker_module.config_for(job)
    parts = trainer.assemble(config, None)
    started = []
    for base in (trained, trained / "policy"):
        config.train.init_from = str(base)
        fine_tuning.check_base(config, [trained / "elsewhere"])
        state = fine_tuning.initial(config, parts.create, jax.random.key(1))
        maps = fine_tuning.with_maps(config, parts.mixture).normalizer.to_json()
        started.append((state.params, maps))
    (params, maps), (params_too, maps_too) = started
    jax.tree.map(np.testing.assert_array_equal, params, params_too)
    assert maps == maps_too
    with pytest.raises(FileNotFoundError, match="no finished checkpoint .*, or a policy folder"):
        config.train.init_from = str(trained / "elsewhere")
        fine_tuning.check_base(config, [trained / "elsewhere"])


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["tensors", "before", "after"])
def test_killed_while_it_writes_the_next_start_leaves_the_same(
    job, trained, tmp_path, worker, moment
):
    killed = job | {"workdir": str(tmp_path / "run")}
    worker(killed | {"kill": ["publish", moment]})(-signal.SIGKILL)
    assert worker(killed)(0)
    run = tmp_path / "run"
    assert (run / "metrics.jsonl").read_bytes() == (trained / "metrics.jsonl").read_bytes()
    mine, theirs = _content(run), _content(trained)
    assert mine["policy.safetensors"] == theirs["policy.safetensors"]
    cards = [
        [
            line
            for line in card.decode().splitlines()
            if not line.startswith("| revision of the code")
        ]
        for card in (mine["README.md"], theirs["README.md"])  # whose trees may differ in changes
    ]
    assert cards[0] == cards[1] and not _leftovers(run)


@pytest.mark.slow
def test_a_longer_training_replaces_the_policy_of_the_shorter_one(job, trained, tmp_path):
    run = pathlib.Path(shutil.copytree(trained, tmp_path / "run"))
    changes = FEW | {"train.steps": 9, "train.extend": True}
    trainer.train(worker_module.config_for(job | {"changes": changes}), run)
    assert folder.about(run / "policy")["step"] == 9
    expected = checkpoint.load_policy_assets(run)["params"]
    loaded = Policy.from_checkpoint(run / "policy").params
    jax.tree.map(np.testing.assert_array_equal, loaded, expected)


@pytest.mark.slow
def test_each_policy_of_a_sweep_has_its_folder(job, tmp_path):
    policies = {"first": {"seed": 0}, "second": {"seed": 1}}
    sweep.train(worker_module.configs_for(job | {"policies": policies}), tmp_path)
    digests = {
        folder.about(tmp_path / n / "policy")["files"][folder.TENSORS]["sha256"] for n in policies
    }
    assert len(digests) == 2
    for name in policies:
        assert Policy.from_checkpoint(tmp_path / name / "policy").dims == {"goal": 2, "state": 2}


def test_statistics_of_a_bounds_file_are_recorded(job, tmp_path):
    config = worker_module.config_for(job)
    parts = trainer.assemble(config, None)
    bad = parts.mixture.datasets["bad"]
    lengths = parts.mixture.statistics["bad"].lengths
    episode = np.repeat(bad.episode_ids, lengths)
    step = np.concatenate([np.arange(n) for n in lengths])
    low = np.resize(np.float32([0, 0.2, 0.2, 0.4, 1]), len(step))
    high = np.where(low == 0, 1, np.where(low == 0.4, 0.1, 0)).astype(np.float32)
    table = bounds_file.for_source("bad", bad.fingerprint, episode, step, low, high, method="made")
    bounds_file.write(tmp_path / "bounds.parquet", table)
    config.data.sources.bad.update({"bounds": str(tmp_path / "bounds.parquet"), "sigma_min": 0.0})
    facts = publication.recorded(trainer.assemble(config, None).mixture)["sources"]["bad"]["bounds"]
    rows = len(step)
    assert (facts["method"], facts["steps"]) == ("made", rows)
    for name, value in {"clean": 0, "unusable": 1}.items():
        assert facts[name] == pytest.approx(np.mean(low == value))
    assert facts["low"] == pytest.approx(np.mean(low == np.float32(0.4)))
    assert facts["sigma_min"] == pytest.approx([0.2, 0.2, 0.4])
