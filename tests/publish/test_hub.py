"""Pushing to a hub and pulling gives the same bytes; what a hub refuses is one clear line."""

import importlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from ambient_jax.policy.policy import Policy
from ambient_jax.publish import folder, hub
from ambient_jax.train import publication
from tests.publish import hub_server, made

huggingface_hub = pytest.importorskip("huggingface_hub")
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return publication.write(made.workdir(tmp_path_factory.mktemp("run")), license="mit")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A hub, whose package's settings are those that HF_ENDPOINT, HF_HOME, ... make in a process of
    its own (``test_the_command_pushes_...``), with the token of one who may write."""
    constants = importlib.import_module("huggingface_hub.constants")
    with hub_server.running() as running:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, running.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        copied = "huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE"  # by older versions
        monkeypatch.setattr(copied, template, raising=False)
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setenv("HF_TOKEN", hub_server.WRITER)
        yield running


def _bytes(path):
    files = (path / name for name in folder.FILES)
    return {file.name: file.read_bytes() for file in files if file.exists()}


def test_what_was_pushed_is_pulled_byte_by_byte_and_acts(published, server):
    url = hub.push(published, "ann/push-t")
    sha = server.repositories["ann/push-t"].branch
    assert url == f"{server.url}/ann/push-t/commit/{sha}"
    stored = server.repositories["ann/push-t"].commits[sha]
    assert {n: b for n, b in stored.items() if n != ".gitattributes"} == _bytes(published)
    assert ("POST", "/ann/push-t.git/info/lfs/objects/batch") in server.seen  # the tensors' way
    pulled = hub.pull("hf://ann/push-t")
    assert _bytes(pulled) == _bytes(published)
    seen, key = made.observation(), jax.random.key(0)
    chunk = Policy.from_checkpoint(published)(seen, key)
    np.testing.assert_array_equal(Policy.from_checkpoint("hf://ann/push-t")(seen, key), chunk)


def test_a_revision_is_the_policy_of_its_commit(published, server, tmp_path):
    hub.push(published, "ann/push-t")
    first = server.repositories["ann/push-t"].branch
    hub.push(published, "ann/push-t")  # again is no error
    other = publication.write(made.workdir(tmp_path / "other", seed=1))
    hub.push(other, "ann/push-t")
    assert _bytes(hub.pull("hf://ann/push-t")) == _bytes(other)
    assert _bytes(hub.pull("hf://ann/push-t@main")) == _bytes(other)
    assert _bytes(hub.pull(f"hf://ann/push-t@{first}")) == _bytes(published)
    with pytest.raises(FileNotFoundError, match="hf://ann/push-t@v9 is no revision of ann/push-t"):
        hub.pull("hf://ann/push-t@v9")


def test_the_cache_serves_without_the_hub(published, server):
    hub.push(published, "ann/push-t")
    hub.pull("hf://ann/push-t")
    count = sum("/resolve/" in path for _, path in server.seen)
    hub.pull("hf://ann/push-t")
    assert sum("/resolve/" in path for _, path in server.seen) == count  # downloaded once
    server.failing["/"] = 503
    assert _bytes(hub.pull("hf://ann/push-t")) == _bytes(published)


def test_a_private_model_is_only_for_those_who_may_read_it(published, server, monkeypatch):
    hub.push(published, "ann/secret", private=True)
    assert server.repositories["ann/secret"].private
    monkeypatch.setenv("HF_TOKEN", hub_server.READER)
    assert _bytes(hub.pull("hf://ann/secret")) == _bytes(published)
    monkeypatch.delenv("HF_TOKEN")
    shutil.rmtree(huggingface_hub.constants.HF_HUB_CACHE)
    message = r"has no model ann/secret that you may read \(401\).*hf auth login"
    with pytest.raises(FileNotFoundError, match=message):
        hub.pull("hf://ann/secret")


@pytest.mark.parametrize(
    ("token", "repository", "message"),
    [
        ("", "ann/push-t", r"knows no valid token of yours \(401\): log in with 'hf auth login'"),
        ("hf_old", "ann/push-t", r"knows no valid token of yours \(401\)"),
        (hub_server.READER, "ann/push-t", r"does not let you write to ann/push-t \(403\)"),
        (hub_server.WRITER, "bob/push-t", r"does not let you write to bob/push-t \(403\)"),
    ],
)
def test_who_may_not_push_is_told_in_one_line(
    published, server, monkeypatch, token, repository, message
):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(PermissionError, match=message) as caught:
        hub.push(published, repository)
    assert "\n" not in str(caught.value) and server.url in str(caught.value)
    assert not server.repositories


@pytest.mark.parametrize(
    "part", ["create", "validate-yaml", "preupload", "batch", "lfs/", "commit"]
)
def test_a_hub_that_fails_within_a_push_leaves_no_half_of_it(published, server, monkeypatch, part):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the package's attempts
    server.failing[part] = 503
    with pytest.raises(ConnectionError, match="answered 503 for ann/push-t .*: try again later"):
        hub.push(published, "ann/push-t")
    commits = [c for r in server.repositories.values() for c in r.commits.values()]
    assert not any("policy.json" in files for files in commits)
    server.failing.clear()
    hub.push(published, "ann/push-t")
    assert _bytes(hub.pull("hf://ann/push-t")) == _bytes(published)


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (401, PermissionError, r"knows no valid token of yours \(401\): log in with 'hf auth"),
        (403, PermissionError, r"does not let you read ann/push-t \(403\)"),
        (404, FileNotFoundError, r"has no model ann/push-t that you may read \(404\)"),
        (503, ConnectionError, "answered 503 for ann/push-t .*try again later"),
    ],
)
def test_a_hub_that_fails_within_a_pull_is_one_line(
    published, server, monkeypatch, status, error, message
):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.push(published, "ann/push-t")
    server.failing["/ann/push-t"] = status
    with pytest.raises(error, match=message) as caught:
        Policy.from_checkpoint("hf://ann/push-t")
    assert "\n" not in str(caught.value)


def test_without_a_hub_there_is_one_line(published, server, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    nobody = "http://127.0.0.1:9"  # the discard port, where nothing listens
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", nobody)
    for act in (lambda: hub.pull("hf://ann/x"), lambda: hub.push(published, "ann/x")):
        with pytest.raises(OSError, match=f"ann/x cannot be pu.* at {nobody} .*: check the net"):
            act()


def test_a_wrong_address_or_model_is_one_line(published, server, tmp_path):
    for address in ("hf://", "hf://ann", "hf://ann/b/c", "hf://ann/b@", "hf://ann/b c"):
        with pytest.raises(ValueError, match="is no address, expected hf://user/name"):
            Policy.from_checkpoint(address)
    for name in ("ann", "ann/b/c", "hf://ann/b", "ann/", ""):
        with pytest.raises(ValueError, match="repository is .*, expected user/name"):
            hub.push(published, name)
    server.repositories["ann/bert"] = hub_server.Repository(False)
    server.commit("ann/bert", {"config.json": b"{}"})
    with pytest.raises(FileNotFoundError, match="hf://ann/bert has no policy.json, expected a mod"):
        Policy.from_checkpoint("hf://ann/bert")
    damaged = shutil.copytree(published, tmp_path / "damaged")
    (damaged / "policy.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match="policy.safetensors has 1 bytes"):
        hub.push(damaged, "ann/push-t")
    assert "ann/push-t" not in server.repositories


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"model": {"name": "subprocess:run", "args": ["touch", "ran"]}}},
        {"config": {"model": {"encoder": {"name": "os:system"}}}},
        {"config": {"schedule": {"name": "subprocess:run", "args": ["touch", "ran"]}}},
        {"chain": {"steps": [{"step": "subprocess:run"}]}},
    ],
)
def test_a_policy_of_the_hub_runs_no_code_but_the_librarys(
    published, server, tmp_path, monkeypatch, change
):
    def merge(old, new):
        both = isinstance(old, dict) and isinstance(new, dict)
        return old | {n: merge(old.get(n), v) for n, v in new.items()} if both else new

    monkeypatch.chdir(tmp_path)
    hub.push(published, "ann/push-t")
    content = json.loads((published / "policy.json").read_text())
    server.commit("ann/push-t", {"policy.json": json.dumps(merge(content, change)).encode()})
    with pytest.raises(
        ValueError, match="hf://ann/push-t names code outside of ambient_jax .*load"
    ):
        Policy.from_checkpoint("hf://ann/push-t")
    assert not (tmp_path / "ran").exists()


def test_the_command_pushes_and_another_process_pulls(published, tmp_path):
    """Only the environment tells them about the hub."""
    with hub_server.running() as running:
        env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        env |= {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "HF_ENDPOINT": running.url}
        env |= {"HF_HOME": str(tmp_path / "home"), "HF_TOKEN": hub_server.WRITER}
        env |= {"HF_HUB_DISABLE_XET": "1"}

        def run(*command):
            options = dict(cwd=tmp_path, env=env, capture_output=True, text=True)
            done = subprocess.run([sys.executable, *command], **options)
            assert done.returncode == 0, done.stderr
            return done.stdout

        publish = ("-m", "ambient_jax.publish", f"--checkpoint={published}")
        told = run(*publish, "--push=ann/push-t")
        assert told.startswith(f"{running.url}/ann/push-t/commit/")
        load = (
            "import sys, ambient_jax; print(ambient_jax.Policy.from_checkpoint(sys.argv[1]).dims)"
        )
        assert run("-c", load, "hf://ann/push-t") == "{'state': 3}\n"
    [snapshot] = (tmp_path / "home" / "hub" / "models--ann--push-t" / "snapshots").iterdir()
    assert _bytes(snapshot) == _bytes(published)
