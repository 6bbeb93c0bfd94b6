"""Checkpoints and other files of a workdir in an emulated bucket."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from ambient_jax import optim
from ambient_jax.data import bucket
from ambient_jax.train import (
    checkpoint,
    metrics,
    mirror,
    remote_checkpoint,
    remote_files,
    state,
)
from ambient_jax.train import config as config_lib
from tests import emulated


def _saved(folder, *steps):
    made = jax.tree.map(np.asarray, _state())
    saver = remote_checkpoint.open_run(folder / "checkpoints", keep=2, keep_every=30)
    config = ml_collections.ConfigDict({"name": "x"})
    for step in steps:
        saver.save(step, made.replace(step=np.int32(step)), checkpoint.make_assets(config, "{}"))
    saver.close()


def _state():
    params = {"dense": {"kernel": jnp.arange(6.0).reshape(2, 3)}}
    return state.create(params, optim.make_optimizer(config_lib.default().train), 2)


@pytest.mark.slow
def test_checkpoints_are_kept_found_and_set_aside(place):
    folder, faults = place
    faults.rate = 0.05
    directory = folder / "checkpoints"
    _saved(folder, 10)
    checkpoint.record_best(folder, 10, loss=0.1)
    _saved(folder, 20, 30, 40, 50)
    assert checkpoint.steps_in(directory) == [10, 30, 40, 50]
    # What a killed process left, while it saved and while it deleted.
    for step in ("60", "20"):
        (directory / step / "unfinished").write_bytes(b"")
        (directory / step / "state" / "manifest.ocdbt").write_bytes(b"x")
    assert checkpoint.steps_in(directory) == [10, 30, 40, 50]
    for path, step in ((folder, 50), (directory / "40", 40), (folder / "best", 10)):
        found, number = checkpoint.find(f"{path}")
        assert number == step and checkpoint.load_policy_assets(f"{path}")["step"] == step
        assert (found / str(step)).is_dir()
    (directory / "50" / "assets" / "metadata").write_bytes(b"{}")
    remote_files.forget()
    told = (
        f"checkpoint {directory}/50 is damaged: assets/metadata is not what was saved; step 40 is "
        f"sound: give {directory}/40"
    )
    with pytest.raises(ValueError, match=told):
        checkpoint.load_assets(f"{folder}")
    remote_files.forget()
    saver = remote_checkpoint.open_run(directory, keep=2, keep_every=30)
    assert saver.sound_step() == 40
    saver.drop_after(40)
    assert saver.all_steps() == [10, 30, 40] and not (directory / "60").exists()
    assert not (directory / "20").exists()
    assert (directory / "50.damaged" / "digests.json").is_file()
    restored, position = saver.restore(40, jax.eval_shape(_state))
    assert restored.step == 40 and position is None
    saver.close()
    for name in (directory / "40").files():  # a copy that another version saved
        if name.startswith(("assets", "state", "ema_params", "_METADATA")):
            (folder / "old" / "4" / name).write_bytes((directory / "40" / name).read_bytes())
    assert checkpoint.load_policy_assets(folder / "old")["step"] == 4
    with pytest.raises(FileNotFoundError, match=f"no finished checkpoint at {folder / 'none'}"):
        checkpoint.find(f"{folder / 'none'}")


@pytest.mark.slow
def test_an_evaluation_writes_its_files_to_the_bucket(place):
    folder, _ = place
    _saved(folder, 10, 20)
    (folder / "config.json").write_text("{}")
    with mirror.local_copy(f"{folder}") as local:
        assert checkpoint.steps_in(local / "checkpoints") == [20]
        assert (local / "config.json").read_text() == "{}"
        (local / "report").mkdir()
        (local / "report" / "table.md").write_text("done")
    assert (folder / "report" / "table.md").read_text() == "done"
    for path in (folder, folder / "checkpoints"):
        with mirror.local_path(f"{path}", every_step=True) as local:
            assert checkpoint.steps_in(local) or checkpoint.find(local)[1] == 20
            directory, _ = checkpoint.find(local)
            assert checkpoint.steps_in(directory) == [10, 20]
            checkpoint.record_best(directory.parent, 10)
    for path, step in ((folder / "checkpoints" / "10", 10), (folder / "best", 10)):
        with mirror.local_path(path) as local:
            assert checkpoint.find(local)[1] == step


def test_a_store_that_fails_is_one_line_with_the_object(place, monkeypatch):
    folder, faults = place
    writer = metrics.Writer(f"{folder}")
    monkeypatch.setattr(bucket, "PATIENCE", 0.05)
    faults.rate, faults.kinds = 1.0, ("503",)
    writer.write({"step": 1}, {"step": 1})
    told = f"{folder / 'metrics' / '00000001.jsonl'}: it cannot be written, the store has not ans"
    with pytest.raises(bucket.StoreError, match=told):
        writer.flush()
    with pytest.raises(bucket.StoreError, match=f"{folder / 'timing'}"):
        writer.close()
    faults.rate = 0.0
    saver = remote_checkpoint.open_run(folder / "checkpoints", keep=2, keep_every=None)
    made, config = jax.tree.map(np.asarray, _state()), ml_collections.ConfigDict()
    faults.rate, faults.methods = 1.0, ("POST", "PUT")
    saver.save(1, made, checkpoint.make_assets(config, "{}"))
    with pytest.raises(bucket.StoreError, match=f"{folder / 'checkpoints'}/") as caught:
        saver.close()
    assert "\n" not in str(caught.value)
    faults.rate, faults.methods, faults.kinds = 0.0, (), emulated.KINDS
    assert not checkpoint.steps_in(folder / "checkpoints")
