"""The denoisers of `ambient_jax.models` in PyTorch, for timing against them.

Written as one would write them there (channels first, `nn.Conv1d`, `nn.GroupNorm`, fused
attention), with the same operations and the same number of parameters; `load_flax` copies the
weights over, so that a benchmark can show that both sides compute the same function before it
times them.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


class NoiseEmbedding(nn.Module):
    def __init__(self, features: int):
        super().__init__()
        cycles = np.geomspace(0.25, 32.0, features // 2, dtype=np.float32)
        self.register_buffer("cycles", torch.from_numpy(cycles))
        self.hidden = nn.Linear(features, 4 * features)
        self.out = nn.Linear(4 * features, features)

    def forward(self, sigma):
        t = (2 / math.pi) * torch.arcsin(sigma.clamp(0.0, 1.0 - 2.0**-23))
        angle = 2 * math.pi * t[:, None] * self.cycles
        h = torch.cat([angle.sin(), angle.cos()], dim=-1)
        return self.out(F.mish(self.hidden(h)))


class ResidualBlock(nn.Module):
    def __init__(self, inputs: int, features: int, kernel_size: int, groups: int):
        super().__init__()
        pad = kernel_size // 2
        self.conv_0 = nn.Conv1d(inputs, features, kernel_size, padding=pad)
        self.norm_0 = nn.GroupNorm(groups, features)
        self.conv_1 = nn.Conv1d(features, features, kernel_size, padding=pad)
        self.norm_1 = nn.GroupNorm(groups, features)
        self.shortcut = nn.Conv1d(inputs, features, 1) if inputs != features else nn.Identity()

    def forward(self, x, scale, shift):
        h = F.mish(self.norm_0(self.conv_0(x)))
        h = h * (1 + scale[:, :, None]) + shift[:, :, None]
        h = F.mish(self.norm_1(self.conv_1(h)))
        return h + self.shortcut(x)


class UNet1D(nn.Module):
    """Counterpart of `ambient_jax.models.unet.UNet1D`."""

    def __init__(self, dims, condition, features, kernel_size=5, groups=8, embed_dim=128):
        super().__init__()
        self.noise_embedding = NoiseEmbedding(embed_dim)
        blocks, self.widths = {}, []

        def block(name, inputs, width):
            blocks[name] = ResidualBlock(inputs, width, kernel_size, groups)
            self.widths.append(width)

        inputs, self.levels = dims, len(features)
        for level, width in enumerate(features):
            block(f"down_{level}_0", inputs, width)
            block(f"down_{level}_1", width, width)
            inputs = width
        block("middle_0", inputs, inputs)
        block("middle_1", inputs, inputs)
        for level in reversed(range(1, self.levels)):
            width = features[level - 1]
            block(f"up_{level}_0", 2 * features[level], width)
            block(f"up_{level}_1", width, width)
        self.blocks = nn.ModuleDict(blocks)
        self.resample = nn.ModuleDict()
        for level in range(self.levels - 1):
            width = features[level]
            self.resample[f"downsample_{level}"] = nn.Conv1d(width, width, 3, 2, padding=1)
            self.resample[f"upsample_{level + 1}"] = nn.ConvTranspose1d(
                width, width, 4, 2, padding=1
            )
        self.film = nn.Linear(embed_dim + condition, 2 * sum(self.widths))
        self.final_conv = nn.Conv1d(features[0], features[0], kernel_size, padding=kernel_size // 2)
        self.final_norm = nn.GroupNorm(groups, features[0])
        self.out = nn.Conv1d(features[0], dims, 1)

    def forward(self, x_t, sigma, condition):
        inputs = F.mish(torch.cat([self.noise_embedding(sigma), condition], dim=-1))
        sizes = [width for width in self.widths for _ in range(2)]
        films = iter(self.film(inputs).split(sizes, dim=-1))
        h, skips = x_t.transpose(1, 2), []
        for level in range(self.levels):
            h = self.blocks[f"down_{level}_0"](h, next(films), next(films))
            h = self.blocks[f"down_{level}_1"](h, next(films), next(films))
            skips.append(h)
            if level < self.levels - 1:
                h = self.resample[f"downsample_{level}"](h)
        h = self.blocks["middle_0"](h, next(films), next(films))
        h = self.blocks["middle_1"](h, next(films), next(films))
        for level in reversed(range(1, self.levels)):
            h = torch.cat([h, skips[level]], dim=1)
            h = self.blocks[f"up_{level}_0"](h, next(films), next(films))
            h = self.blocks[f"up_{level}_1"](h, next(films), next(films))
            h = self.resample[f"upsample_{level}"](h)[:, :, : skips[level - 1].shape[2]]
        return self.out(F.mish(self.final_norm(self.final_conv(h)))).transpose(1, 2)


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x):
        batch, horizon, width = x.shape
        qkv = self.qkv(x).view(batch, horizon, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(batch, horizon, width))


class TransformerDenoiser(nn.Module):
    """Counterpart of `ambient_jax.models.transformer.TransformerDenoiser`."""

    def __init__(self, dims, condition, horizon, width=128, depth=4, heads=4, mlp_ratio=4):
        super().__init__()
        self.width, self.depth = width, depth
        self.noise_embedding = NoiseEmbedding(width)
        self.condition = nn.Linear(condition, width)
        self.film = nn.Linear(width, width * (6 * depth + 2))
        self.inputs = nn.Linear(dims, width)
        self.position = nn.Parameter(torch.zeros(horizon, width))
        self.attention = nn.ModuleList(SelfAttention(width, heads) for _ in range(depth))
        self.mlp_in = nn.ModuleList(nn.Linear(width, mlp_ratio * width) for _ in range(depth))
        self.mlp_out = nn.ModuleList(nn.Linear(mlp_ratio * width, width) for _ in range(depth))
        self.out = nn.Linear(width, dims)

    def forward(self, x_t, sigma, condition):
        embedding = self.noise_embedding(sigma) + self.condition(condition)
        films = iter(self.film(F.mish(embedding))[:, None].chunk(6 * self.depth + 2, dim=-1))

        def modulated(x):
            return F.layer_norm(x, (self.width,)) * (1 + next(films)) + next(films)

        h = self.inputs(x_t) + self.position
        for attention, mlp_in, mlp_out in zip(
            self.attention, self.mlp_in, self.mlp_out, strict=True
        ):
            y = modulated(h)
            h = h + next(films) * attention(y)
            y = modulated(h)
            h = h + next(films) * mlp_out(F.gelu(mlp_in(y), approximate="tanh"))
        return self.out(modulated(h))


def load_flax(module: nn.Module, params: Mapping[str, Any]) -> None:
    """Copies the Flax parameters of the same network into `module`.

    Raises:
        ValueError: a parameter without counterpart, on either side.
    """
    flat = dict(_flatten(params))
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parts = [p for p in name.split(".") if p not in ("blocks", "resample")]
            if parts[0] in ("attention", "mlp_in", "mlp_out"):
                head, *tail = parts[0].split("_")
                parts[:2] = ["_".join([head, parts[1], *tail])]
            if parts[0] == "inputs":
                parts[0] = "in"
            source = "/".join(parts)
            if parts[-1] == "weight":
                stem = "/".join(parts[:-1])
                source = f"{stem}/scale" if f"{stem}/scale" in flat else f"{stem}/kernel"
            if source not in flat:
                raise ValueError(f"No Flax parameter {source!r} for torch parameter {name!r}.")
            value = np.asarray(flat.pop(source))
            if value.ndim == 3:
                # A transposed convolution keeps its inputs first.
                value = value.transpose((1, 2, 0) if "upsample" in source else (2, 1, 0))
            elif parts[-1] == "weight" and value.ndim == 2:
                value = value.T
            parameter.copy_(torch.from_numpy(np.array(value, order="C")))
    if flat:
        raise ValueError(f"Flax parameters without torch counterpart: {sorted(flat)}.")


def _flatten(tree, prefix=""):
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}/")
        else:
            yield prefix + name, value
