"""The benchmark of one accelerator: its step, its table, and PyTorch's side of the same step."""

import copy
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax import compile as compile_
from ambient_jax.policy import solvers
from experiments.benchmarks import accelerator
from experiments.benchmarks.recipe import DIMS, HORIZON, RATE

TINY = dataclasses.replace(accelerator.SIZES["tiny"], steps=1, blocks=1, product=16, compiled=())


def made(name, dtype="float32", rows=4):
    """(module, its parameters away from 0, batch)."""
    module, batch = accelerator.backbone(name, TINY, dtype), accelerator.batch_of(rows)
    params = accelerator.first_params(module, batch)
    noised = lambda p: p + 0.02 * np.random.default_rng(p.size).normal(size=p.shape)  # noqa: E731
    return module, jax.tree.map(lambda p: noised(p).astype(np.float32), params), batch


@pytest.mark.parametrize(
    ("kind", "dtype", "peak"),
    [
        *(("NVIDIA H100 PCIe", "bfloat16", 756), ("NVIDIA H100 80GB HBM3", "float32", 494)),
        *(("NVIDIA L40S", "bfloat16", 362), ("NVIDIA L4", "bfloat16", 121), ("cpu", "float32", 0)),
        *(("NVIDIA L40", "bfloat16", 181), ("NVIDIA A100-SXM4-80GB", "float32", 156)),
        *(("NVIDIA H2000", "bfloat16", 0), ("TPU v4 lite", "bfloat16", 0)),
        *(("TPU v5", "bfloat16", 459), ("TPU v5p", "bfloat16", 459)),
        *(("TPU v5 lite", "bfloat16", 197), ("TPU v6e", "bfloat16", 918)),
    ],
)
def test_published_peaks(kind, dtype, peak):
    assert accelerator.published_peak(kind, dtype) == peak


def test_every_tpu_has_a_peak_and_a_memory():
    assert {name for name in accelerator.PEAKS if name.startswith("TPU")} == set(compile_.MEMORY)


def test_the_table_has_all_columns_and_what_was_left_out():
    steps = [{"network": "unet", "ms": 1.25}, {"network": "transformer", "mfu": 0.5}]
    results = {"device": "x", "jax": "1", "torch": None, "left_out": ["images"]}
    text = accelerator.markdown(results | {"tables": {"steps": steps, "one": {"ms": 2.0}}})
    assert "x, jax 1, torch absent" in text and "Left out for time: images" in text
    assert "| network | ms | mfu |" in text and "| transformer |  | 0.5 |" in text


def test_what_does_not_fit_into_the_time_is_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(accelerator.SIZES, "tiny", TINY)
    arguments = ["--size=tiny", "--no_torch", "--minutes=0", f"--out={tmp_path}"]
    accelerator.main(arguments)
    text = (tmp_path / "table.md").read_text()
    assert "Left out for time: steps, latency, images, policies together" in text
    assert "without PyTorch: not asked for" in capsys.readouterr().out


@pytest.mark.slow
def test_the_command_without_torch(tmp_path, monkeypatch):
    monkeypatch.setitem(accelerator.SIZES, "tiny", TINY)
    accelerator.main(["--size=tiny", "--no_torch", f"--out={tmp_path}"])
    results = json.loads((tmp_path / "results.json").read_text())
    assert not results["left_out"] and len(results["tables"]["steps"]) == 4
    assert all(row["ms"] > 0 for row in results["tables"]["steps"] + results["tables"]["latency"])


@pytest.fixture
def other():
    pytest.importorskip("torch", reason="no torch: pip install '.[bench]'")
    from experiments.benchmarks import accelerator_torch

    return accelerator_torch


@pytest.mark.parametrize("name", ["transformer", pytest.param("unet", marks=pytest.mark.slow)])
def test_torch_computes_the_same_function_step_and_chunk(other, name):
    torch = other.torch
    model, params, batch = made(name)
    module = other.network(name, TINY, params)
    there = {n: torch.from_numpy(v).to(other._DEVICE) for n, v in batch.items()}
    theirs = module(there["x0"], there["sigma"], there["condition"]).detach().cpu().numpy()
    apply = jax.jit(model.apply)
    ours = apply(params, batch["x0"], batch["sigma"], batch["condition"])
    np.testing.assert_allclose(theirs, ours, atol=2e-5 * np.abs(theirs).max())

    # Chunks from the same noise.
    levels = np.linspace(0.998, 0.0, 5).tolist()
    theirs = other.sample(module, there["eps"], there["condition"], levels).cpu().numpy()

    def denoise(x_t, sigma):
        return apply(params, x_t, jnp.full(len(x_t), sigma), batch["condition"])

    ours = solvers.solve(denoise, None, (HORIZON, DIMS), steps=4, noise=batch["eps"])
    np.testing.assert_allclose(theirs, ours, atol=1e-4 * np.abs(theirs).max())

    # A step of training.
    step, optimizer = accelerator.train_step(model.apply)
    after = jax.jit(step)(accelerator.first_state(params, optimizer), batch)[0]
    expected, first = other.network(name, TINY, after), copy.deepcopy(module)
    other.loop(module, there, 1, "float32")()
    moved = [
        np.concatenate(
            [
                np.ravel((p - q).detach().cpu().numpy())
                for p, q in zip(one.parameters(), first.parameters(), strict=True)
            ]
        )
        for one in (expected, module)
    ]
    assert np.abs(moved[0]).max() == pytest.approx(RATE, rel=0.05)
    # Adam's first step is the sign of the gradient: where that is almost 0 the sides may differ.
    assert np.mean(np.abs(moved[0] - moved[1]) < 0.01 * RATE) > 0.99


def test_torch_has_sides_and_chunks_of_all_that_is_timed(other):
    for name, dtype in (("transformer", "bfloat16"), ("unet", "float32")):
        _, params, batch = made(name, dtype)
        sides = other.sides(name, TINY, params, batch, dtype)
        assert list(sides) == ["torch"]
        assert sides["torch"]() is None
    other.chunk("transformer", TINY, made("transformer")[1], batch["condition"][:1], 2)()
    assert other.VERSION and ("transformer", "float32") in accelerator.SIZES["tiny"].compiled


@pytest.mark.slow
def test_the_command_beside_torch(other, tmp_path, monkeypatch):
    size = dataclasses.replace(TINY, compiled=(("transformer", "float32"),))
    monkeypatch.setitem(accelerator.SIZES, "tiny", size)
    accelerator.main(["--size=tiny", f"--out={tmp_path}"])
    tables = json.loads((tmp_path / "results.json").read_text())["tables"]
    ratios = [row["torch_over_jax"] for row in tables["steps"] + tables["latency"]]
    assert len(ratios) == 6 and min(ratios) > 0
    assert sum("torch_compiled_over_jax" in row for row in tables["steps"]) == 1
