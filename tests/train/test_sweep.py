"""Policies trained together are the policies trained alone; and none is lost."""

import importlib.util
import json
import pathlib
import shutil
import signal

import jax
import numpy as np
import pytest

from ambient_jax.policy.policy import Policy
from ambient_jax.train import checkpoint, sweep, trainer

_SPEC = importlib.util.spec_from_file_location(
    "worker_module", pathlib.Path(__file__).parent / "worker.py"
)
worker_module = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(worker_module)

# Every way in which policies of one program may differ.
POLICIES = {
    "ambient": {},
    "seed": {"seed": 1},
    "level": {"data.sources.bad.sigma_min": 0.7},
    "filtering": {"law": {"name": "filtering"}},
    "weight": {"law": {"name": "cotraining"}, "data.sources.good.weight": 0.0},
    "alpha": {"law": {"name": "reweighted", "alpha": 0.3}},
}


def _flat(path):
    return np.concatenate(
        [np.ravel(x) for x in jax.tree.leaves(checkpoint.load_policy_assets(path)["params"])]
    )


def _metrics(path):
    return (pathlib.Path(path) / "metrics.jsonl").read_text()


@pytest.fixture(scope="module")
def together(toy_data, tmp_path_factory):
    """All of ``POLICIES`` after 100 steps as one program: (job, workdir)."""
    workdir = tmp_path_factory.mktemp("together")
    changes = {"train.steps": 100, "train.log_every": 20, "train.checkpoint_every": 50}
    job = {"workdir": str(workdir), "data": toy_data, "changes": changes, "policies": POLICIES}
    assert sweep.train(worker_module.configs_for(job), workdir) == (100, "")
    return job, workdir


@pytest.mark.parametrize(
    "name",
    [n if n == "level" else pytest.param(n, marks=pytest.mark.slow) for n in POLICIES],
)
def test_a_policy_of_a_sweep_is_the_one_trained_alone(together, tmp_path, name):
    job, workdir = together
    config = worker_module.configs_for(job)[name]
    trainer.train(config, tmp_path)
    alone, among = _flat(tmp_path), _flat(workdir / name)
    assert np.linalg.norm(among - alone) <= 1e-4 * np.linalg.norm(alone)
    # The test can fail: the policies are not all the same one.
    others = [_flat(workdir / n) for n in POLICIES if n != name]
    assert min(np.linalg.norm(other - alone) for other in others) > 1e-2 * np.linalg.norm(alone)
    rows, expected = (
        [json.loads(line) for line in _metrics(p).splitlines()] for p in (workdir / name, tmp_path)
    )
    assert [row.keys() for row in rows] == [row.keys() for row in expected]
    for row, other in zip(rows, expected, strict=True):
        for field, value in other.items():
            assert row[field] == pytest.approx(value, rel=1e-3, abs=1e-6), field


def test_a_policy_of_a_sweep_loads_like_any_other(together):
    policy = Policy.from_checkpoint(together[1] / "alpha")
    observation = {name: np.zeros((3, 2, 2), np.float32) for name in ("state", "goal")}
    assert policy(observation, jax.random.key(0)).shape == (3, 8, 2)
    saved = json.loads((together[1] / "alpha" / "config.json").read_text())
    assert saved["law"] == {"name": "reweighted", "alpha": 0.3}


@pytest.mark.slow
def test_the_number_of_devices_does_not_matter(together, tmp_path, worker):
    """6 policies on 4 devices: 3 of them take 2 each."""
    job, workdir = together
    worker(job | {"workdir": str(tmp_path)}, 4)()
    for name in POLICIES:
        want, got = _flat(workdir / name), _flat(tmp_path / name)
        assert np.linalg.norm(got - want) <= 1e-4 * np.linalg.norm(want), name


@pytest.mark.slow
def test_killed_at_three_moments_no_policy_is_lost(toy_data, tmp_path, worker):
    """Also after the first policy of a step was saved and the others were not."""
    some = {name: POLICIES[name] for name in ("ambient", "seed", "filtering")}
    whole = {"workdir": str(tmp_path / "whole"), "data": toy_data, "policies": some}
    worker(whole)()
    broken = whole | {"workdir": str(tmp_path / "broken")}
    for kill in (["save", 10], ["write", 21], ["save", 30]):
        worker(broken | {"kill": kill})(-signal.SIGKILL)
    worker(broken)()
    for name in some:
        assert _metrics(tmp_path / "broken" / name) == _metrics(tmp_path / "whole" / name)
        assert (_flat(tmp_path / "broken" / name) == _flat(tmp_path / "whole" / name)).all()


def test_a_finished_sweep_returns_at_once_and_another_config_is_refused(together, tmp_path):
    job, workdir = together
    configs = worker_module.configs_for(job)
    assert sweep.train(configs, workdir) == (100, "")
    shutil.copytree(workdir, tmp_path / "copy")
    configs["seed"].seed = 5
    with pytest.raises(ValueError, match="seed holds a run with seed = 1, this one has 5"):
        sweep.train(configs, tmp_path / "copy")


def test_configs_of_two_programs_are_refused(toy_data, tmp_path):
    def configs(**changes):
        policies = {"one": {}, "two": changes}
        return worker_module.configs_for({"data": toy_data, "policies": policies})

    for field, value in (
        ("train.learning_rate", 0.5),
        ("objective.loss", "ambient"),
        ("model.features", (16,)),
        ("data.sources.bad.split", "train[:5]"),
    ):
        with pytest.raises(ValueError, match=f"'one' and 'two' differ in {field}"):
            sweep.train(configs(**{field: value}), tmp_path)
    with pytest.raises(ValueError, match="differ in law .*Ambient.* and .*Soft"):
        sweep.train(configs(law={"name": "soft"}), tmp_path)
    with pytest.raises(ValueError, match="no configs"):
        sweep.train({}, tmp_path)
    streamed = configs()
    streamed["one"].data.placement = "stream"
    with pytest.raises(ValueError, match="placement is 'stream', expected 'device'"):
        sweep.train(streamed, tmp_path)


@pytest.mark.slow
def test_a_damaged_checkpoint_takes_all_policies_back_to_a_step_that_all_have(together, tmp_path):
    job, workdir = together
    shutil.copytree(workdir, tmp_path / "copy")
    (tmp_path / "copy" / "level" / "checkpoints" / "100" / "assets" / "metadata").unlink()
    assert sweep.train(worker_module.configs_for(job), tmp_path / "copy") == (100, "")
    for name in POLICIES:
        assert _metrics(tmp_path / "copy" / name) == _metrics(workdir / name)
        assert (_flat(tmp_path / "copy" / name) == _flat(workdir / name)).all()
    # Without any checkpoint of one policy, the others would lose all of theirs.
    shutil.rmtree(tmp_path / "copy" / "level" / "checkpoints")
    with pytest.raises(ValueError, match="at step 100 and no checkpoint of level, .* begin anew"):
        sweep.train(worker_module.configs_for(job), tmp_path / "copy")
    assert checkpoint.steps_in(tmp_path / "copy" / "seed" / "checkpoints") == [50, 100]
