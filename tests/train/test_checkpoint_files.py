"""Which checkpoint a path means, and that what was saved is what is loaded."""

import hashlib
import json
import pathlib
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax import optim
from ambient_jax.train import checkpoint, metrics, state, weights_and_biases
from ambient_jax.train import checkpoint_files as files
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
    assert files.damage(folder, ITEMS) == ""


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
            assert files.damage(folder, ITEMS), (path, at)
        path.write_bytes(whole)
    assert files.damage(folder, ITEMS) == ""


def test_only_what_is_read_must_be_whole(folder, tmp_path):
    """A robot's copy of a policy has no optimizer."""
    for path in _files(folder):
        if path.relative_to(folder).parts[0] not in ("state", "data"):
            copy = tmp_path / "1" / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    assert files.damage(tmp_path / "1", ("assets", "ema_params")) == ""
    assert files.damage(tmp_path / "1", ITEMS) == "state is missing"
    params = checkpoint.load_policy_assets(tmp_path / "1")["params"]
    np.testing.assert_array_equal(params["dense"]["kernel"], _made().params["dense"]["kernel"])


def test_what_a_file_system_or_an_editor_leaves_is_no_damage(folder):
    for name in (".DS_Store", "state/.nfs000012", "commit_success.txt"):
        (folder / name).write_text("left")
    assert files.damage(folder, ITEMS) == ""


def test_a_checkpoint_has_its_digests_when_it_appears(tmp_path, monkeypatch):
    """A process that dies while they are written leaves nothing to load, and later none to miss."""
    seen, write = [], files.write_digests

    def watched(path, step):
        assert not (tmp_path / "checkpoints" / str(step)).exists()
        seen.append(step)
        if step == 2:
            raise KeyboardInterrupt  # as a kill would
        write(path, step)

    monkeypatch.setattr(files, "write_digests", watched)
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
    assert files.damage(tmp_path / "checkpoints" / "2", ITEMS) == ""


def test_metadata_that_orbax_writes_late_are_waited_for(folder, tmp_path):
    """On a loaded machine its thread may come after the one that writes the digests."""
    name = "_CHECKPOINT_METADATA"
    text = (folder / name).read_text()
    early = json.dumps(json.loads(text) | {"item_handlers": None, "custom_metadata": {}})
    contents = iter(["", text[:30], early, text])
    end = threading.Event()

    def write():
        for content in contents:
            (tmp_path / name).write_text(content)
            end.wait(0.05)

    thread = threading.Thread(target=write)
    thread.start()
    files.await_metadata(tmp_path)
    assert (tmp_path / name).read_text() == text
    thread.join()


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


ORDERS = {"a to z": sorted, "z to a": lambda names: sorted(names, reverse=True)}


def _steps(directory, *names):
    for name in names:
        (directory / name / "assets").mkdir(parents=True)


@pytest.fixture(params=ORDERS)
def listed(request, monkeypatch):
    """Folders that list their files in an order of their own."""
    own, order = pathlib.Path.iterdir, ORDERS[request.param]
    monkeypatch.setattr(pathlib.Path, "iterdir", lambda self: iter(order(own(self))))


def test_the_newest_step_is_found_in_any_order(tmp_path, listed):
    _steps(tmp_path / "checkpoints", "9", "10", "1")
    assert files.steps_in(tmp_path / "checkpoints") == [1, 9, 10]
    assert files.find(tmp_path) == (tmp_path / "checkpoints", 10)


def test_only_numbers_are_steps(tmp_path):
    others = ("010", "\u00b2", "10.damaged", "10.orbax-checkpoint-tmp", "-1", "1e3", "ten")
    _steps(tmp_path, "0", "7", *others)
    (tmp_path / "8").mkdir()  # nothing in it
    (tmp_path / "9").write_text("a file")
    assert files.steps_in(tmp_path) == [0, 7]
    assert files.numbered(tmp_path) == [0, 7, 8]
    assert files.find(tmp_path / "0") == (tmp_path, 0)


def test_a_step_that_lost_a_part_is_no_unfinished_one(tmp_path):
    _steps(tmp_path, "1")
    (tmp_path / "2" / "ema_params").mkdir(parents=True)
    assert files.find(tmp_path) == (tmp_path, 2)
    with pytest.raises(ValueError, match="2 is damaged: assets is missing"):
        checkpoint.load_assets(tmp_path)


def test_workdirs_may_begin_with_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    saver = checkpoint.Checkpointer("~/run/checkpoints")
    saver.close()
    _steps(tmp_path / "home" / "run" / "checkpoints", "5")
    for path in ("~/run", "~/run/checkpoints", "~/run/checkpoints/5"):
        assert checkpoint.find(path) == (tmp_path / "home" / "run" / "checkpoints", 5)
    checkpoint.record_best("~/run", 5)
    assert checkpoint.best_step("~/run") == 5 and checkpoint.find("~/run/best")[1] == 5
    writer = metrics.Writer("~/run")
    writer.write({"step": 1}, {"step": 1})
    writer.close()
    assert metrics.read("~/run/metrics.jsonl") == [{"step": 1}]
    weights_and_biases.run_id("~/run")
    left = {p.name for p in (tmp_path / "home" / "run").iterdir()}
    assert {"best.json", "metrics.jsonl", "wandb_id"} <= left
    assert not list((tmp_path / "here").iterdir())
