import json

import chex
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from ambient_jax.train import checkpoint, state
from ambient_jax.train import config as config_lib


def _made(width=3):
    params = {"dense": {"kernel": jnp.arange(2.0 * width).reshape(2, width)}}
    made = state.create(params, state.make_optimizer(config_lib.default().train), 2)
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
    assets = saver.assets(7)
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


def test_fine_tuning_takes_what_agrees_in_name_and_shape(saved):
    new = {"dense": {"kernel": jnp.zeros((2, 3))}, "head": {"kernel": jnp.ones((3, 5))}}
    found = checkpoint.fine_tune(new, saved)
    saved_kernel = _state().ema_params["dense"]["kernel"]
    np.testing.assert_array_equal(found["dense"]["kernel"], saved_kernel)
    np.testing.assert_array_equal(found["head"]["kernel"], new["head"]["kernel"])
    # Another width: the old kernel does not fit, and nothing else is there to take.
    with pytest.raises(ValueError, match=r"no parameter of .* such as dense/kernel \(2, 4\)"):
        checkpoint.fine_tune({"dense": {"kernel": jnp.zeros((2, 4))}}, saved)
