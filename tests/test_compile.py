"""One step compiled without data: its figures are those of a real state and a real batch."""

import importlib
import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from ambient_jax import mixing, schedules
from ambient_jax.data import mixture as mixtures
from ambient_jax.data import pipeline
from ambient_jax.open_x import fixtures
from ambient_jax.train import config as train_config
from ambient_jax.train import trainer

ROOT = pathlib.Path(__file__).parents[1]
# `compile` is a builtin: the module is not imported under that name.
compile_lib = importlib.import_module("ambient_jax.compile")

SMALL = """
import ml_collections
from ambient_jax.train import config as train_config


def get_config():
    config = train_config.default()
    config.name = "small"
    config.data.root = "/there/is/nothing/here"
    for name in ("bridge_orig", "viola"):
        config.data.sources[name] = train_config.source(name, "clean", open_x=name)
    config.data.placement = "stream"
    config.data.normalization = "gaussian"
    config.data.normalize_per = "source"
    config.data.history, config.data.horizon = 1, 2
    form = config.data.open_x
    form.cameras, form.image_size = ("wrist",), (24, 32)
    form.instruction_bytes, form.state_width, form.quality = 16, 9, ("success",)
    config.model = ml_collections.ConfigDict({"name": "unet", "features": (8,), "blocks": 1})
    config.model.encoder = {
        "name": "multimodal",
        "width": 8,
        "vision": {"widths": (4,), "blocks": 1, "group_size": 4, "keypoints": 4},
        "language": {"width": 8, "depth": 1},
    }
    config.train.batch_size, config.policy.execute = 6, 2
    return config
"""


@pytest.fixture(scope="module")
def config():
    scope = {}
    exec(SMALL, scope)
    return scope["get_config"]()


def test_the_batch_is_the_loaders(config, tmp_path, monkeypatch):
    monkeypatch.setenv("AMBIENT_JAX_CACHE", str(tmp_path / "cache"))
    config = config.copy_and_resolve_references()
    config.data.root = str(tmp_path)
    for name, source in config.data.sources.items():
        fixtures.write_fixture(tmp_path, name, lengths=(4, 3))
        source.path = fixtures.folder(name)
    law = mixing.Ambient()
    mixture = mixtures.open_mixture(config.data, law)
    batches = pipeline.stream_batches(mixture, law, schedules.vp(), seed=0, batch_size=6)
    try:
        real = next(batches)
    finally:
        batches.close()
    shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype)  # noqa: E731
    assert jax.tree.map(shape, real) == compile_lib.batch_shapes(config, 6)
    assert compile_lib.size_in_bytes(real) == sum(x.nbytes for x in jax.tree.leaves(real))


