"""What was saved is what is loaded: digests of all files, written before the checkpoint appears."""

import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax import optim
from ambient_jax.train import checkpoint, digests, state
from ambient_jax.train import config as config_lib

ITEMS = ("assets", "state", "ema_params", "data")
EXCEPT = ("digests.json", "commit_success.txt", "_CHECKPOINT_METADATA")


def _made():
    params = {"dense": {"kernel": jnp.arange(4096.0).reshape(64, 64)}}
    return state.create(params, optim.make_optimizer(config_lib.default().train), 2)


def _save(path, *steps):
    saver = checkpoint.Checkpointer(path / "checkpoints")
    assets = checkpoint.make_assets(config_lib.default(), '{"a": 1}')
    for step in steps:
        saver.save(step, jax.tree.map(np.asarray, _made()), assets, [{"step": step}])
    return saver


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    _save(path, 1).close()
    return path / "checkpoints" / "1"


def _files(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file())


def test_digests_are_sha256_of_every_file(folder):
    noted = json.loads((folder / "digests.json").read_text())
    found = {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in _files(folder)
        if p.name not in EXCEPT
    }
    assert {name.split("/")[0] for name in found} == set(ITEMS)
    assert noted["step"] == 1
    assert noted["sha256"].keys() - found.keys() == {"_CHECKPOINT_METADATA"}
    assert found.items() <= noted["sha256"].items()
    assert digests.damage(folder, ITEMS) == ""


def test_any_bit_of_any_file_that_is_read_is_noticed(folder):
    rng = np.random.default_rng(0)
    for path in _files(folder):
        if path.name in ("commit_success.txt", "_CHECKPOINT_METADATA"):  # has the time of day
            continue
        whole = path.read_bytes()
        for at in rng.integers(0, len(whole), 3):
            changed = bytearray(whole)
            changed[at] ^= 1 << int(rng.integers(8))
            path.write_bytes(changed)
            assert digests.damage(folder, ITEMS), (path, at)
        path.write_bytes(whole)
    assert digests.damage(folder, ITEMS) == ""


def test_only_what_is_read_must_be_whole(folder, tmp_path):
    """A robot's copy of a policy has no optimizer."""
    for path in _files(folder):
        if path.relative_to(folder).parts[0] not in ("state", "data"):
            copy = tmp_path / "1" / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    assert digests.damage(tmp_path / "1", ("assets", "ema_params")) == ""
    assert digests.damage(tmp_path / "1", ITEMS) == "state is missing"
    params = checkpoint.load_policy_assets(tmp_path / "1")["params"]
    np.testing.assert_array_equal(params["dense"]["kernel"], _made().params["dense"]["kernel"])


def test_what_a_file_system_or_an_editor_leaves_is_no_damage(folder):
    for name in (".DS_Store", "state/.nfs000012", "commit_success.txt"):
        (folder / name).write_text("left")
    assert digests.damage(folder, ITEMS) == ""


def test_a_checkpoint_has_its_digests_when_it_appears(tmp_path, monkeypatch):
    """A process that dies while they are written leaves nothing to load, and later none to miss."""
    seen, write = [], digests.write

    def watched(path, step):
        assert not (tmp_path / "checkpoints" / str(step)).exists()
        seen.append(step)
        if step == 2:
            raise KeyboardInterrupt  # as a kill would
        write(path, step)

    monkeypatch.setattr(digests, "write", watched)
    saver = _save(tmp_path, 1, 2)
    with pytest.raises(BaseException):  # noqa: B017 (Orbax passes on what its thread met)
        saver.close()
    assert seen == [1, 2]
    assert checkpoint.steps_in(tmp_path / "checkpoints") == [1]
    monkeypatch.undo()
    saver = checkpoint.Checkpointer(tmp_path / "checkpoints")
    assert saver.sound_step() == 1
    saver.close()
    _save(tmp_path, 2).close()
    assert checkpoint.steps_in(tmp_path / "checkpoints") == [1, 2]
    assert digests.damage(tmp_path / "checkpoints" / "2", ITEMS) == ""


def test_the_newest_sound_step_up_to_another(tmp_path):
    _save(tmp_path, 1, 2).close()
    saver = checkpoint.Checkpointer(tmp_path / "checkpoints")
    assert saver.sound_step() == 2 and saver.sound_step(1) == 1 and saver.sound_step(0) is None
    for name in ("2", "2.damaged"):
        (tmp_path / "checkpoints" / "2" / "state" / "more").write_text("")
        assert saver.sound_step() == 1 and saver.all_steps() == [1]
        assert (tmp_path / "checkpoints" / name.replace("2", "2.damaged", 1)[:9]).is_dir()
        _save(tmp_path, 2).close()
    saver.close()
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {
        *("1", "2", "2.damaged", "2.damaged-2")
    }
