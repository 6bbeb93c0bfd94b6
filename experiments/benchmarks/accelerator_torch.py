"""PyTorch's side of the benchmark of one accelerator: its steps and chunks of `networks_torch`."""

import copy
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import torch

from experiments.benchmarks import networks_torch
from experiments.benchmarks.recipe import CLIP, CONDITION, DECAY, DIMS, EMA, HORIZON, RATE

VERSION = torch.__version__
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
_DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def network(name: str, size: Any, params: Any) -> torch.nn.Module:
    """Returns the network with the weights of the Flax one, on the device."""
    if name == "unet":
        module: torch.nn.Module = networks_torch.UNet1D(DIMS, CONDITION, size.unet)
    else:
        module = networks_torch.TransformerDenoiser(DIMS, CONDITION, HORIZON, **size.transformer)
    networks_torch.load_flax(module, jax.device_get(params["params"]))
    return module.to(_DEVICE)


def _wait():
    if _DEVICE == "cuda":
        torch.cuda.synchronize()


def loop(
    module: torch.nn.Module,
    batch: dict[str, torch.Tensor],
    steps: int,
    dtype: str,
    compiled: bool = False,
) -> Callable[[], None]:
    """Returns a call that trains the module for some steps, and waits for them."""
    averages = list(copy.deepcopy(module).parameters())
    parameters = list(module.parameters())
    fused = {"fused": True} if _DEVICE == "cuda" else {"foreach": True}
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=DECAY, **fused)
    forward = torch.compile(module) if compiled else module
    low = dtype == "bfloat16"

    def step():
        sigma = batch["sigma"][:, None, None]
        x_t = (1 - sigma**2).sqrt() * batch["x0"] + sigma * batch["eps"]
        with torch.autocast(_DEVICE, torch.bfloat16, enabled=low):
            eps_hat = forward(x_t, batch["sigma"], batch["condition"])
        loss = torch.mean((eps_hat.float() - batch["eps"]) ** 2)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP, foreach=True)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(averages, parameters, 1 - EMA)

    def run():
        for _ in range(steps):
            step()
        _wait()

    return run


def sides(
    name: str, size: Any, params: Any, batch: dict[str, np.ndarray], dtype: str
) -> dict[str, Callable[[], None]]:
    """Returns loops of training steps, eager and, if the size says so, compiled, each with its own
    weights."""
    there = {n: torch.from_numpy(v).to(_DEVICE) for n, v in batch.items()}
    make = functools.partial(network, name, size, params)
    found = {"torch": loop(make(), there, size.steps, dtype)}
    if (name, dtype) in size.compiled:
        found["torch_compiled"] = loop(make(), there, size.steps, dtype, compiled=True)
    return found


def chunk(
    name: str, size: Any, params: Any, condition: np.ndarray, steps: int
) -> Callable[[], None]:
    """Returns a call that samples one chunk by DDIM on the levels of the vp schedule."""
    module = network(name, size, params).eval()
    there = torch.from_numpy(condition).to(_DEVICE)
    levels = np.linspace(0.998, 0.0, steps + 1).tolist()

    def run():
        sample(module, torch.randn(len(there), HORIZON, DIMS, device=_DEVICE), there, levels)
        _wait()

    return run


@torch.no_grad()
def sample(
    module: torch.nn.Module, x: torch.Tensor, condition: torch.Tensor, levels: Sequence[float]
) -> torch.Tensor:
    """Returns the chunks [B, H, D] that DDIM makes of noise ``x`` on levels that end with 0."""
    for sigma, following in itertools.pairwise(levels):
        eps = module(x, torch.full((len(x),), sigma, device=x.device), condition)
        x0 = (x - sigma * eps) / (1 - sigma**2) ** 0.5
        x = (1 - following**2) ** 0.5 * x0 + following * eps
    return x
