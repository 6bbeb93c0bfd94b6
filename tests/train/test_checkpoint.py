import json
import shutil
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from ambient_jax import optim
from ambient_jax.train import checkpoint, fine_tuning, state
from ambient_jax.train import config as config_lib


def _made(width=3):
    params = {"dense": {"kernel": jnp.arange(2.0 * width).reshape(2, width)}}
    made = state.create(params, optim.make_optimizer(config_lib.default().train), 2)
    return made.replace(step=jnp.int32(7))


def _state():
    return jax.tree.map(np.asarray, _made())


@pytest.fixture
def saved(tmp_path):
    config = ml_collections.ConfigDict({"name": "x", "widths": (1, 2)})
    saver = checkpoint.Checkpointer(tmp_path / "checkpoints")
    saver.save(7, _state(), checkpoint.make_assets(config, '{"a": 1}'), [{"step": 7}])
    saver.close()
    return tmp_path


def test_a_saved_state_comes_back_whole(saved):
    saver = checkpoint.Checkpointer(saved / "checkpoints")
    assert saver.latest_step() == 7
    restored, position = saver.restore(7, jax.eval_shape(_made))
    chex.assert_trees_all_equal(restored, _state())
    chex.assert_trees_all_equal_dtypes(restored, _state())
    assert position == [{"step": 7}]
    assets = checkpoint.load_assets(saved / "checkpoints" / "7")
    assert checkpoint.load_assets(saved) == assets
    assert assets["statistics"] == '{"a": 1}' and assets["config"]["name"] == "x"
    assert set(assets) == {
        "config",
        "statistics",
        "data",
        "version",
        "git_revision",
        "format",
    }
    saver.close()


def test_the_revision_is_that_of_the_repository_that_has_the_code(tmp_path, monkeypatch):
    assert len(checkpoint.git_revision().removesuffix("+changes")) in (0, 40)
    code = tmp_path / "venv" / "checkpoint.py"
    code.parent.mkdir()
    code.write_text("")
    (tmp_path / "mine.py").write_text("")
    monkeypatch.setattr(checkpoint, "__file__", str(code))
    assert checkpoint.git_revision() == ""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=me", "-c", "user.email=me@example.com"]
    for arguments in (["init", "-q"], ["add", "mine.py"], ["commit", "-qm", "mine"]):
        subprocess.run([*git, *arguments], check=True)
    assert checkpoint.git_revision() == ""
    subprocess.run([*git, "add", "venv"], check=True)
    assert checkpoint.git_revision().endswith("+changes")


def test_a_policy_finds_its_parameters_by_any_path(saved):
    for path in (saved, saved / "checkpoints", saved / "checkpoints" / "7"):
        assets = checkpoint.load_policy_assets(path)
        assert assets["step"] == 7 and assets["config"].name == "x"
        np.testing.assert_array_equal(
            assets["params"]["dense"]["kernel"], _state().ema_params["dense"]["kernel"]
        )


def test_another_shape_is_named(saved):
    saver = checkpoint.Checkpointer(saved / "checkpoints")
    with pytest.raises(ValueError, match=r"has opt_state/.*kernel of shape \(2, 3\), the config "):
        saver.restore(7, jax.eval_shape(lambda: _made(4)))
    saver.close()


def test_nothing_to_load(tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished checkpoint at .*none"):
        checkpoint.load_policy_assets(tmp_path / "none")
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(FileNotFoundError, match="expected a workdir with checkpoints/<step>"):
        checkpoint.load_policy_assets(tmp_path)


def test_unreadable_and_foreign_assets(saved):
    file = next((saved / "checkpoints" / "7" / "assets").glob("metadata"))
    text = file.read_text()
    file.write_text(text[:20])
    with pytest.raises(ValueError, match="unreadable assets"):
        checkpoint.load_policy_assets(saved)
    file.write_text(json.dumps(json.loads(text) | {"format": 99}))
    with pytest.raises(ValueError, match="has format 99, expected 1"):
        checkpoint.load_policy_assets(saved)


def test_old_checkpoints_go_and_the_newest_stay(tmp_path):
    saver = checkpoint.Checkpointer(tmp_path, keep=2)
    assets = checkpoint.make_assets(ml_collections.ConfigDict(), "")
    for step in (1, 2, 3):
        saver.save(step, _state(), assets)
    saver.close()
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.isdigit()) == ["2", "3"]


