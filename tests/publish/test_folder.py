"""A policy folder is a checkpoint's policy, from anywhere; a damaged one is one clear line."""

import json
import os
import pathlib
import shutil
import stat
import struct
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy

from ambient_jax._packages import MissingError
from ambient_jax.policy.policy import Policy
from ambient_jax.publish import folder
from ambient_jax.train import checkpoint, publication
from tests.publish import made

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return made.workdir(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def published(workdir):
    return publication.write(workdir)


@pytest.fixture(scope="module")
def chunk(workdir):
    """What the checkpoint's policy does."""
    return np.asarray(Policy.from_checkpoint(workdir)(made.observation(), jax.random.key(0)))


@pytest.fixture
def copy(published, tmp_path):
    return pathlib.Path(shutil.copytree(published, tmp_path / "copy"))


def test_it_holds_what_the_checkpoint_holds(workdir, published):
    assert published == workdir / "policy"
    assert sorted(p.name for p in published.iterdir()) == [
        "README.md",
        "policy.json",
        "policy.safetensors",
    ]
    saved, stored = checkpoint.load_policy_assets(workdir), folder.read(published)
    assert stored["config"].to_dict() == saved["config"].to_dict()
    assert (stored["statistics"], stored["step"]) == (saved["statistics"], saved["step"])
    assert jax.tree.structure(stored["params"]) == jax.tree.structure(saved["params"])
    jax.tree.map(np.testing.assert_array_equal, stored["params"], saved["params"])
    about, assets = folder.about(published), checkpoint.load_assets(workdir)
    missing = {n for n in assets if n != "statistics" and about.get(n) != assets[n]}
    assert not missing and about["chain"] == json.loads(assets["statistics"])


def test_it_acts_as_the_checkpoint_does_where_it_was_moved_and_is_read_only(chunk, copy):
    for path in (*copy.iterdir(), copy):
        path.chmod(stat.S_IRUSR | stat.S_IXUSR * path.is_dir())
    before = {p.name: p.stat().st_mtime_ns for p in copy.iterdir()}
    try:
        moved = Policy.from_checkpoint(copy)
        np.testing.assert_array_equal(moved(made.observation(), jax.random.key(0)), chunk)
        assert Policy.from_checkpoint(str(copy), steps=3, solver="ddpm").steps == 3
        assert {p.name: p.stat().st_mtime_ns for p in copy.iterdir()} == before
    finally:
        copy.chmod(stat.S_IRWXU)


def test_without_safetensors_it_says_how_to_install_it(published, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(MissingError, match="a policy folder needs the package 'safetensors.numpy'"):
        folder.read(published)


LOAD = """
import importlib.abc, sys
HIDDEN = {"orbax", "tensorflow", "tensorflow_datasets", "array_record", "grain", "pyarrow"}
HIDDEN |= {"simplejpeg", "tensorboardX", "huggingface_hub", "torch"}


class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}")


sys.meta_path.insert(0, Absent())
import jax, numpy as np
from ambient_jax import Policy

seen = {"state": np.random.default_rng(1).normal(size=(3, 2, 3)).astype(np.float32)}
np.save(sys.argv[2], Policy.from_checkpoint(sys.argv[1])(seen, jax.random.key(0)))
assert not HIDDEN & {name.split(".")[0] for name in sys.modules}
"""


def test_it_loads_without_orbax_and_without_readers_of_data(chunk, copy, tmp_path):
    env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", LOAD, str(copy), str(tmp_path / "chunk.npy")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "chunk.npy"), chunk)


def test_other_tools_read_the_tensors(workdir, published):
    """By the package, and by the format's description alone: a header of JSON, then the bytes."""
    params = folder.flat(checkpoint.load_policy_assets(workdir)["params"])
    tensors = safetensors.numpy.load_file(published / "policy.safetensors")
    assert sorted(tensors) == sorted(params) and all("/" in name for name in tensors)
    content = (published / "policy.safetensors").read_bytes()
    [size] = struct.unpack("<Q", content[:8])
    header, body = json.loads(content[8 : 8 + size]), content[8 + size :]
    assert header.pop("__metadata__") == {"format": "flax"}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        by_hand = np.frombuffer(body[start:end], "<f4").reshape(entry["shape"])
        assert entry["dtype"] == "F32"
        np.testing.assert_array_equal(by_hand, params[name])
        np.testing.assert_array_equal(tensors[name], params[name])


def test_the_same_policy_gives_the_same_bytes(workdir, published, tmp_path):
    again = publication.write(workdir, tmp_path / "again")
    for file in published.iterdir():
        assert (again / file.name).read_bytes() == file.read_bytes()


def _edit(change):
    def act(copy):
        content = json.loads((copy / "policy.json").read_text())
        change(content)
        (copy / "policy.json").write_text(json.dumps(content))

    return act


def _tensors(change, recorded=True):
    """Replaces the tensors; ``recorded`` also their size and SHA-256 in policy.json."""

    def act(copy):
        file = copy / "policy.safetensors"
        tensors = safetensors.numpy.load_file(file)
        change(tensors)
        file.write_bytes(safetensors.numpy.save(tensors))
        entry = {"bytes": file.stat().st_size, "sha256": folder._digest(file)}
        _edit(lambda c: c["files"].update({"policy.safetensors": entry}))(copy)

    return act


def _bytes(change):
    def act(copy):
        file = copy / "policy.safetensors"
        file.write_bytes(change(file.read_bytes()))

    return act


def _flip(content):
    return content[:-100] + bytes([content[-100] ^ 1]) + content[-99:]


def _poison(tensors):
    name = sorted(tensors)[0]
    tensors[name] = np.full_like(tensors[name], np.nan)


def _reshape(tensors):
    name = sorted(tensors)[0]
    tensors[name] = np.zeros((3, 3), np.float32)


DAMAGED = {
    "no policy.json": (lambda c: (c / "policy.json").unlink(), "has no policy.json: copy or"),
    "no tensors": (
        lambda c: (c / "policy.safetensors").unlink(),
        "has no policy.safetensors: copy or download",
    ),
    "cut short": (_bytes(lambda b: b[:-1000]), "bytes, expected [0-9]+; it is cut short: copy"),
    "empty": (_bytes(lambda b: b""), "has 0 bytes, expected .*cut short"),
    "too long": (_bytes(lambda b: b + b"more"), "it is another file: copy"),
    "a bit flipped": (_bytes(_flip), "SHA-256 .*, expected .*damaged or of another policy"),
    "Git LFS": (
        _bytes(lambda b: b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n"),
        "is a pointer of Git LFS, expected .* git lfs pull",
    ),
    "NaN": (_tensors(_poison), "policy.safetensors has .* with values that are not finite"),
    "wrong shape": (_tensors(_reshape), r"of shape \(3, 3\), the config in policy.json makes"),
    "a tensor is missing": (
        _tensors(lambda t: t.pop(sorted(t)[0])),
        "of shape nothing, the config in policy.json makes",
    ),
    "a tensor too many": (
        _tensors(lambda t: t.update(more=np.zeros(2, np.float32))),
        r"has more of shape \(2,\), the config in policy.json makes nothing",
    ),
    "other network": (
        _edit(lambda c: c["config"]["model"].update(features=[16])),
        "the config in policy.json makes",
    ),
    "policy.json is cut": (
        lambda c: (c / "policy.json").write_text((c / "policy.json").read_text()[:500]),
        "policy.json is damaged, expected JSON",
    ),
    "policy.json of others": (
        lambda c: (c / "policy.json").write_text('{"n_obs_steps": 2}'),
        "describes no policy of ambient_jax, expected format 1",
    ),
    "policy.json is a list": (
        lambda c: (c / "policy.json").write_text("[]"),
        "describes no policy of ambient_jax",
    ),
    "newer format": (
        _edit(lambda c: c.update(format=2, version="9.0")),
        "has format 2, expected 1: update ambient_jax to version 9.0",
    ),
    "chain is a mess": (_edit(lambda c: c["chain"].update(steps=7)), "policy.json makes no policy"),
    "config with dots": (
        _edit(lambda c: c["config"].update({"a.b": 1})),
        "policy.json makes no policy: .*a.b",
    ),
    "no digests": (_edit(lambda c: c["files"].clear()), "lacks size and SHA-256 of policy.saf"),
    "no chain": (_edit(lambda c: c.pop("chain")), "wrong or missing: chain"),
    "chain without action": (
        _edit(lambda c: c["chain"]["normalizer"]["shift"].pop("action")),
        "policy.json makes no policy: ",
    ),
    "config without horizon": (
        _edit(lambda c: c["config"]["data"].pop("horizon")),
        "policy.json makes no policy: its config has data.horizon = None, expected int",
    ),
    "no safetensors": (
        lambda c: [
            (c / "policy.safetensors").write_bytes(b"x" * 2000),
            _edit(
                lambda a: a["files"].update(
                    {
                        "policy.safetensors": {
                            "bytes": 2000,
                            "sha256": folder._digest(c / "policy.safetensors"),
                        }
                    }
                )
            )(c),
        ],
        "is no safetensors file",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_folder_is_one_clear_line(copy, name):
    damage, message = DAMAGED[name]
    damage(copy)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        Policy.from_checkpoint(copy)
    assert "\n" not in str(caught.value) and str(copy) in str(caught.value)


def test_tensors_of_another_policy_are_refused(copy, tmp_path):
    other = publication.write(made.workdir(tmp_path / "other", seed=1))
    shutil.copy(other / "policy.safetensors", copy)
    with pytest.raises(ValueError, match="damaged or of another policy"):
        Policy.from_checkpoint(copy)


def test_another_policy_is_replaced_only_if_told_and_nothing_else_ever(workdir, copy, tmp_path):
    other = made.workdir(tmp_path / "other", seed=1)
    text = (copy / "policy.json").read_text()
    with pytest.raises(FileExistsError, match=r"has another policy \(step 20\).*--overwrite"):
        publication.write(other, copy)
    assert (copy / "policy.json").read_text() == text
    publication.write(workdir, copy)  # the same
    (copy / "README.md").write_text("# Mine\n")
    with pytest.raises(FileExistsError, match="README.md was edited, and would be lost"):
        publication.write(workdir, copy)
    assert (copy / "README.md").read_text() == "# Mine\n"
    publication.write(other, copy, overwrite=True)
    params = checkpoint.load_policy_assets(other)["params"]
    jax.tree.map(np.testing.assert_array_equal, folder.read(copy)["params"], params)
    (copy / "video.mp4").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="has video.mp4, which is no part of a policy"):
            publication.write(other, copy, overwrite=overwrite)
        with pytest.raises(FileExistsError, match="has checkpoints, .*, which is no part"):
            publication.write(other, workdir, overwrite=overwrite)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError, match="file is no part of a policy folder"):
        publication.write(other, tmp_path / "file", overwrite=True)
    (tmp_path / "empty").mkdir()
    assert publication.write(other, tmp_path / "empty").is_dir()
    names = {"copy", "empty", "file", "other"}
    assert {p.name for p in tmp_path.iterdir()} == names  # no leftovers


def test_parameters_that_are_not_finite_are_not_written(tmp_path):
    content = {"step": 1, "config": {}, "statistics": made.NORMALIZER.to_json()}
    with pytest.raises(ValueError, match="the policy has a/b with values that are not finite"):
        folder.write(tmp_path / "policy", {"a": {"b": np.float32([1, np.inf])}}, content, "")
    assert not list(tmp_path.iterdir())


def test_embeddings_of_instructions_travel_with_it(tmp_path):
    file = tmp_path / "embedded.npz"
    table = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    np.savez(file, text=np.array(["open the drawer", "close it"]), embedding=table)
    config = made.config()
    config.model.encoder = {"width": 8, "language": {"width": 8, "depth": 1}}
    run = made.workdir(tmp_path / "run", config=config, embeddings=file)
    seen = made.observation(2) | {"instruction": ["open the drawer", "close it"]}
    inputs = Policy.from_checkpoint(run).check(seen, (2,))
    assert not np.array_equal(*inputs["instruction"])
    kept = file.read_bytes()
    np.savez(file, text=np.array(["open the drawer", "close it"]), embedding=table + 1)
    with pytest.raises(ValueError, match="embeddings .*/embedded.npz have changed since the train"):
        publication.write(run, tmp_path / "out")
    file.write_bytes(kept)
    final = publication.write(run, tmp_path / "out")
    assert str(tmp_path) not in (final / "policy.json").read_text()
    file.unlink()
    shutil.rmtree(run)
    moved = final.rename(tmp_path / "moved")
    moved_inputs = Policy.from_checkpoint(moved).check(seen, (2,))
    jax.tree.map(np.testing.assert_array_equal, moved_inputs, inputs)
    (moved / "instructions.npz").write_bytes(b"x")
    with pytest.raises(ValueError, match="instructions.npz has 1 bytes, expected .*cut short"):
        Policy.from_checkpoint(moved)