@pytest.mark.slow
def test_the_command_counts_what_a_state_and_a_batch_have(config, tmp_path):
    file = tmp_path / "config.py"
    file.write_text(SMALL)
    command = [sys.executable, "-m", "ambient_jax.compile", f"--config={file}", "--devices=2"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": "", "JAX_PLATFORMS": ""}
    options = dict(env=env, capture_output=True, text=True, timeout=600, check=False)
    done = subprocess.run([*command, "--workdir=out"], cwd=tmp_path, **options)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((tmp_path / "out" / "results.json").read_text())["steps"].values()

    observation = mixtures.check(config.data)
    learner = trainer.make_learner(config, observation, 7, 2, None)
    state = jax.jit(learner.create)(jax.random.key(0))
    params = state.params
    count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))  # noqa: E731
    encoder = params["encoder"]
    joined = {n: p for n, p in encoder.items() if n.startswith(("hidden", "out"))}
    assert found["parameters"] == {
        "vision": count(encoder["image_wrist"]),
        "language": count(encoder["instruction_bytes"]),
        "condition": count(joined),
        "denoiser": count(params["backbone"]),
    }
    assert sum(found["parameters"].values()) == count(params)
    assert found["state_bytes"] == sum(x.nbytes for x in jax.tree.leaves(state))
    # Three float32 more of each parameter, counters of 4 bytes (the step, the optimizer's two, the
    # sums' three numbers), and sums of 10 noise levels and 2 sources with their counts.
    assert found["state_bytes"] == 4 * (4 * count(params) + 3 + 3 + 2 * 10 + 2 * 2)

    # Of each row: one image and its mask, 9 numbers of the state and their mask, 16 bytes of text,
    # 2 actions of 7 and their masks, 3 noise levels, a label, the source and 3 of the id.
    row = 24 * 32 * 3 + 1 + 2 * 9 * 4 + 16 + 2 * 7 * 4 + 2 + 7 + 3 * 4 + 4 + 4 + 3 * 4
    assert found["rows"] == 3 and found["batch_bytes"] == 3 * row
    memory = found["memory"]
    # The step gives the state's memory to the new one, and takes no label.
    assert memory["alias"] == found["state_bytes"]
    assert 0 <= found["state_bytes"] + found["batch_bytes"] - memory["argument"] < 100
    assert memory["temp"] > 0 and memory["peak"] >= memory["argument"] + memory["temp"]
    # One sum over the devices: gradients, and sums of 10 noise levels and 2 sources with counts.
    inputs = 4 * (count(params) + 2 * 10 + 2 * 2)
    (reduce,) = found["collectives"].values()
    assert list(found["collectives"]) == ["all-reduce"] and reduce["count"] == 1
    assert reduce["operand_bytes"] == reduce["sent_bytes"] == inputs  # 2 (n - 1) / n is 1
    # Every parameter of the instruction's and the denoiser's layers multiplies at least once a row,
    # once forward and twice backward.
    assert found["flops"] > 6 * found["rows"] * count(joined)
    assert "peak" in done.stdout and "| small" in (tmp_path / "out" / "table.md").read_text()


def test_a_step_that_does_not_fit_has_its_row(tmp_path):
    about = {"config": "xl", "target": "v5e:2x4", "batch_size": 256, "devices": 8}
    memory = dict.fromkeys(("argument", "temp"), 2**30) | {"peak": 4 * 2**30}
    moved = {"all-reduce": {"operand_bytes": 3e6, "sent_bytes": 5.25e6}}
    sizes = {"parameters": {"denoiser": 10**6}, "state_bytes": 0, "rows": 32, "batch_bytes": 0}
    fits = about | sizes | {"flops": 0, "memory": memory, "collectives": moved}
    compile_lib.record(tmp_path, fits | {"kind": "TPU v5 lite"})
    compile_lib.record(tmp_path, about | {"kind": "TPU v5 lite", "reason": "needs 40 GiB"})
    compile_lib.record(tmp_path, fits | {"kind": "TPU v5 lite", "target": "v5e:4x2"})
    steps = json.loads((tmp_path / "results.json").read_text())["steps"].values()
    assert [step.get("reason") for step in steps] == ["needs 40 GiB", None]
    lines = (tmp_path / "table.md").read_text().splitlines()[2:4]
    small, large = (
        dict(zip(compile_lib.COLUMNS, map(str.strip, line.split("|")[1:-1]), strict=True))
        for line in lines
    )
    assert (small["rows"], small["fits"], small["peak GiB"]) == ("32", "no", "")
    assert (large["fits"], large["collectives MB"], large["sent MB"]) == ("yes, 25%", "3.0", "5.2")


def test_what_cannot_be_compiled_is_said_in_one_line(config):
    plain = train_config.default()
    plain.data.sources.mine = train_config.source("mine", "clean")
    with pytest.raises(ValueError, match="no open_x, so only their data have their widths"):
        compile_lib.batch_shapes(plain, 4)
    with pytest.raises(ValueError, match="batch_size is 6, expected a multiple of 4 devices"):
        compile_lib.compile_step(config, jax.local_devices()[:1] * 4)
    with pytest.raises(ValueError, match="no TPU topology 'v0:9x9' .*libtpu installed"):
        compile_lib.topology("v0:9x9")