def test_every_so_many_steps_stay_for_good(tmp_path):
    saver = checkpoint.Checkpointer(tmp_path, keep=1, keep_every=4)
    assets = checkpoint.make_assets(ml_collections.ConfigDict(), "")
    for step in (2, 4, 6, 8, 10):
        saver.save(step, _state(), assets)
    saver.close()
    kept = sorted(int(p.name) for p in tmp_path.iterdir() if p.name.isdigit())
    assert kept == [4, 8, 10]


def test_the_best_stays_whoever_recorded_it_and_across_a_resume(tmp_path):
    folder = tmp_path / "checkpoints"
    assets = checkpoint.make_assets(ml_collections.ConfigDict(), "")

    def train(*steps):
        saver = checkpoint.Checkpointer(folder, keep=1, keep_every=10)
        for step in steps:
            saver.save(step, _state(), assets)
        saver.close()
        return checkpoint.steps_in(folder)

    with pytest.raises(FileNotFoundError, match=r"no .*best.json, .* ambient_jax.evaluate --best"):
        checkpoint.find(tmp_path / "best")
    assert train(1, 2) == [2]
    # As an evaluation in another process does, while this one trains and between its starts.
    code = (
        "import sys; from ambient_jax.train import checkpoint as c; c.record_best(sys.argv[1], 2)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert train(3, 4) == [2, 4]
    saver = checkpoint.Checkpointer(folder, keep=1, keep_every=10)
    saver.save(5, _state(), assets)
    saver._manager.wait_until_finished()
    checkpoint.record_best(tmp_path, 5, loss=0.5)
    saver.save(6, _state(), assets)
    saver.close()
    assert checkpoint.steps_in(folder) == [5, 6]
    assert checkpoint.find(tmp_path / "best") == (folder, 5)
    assert checkpoint.find(tmp_path) == (folder, 6)
    assert checkpoint.load_policy_assets(tmp_path / "best")["step"] == 5
    assert train(10, 11) == [5, 10, 11]
    shutil.rmtree(folder / "5")
    with pytest.raises(FileNotFoundError, match="names step 5, .* gone; there are 10, 11: find"):
        checkpoint.find(tmp_path / "best")
    # A record that cannot be read is an error to whom asks for it, and none to the training.
    (tmp_path / "best.json").write_text("{}")
    with pytest.raises(ValueError, match="best.json does not name a step"):
        checkpoint.find(tmp_path / "best")
    assert train(12) == [10, 12]


def test_what_is_not_finite_is_not_saved(tmp_path):
    saver = checkpoint.Checkpointer(tmp_path)
    assets = checkpoint.make_assets(ml_collections.ConfigDict(), "")
    saver.save(1, _state(), assets)
    for name in ("params", "ema_params", "opt_state"):
        bad = jax.tree.map(lambda x: x + np.inf if x.dtype == np.float32 else x, _state())
        with pytest.raises(FloatingPointError, match=f"{name}/.*kernel is not finite at step 2"):
            saver.save(2, _state().replace(**{name: getattr(bad, name)}), assets)
    saver.close()
    assert checkpoint.steps_in(tmp_path) == [1]


def test_fine_tuning_takes_what_agrees_in_name_and_shape(saved):
    new = {"dense": {"kernel": jnp.zeros((2, 3))}, "head": {"kernel": jnp.ones((3, 5))}}
    found = fine_tuning.adopt(new, saved)
    saved_kernel = _state().ema_params["dense"]["kernel"]
    np.testing.assert_array_equal(found["dense"]["kernel"], saved_kernel)
    np.testing.assert_array_equal(found["head"]["kernel"], new["head"]["kernel"])
    # Another width: the old kernel does not fit, and nothing else is there to take.
    with pytest.raises(ValueError, match=r"no parameter of .* such as dense/kernel \(2, 4\)"):
        fine_tuning.adopt({"dense": {"kernel": jnp.zeros((2, 4))}}, saved)
