"""The training step in JAX and in PyTorch: the same function, and the same step."""

import copy
import itertools

import jax
import numpy as np
import pytest

from ambient_jax.models.denoiser import build_denoiser

torch = pytest.importorskip("torch", reason="no torch: pip install '.[bench]'")

from experiments.benchmarks import networks_torch, train_step  # noqa: E402

SMALL = {
    "unet": {"name": "unet", "features": (16, 32)},
    "transformer": {"name": "transformer", "width": 16, "depth": 1, "heads": 2},
}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(train_step, "CONFIGS", SMALL)


def changes(before, after):
    return np.concatenate([np.ravel(b - a) for a, b in zip(before, after, strict=True)])


@pytest.mark.parametrize("name", ["transformer", pytest.param("unet", marks=pytest.mark.slow)])
def test_one_step_changes_the_parameters_alike(name):
    backbone = build_denoiser(SMALL[name]).backbone
    params = train_step.init_params(backbone)
    module = train_step.torch_network(name)
    networks_torch.load_flax(module, jax.device_get(params["params"]))
    moved = copy.deepcopy(module)
    batch = train_step.make_batch(8)
    step, optimizer = train_step.jax_step(backbone)
    copied = jax.tree.map(lambda x: x.copy(), params)
    (after, _, _), loss = step((copied, params, optimizer.init(params)), batch)
    their_loss = train_step.torch_step(moved, compiled=False)(
        train_step.Batch(*map(torch.from_numpy, batch))
    )
    assert float(loss) == pytest.approx(their_loss, rel=1e-5)
    ours = train_step.torch_network(name)
    networks_torch.load_flax(ours, jax.device_get(after["params"]))
    modules = (module, moved, ours)
    first, theirs, ours = ([p.detach().numpy() for p in m.parameters()] for m in modules)
    # Adam's first step is the sign of the gradient: where that is almost 0 the sides may differ.
    difference = np.abs(changes(first, theirs) - changes(first, ours))
    assert np.abs(changes(first, ours)).max() == pytest.approx(train_step.RATE, rel=0.05)
    assert np.mean(difference < 0.01 * train_step.RATE) > 0.99


def test_a_row_of_the_table():
    ticks = itertools.count()
    row = train_step.compare("transformer", 4, 1, compiled=False, clock=lambda: next(ticks))
    cells = dict(zip(train_step.COLUMNS, row, strict=True))
    assert cells["network"] == "transformer" and cells["batch"] == "4"
    # By this clock each call takes a second.
    assert (cells["JAX ms"], cells["torch ms"], cells["compiled ms"]) == ("1000.0", "1000.0", "-")
    assert (cells["torch / JAX"], cells["compiled / JAX"]) == ("1.00", "-")
    assert 0 <= float(cells["difference"]) < 1e-5


def test_sides_that_differ_are_no_row(monkeypatch):
    load = networks_torch.load_flax

    def spoiled(module, params):
        load(module, params)
        with torch.no_grad():
            module.out.bias += 1

    monkeypatch.setattr(networks_torch, "load_flax", spoiled)
    with pytest.raises(AssertionError, match="transformer: JAX and PyTorch differ by"):
        train_step.compare("transformer", 2, 1, compiled=False)


def test_a_parameter_without_counterpart_is_refused():
    module = train_step.torch_network("transformer")
    params = train_step.init_params(build_denoiser(SMALL["transformer"]).backbone)["params"]
    params = dict(jax.device_get(params))
    with pytest.raises(ValueError, match="without torch counterpart: .'more/kernel'"):
        networks_torch.load_flax(module, {**params, "more": {"kernel": np.zeros(2)}})
    del params["out"]
    with pytest.raises(ValueError, match="No Flax parameter 'out/kernel' for torch parameter"):
        networks_torch.load_flax(module, params)
