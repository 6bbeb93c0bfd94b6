"""Image networks whose weights come from a file: torchvision's ResNets and vision transformers.

``ResNetFrozenNorm`` has the batch normalisations of the file as a scale and a bias (as in DETR,
Carion et al. 2020); ``ViT`` is that of Dosovitskiy et al. 2021, with DINOv2's layer scale and
register tokens if asked for. Both map images to a feature map, as ``vision.ResNet`` does, in which
keypoints are found. ``load`` reads safetensors with the names of torchvision or timm (DINO and
DINOv2 use timm's).
"""

import math
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import normal, ones, zeros
from safetensors import SafetensorError
from safetensors.flax import load_file

from ambient_jax import _checks
from ambient_jax.data.paths import expanded
from ambient_jax.models.layers import Attention, Dense, Dtype, check_multiple, check_positive

# Of ImageNet, which nearly all published weights expect; of images in [0, 1].
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Depths of the stages, and whether blocks are bottlenecks.
RESNETS = {
    **{"resnet18": ((2, 2, 2, 2), False), "resnet34": ((3, 4, 6, 3), False)},
    **{"resnet50": ((3, 4, 6, 3), True), "resnet101": ((3, 4, 23, 3), True)},
}
NAME = "pretrained"  # of the networks' parameters


def _normalised(x, mean, std):
    """Maps images in [-1, 1] to those that the weights expect."""
    return ((x + 1) / 2 - jnp.asarray(mean, x.dtype)) / jnp.asarray(std, x.dtype)


class _Norm(nn.Module):
    """A batch normalisation with constant statistics."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", ones, x.shape[-1:], jnp.float32)
        bias = self.param("bias", zeros, x.shape[-1:], jnp.float32)
        return (x.astype(jnp.float32) * scale + bias).astype(x.dtype)


class ResNetFrozenNorm(nn.Module):
    """A ResNet of ``RESNETS`` without pool and classifier.

    Attributes:
        kind: its name.
        mean, std: of the images in [0, 1] that the weights expect.
        width: channels of the first stage; 64 in all published ones.
        dtype: type of the computation; parameters are float32.
    """

    kind: str = "resnet18"
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    width: int = 64
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images [N, h, w, 3] in [-1, 1] to [N, h / 32, w / 32, C], sizes rounded up."""
        depths, bottleneck = RESNETS[self.kind]
        x = _normalised(x, self.mean, self.std).astype(self.dtype)
        x = nn.relu(self._conv(x, self.width, 7, 2, "conv1", "bn1"))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, depth in enumerate(depths):
            for i in range(depth):
                stride = 2 if stage and not i else 1
                width, name = self.width * 2**stage, f"layer{stage + 1}_{i}_"
                out = 4 * width if bottleneck else width
                if bottleneck:
                    h = nn.relu(self._conv(x, width, 1, 1, name + "conv1", name + "bn1"))
                    h = nn.relu(self._conv(h, width, 3, stride, name + "conv2", name + "bn2"))
                    h = self._conv(h, out, 1, 1, name + "conv3", name + "bn3")
                else:
                    h = nn.relu(self._conv(x, width, 3, stride, name + "conv1", name + "bn1"))
                    h = self._conv(h, width, 3, 1, name + "conv2", name + "bn2")
                if stride != 1 or x.shape[-1] != out:
                    names = name + "downsample_0", name + "downsample_1"
                    x = self._conv(x, out, 1, stride, *names)
                x = nn.relu(x + h)
        return x

    def _conv(self, x, features, kernel, stride, name, norm):
        size, pad = (kernel, kernel), kernel // 2
        conv = nn.Conv(features, size, stride, pad, use_bias=False, dtype=self.dtype, name=name)
        return _Norm(name=norm)(conv(x))

    def check_sizes(self) -> None:
        """Raises ValueError, naming the field, for a value that cannot work."""
        _checks.one_of("pretrained kind", self.kind, RESNETS)
        check_positive("pretrained", width=self.width)


class ViT(nn.Module):
    """A vision transformer; its feature map are the patches' tokens after the last normalisation.

    Attributes:
        width, depth, heads, patch: sizes, such as 384, 12, 6 and 14 of DINOv2's small one.
        grid: patches of a side of the images that the weights were trained with (224 / patch);
            their position embeddings are interpolated to other images.
        registers: register tokens (Darcet et al. 2024), which have no position.
        layer_scale: whether the blocks scale their results by channel.
        mean, std, dtype: see ``ResNetFrozenNorm``.
    """

    width: int = 384
    depth: int = 12
    heads: int = 6
    patch: int = 14
    grid: int = 16
    registers: int = 0
    layer_scale: bool = False
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images [N, h, w, 3] in [-1, 1] to [N, h / patch, w / patch, width]. Raises
        ValueError if the patch does not divide the sides."""
        n, height, width, _ = x.shape
        if height % self.patch or width % self.patch:
            raise ValueError(
                f"images of {height} x {width} pixels came to a network of patches of {self.patch}:"
                f" expected multiples of {self.patch}, such as config.data.open_x.image_size = "
                f"({self.grid * self.patch}, {self.grid * self.patch})"
            )
        x = _normalised(x, self.mean, self.std).astype(self.dtype)
        size = (self.patch, self.patch)
        x = nn.Conv(self.width, size, size, "VALID", dtype=self.dtype, name="patches")(x)
        rows, columns = x.shape[1:3]
        position = self.param("position", normal(0.02), (1 + self.grid**2, self.width))
        first = self.param("class", normal(0.02), (1, self.width)) + position[:1]
        tokens = [first]
        if self.registers:
            tokens.append(self.param("registers", normal(0.02), (self.registers, self.width)))
        x = x.reshape(n, -1, self.width) + self._positions(position[1:], rows, columns)
        ahead = jnp.concatenate(tokens).astype(self.dtype)
        x = jnp.concatenate([jnp.broadcast_to(ahead, (n, *ahead.shape)), x], axis=1)
        for i in range(self.depth):
            y = Attention(self.heads, self.dtype, name=f"attention_{i}")(self._norm(x, f"{i}_1"))
            x = x + self._scaled(y, f"scale_{i}_1")
            y = Dense(4 * self.width, self.dtype, name=f"mlp_{i}_in")(self._norm(x, f"{i}_2"))
            y = nn.gelu(y, approximate=False)
            y = Dense(self.width, self.dtype, name=f"mlp_{i}_out")(y)
            x = x + self._scaled(y, f"scale_{i}_2")
        x = self._norm(x, "last")[:, len(ahead) :]
        return x.reshape(n, rows, columns, self.width)

    def _positions(self, position, rows, columns):
        if (rows, columns) != (self.grid, self.grid):
            grid = position.reshape(self.grid, self.grid, -1)
            grid = jax.image.resize(grid, (rows, columns, self.width), "bicubic")
            position = grid.reshape(rows * columns, -1)
        return position.astype(self.dtype)

    def _norm(self, x, name):
        return nn.LayerNorm(1e-6, dtype=self.dtype, name=f"norm_{name}")(x)

    def _scaled(self, y, name):
        if not self.layer_scale:
            return y
        return y * self.param(name, ones, (self.width,), jnp.float32).astype(y.dtype)

    def check_sizes(self) -> None:
        """Raises ValueError, naming the field, for a value that cannot work."""
        sizes = ("width", "depth", "heads", "patch", "grid")
        check_positive("pretrained", **{name: getattr(self, name) for name in sizes})
        _checks.number("pretrained registers", self.registers, 0, whole=True)
        _checks.flag("pretrained layer_scale", self.layer_scale)
        check_multiple("pretrained", heads=self.heads, width=[self.width])


NETWORKS: dict[str, Any] = {"resnet": ResNetFrozenNorm, "vit": ViT}
_OF_TRAINING = ("weights", "tune")  # fields of the section that are no network's


def build(section: Mapping[str, Any], dtype: Dtype, **keywords: Any) -> nn.Module:
    """Makes the network of a section {"name": "resnet" | "vit", "weights": file, "tune": rate,
    **fields}. Keywords are Flax's. Raises ValueError for a wrong section."""
    fields = {n: v for n, v in section.items() if n not in _OF_TRAINING}
    name = fields.pop("name", None)
    _checks.one_of("pretrained name", name, NETWORKS)
    if not isinstance(section.get("weights"), str) or not section["weights"]:
        raise ValueError("pretrained weights is missing, expected the path of a .safetensors file")
    _checks.number("pretrained tune", section.get("tune", 0.0), 0)
    network = NETWORKS[name]
    allowed = [n for n in network.__dataclass_fields__ if n not in ("parent", "name", "dtype")]
    for field in fields:
        _checks.one_of("field of pretrained", field, [*allowed, *_OF_TRAINING, "name"])
    for field in {"mean", "std"} & set(fields):
        fields[field] = tuple(fields[field])
    return network(**fields, dtype=dtype, **keywords)


def section_of(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the section ``encoder.vision.pretrained`` of a model's config; {} without one."""
    for name in ("encoder", "vision", "pretrained"):
        model = model.get(name) or {}
    return model


def filled(params: Any, path: str | os.PathLike[str]) -> Any:
    """Returns a model's parameters with those of its pre-trained networks from a file; see
    ``load`` for errors."""
    if not isinstance(params, Mapping):
        return params
    return {n: load(path, v) if n == NAME else filled(v, path) for n, v in params.items()}


def load(path: str | os.PathLike[str], like: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a network's parameters with the values of a safetensors file.

    Args:
      path: the file, with names of torchvision or timm, below any prefix.
      like: the parameters, or their shapes.

    Raises:
      FileNotFoundError: there is no file.
      ValueError: it is no safetensors file, or an array is missing or of another shape.
    """
    path = pathlib.Path(expanded(path))
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}, expected a .safetensors file")
    try:
        stored = {name: np.asarray(v) for name, v in load_file(path).items()}
    except (SafetensorError, ValueError) as error:
        raise ValueError(
            f"{path} is no safetensors file ({error}): convert other formats by safetensors.torch"
            ".save_file(model.state_dict(), path)"
        ) from error
    is_vit = "patches" in like
    named = _vit(stored) if is_vit else _resnet(stored)
    flat = jax.tree_util.tree_flatten_with_path(like)
    values = []
    for keys, leaf in flat[0]:
        name = "/".join(str(key.key) for key in keys)
        value = named.get(name)
        if value is None or value.shape != tuple(leaf.shape):
            has = "nothing" if value is None else f"an array of shape {value.shape}"
            raise ValueError(
                f"{path} has {has} for {name}, expected {tuple(leaf.shape)}: its network is not the"
                f" one of config.model.encoder.vision.pretrained; it has {', '.join(stored)[:120]}"
            )
        values.append(value.astype(leaf.dtype))
    return jax.tree.unflatten(flat[1], values)


def _below(stored, first):
    """Returns the arrays below the prefix of the one whose name ends in ``first``."""
    found = [n for n in stored if n == first or n.endswith(f".{first}")]
    prefix = min(found, key=len).removesuffix(first) if found else ""
    return {n.removeprefix(prefix): v for n, v in stored.items() if n.startswith(prefix)}


def _resnet(stored):
    named: dict[str, np.ndarray] = {}
    arrays = _below(stored, "conv1.weight")
    for name, value in arrays.items():
        stem, _, last = name.rpartition(".")
        ours = stem.replace(".", "_")
        if last == "weight" and value.ndim == 4:
            named[f"{ours}/kernel"] = value.transpose(2, 3, 1, 0)
        elif last == "running_var":
            scale = arrays[f"{stem}.weight"] / np.sqrt(value + 1e-5)
            named[f"{ours}/scale"] = scale
            named[f"{ours}/bias"] = arrays[f"{stem}.bias"] - arrays[f"{stem}.running_mean"] * scale
    return named


# Names of timm and torchvision to ours; {} is the block.
_LAYER, _ATTENTION = r"encoder\.layers\.encoder_layer_(\d+)", r"\.self_attention"
_VIT = {
    r"patch_embed\.proj|conv_proj": "patches",
    r"cls_token|class_token": "class",
    r"pos_embed|encoder\.pos_embedding": "position",
    r"reg_token|register_tokens": "registers",
    rf"(?:blocks\.(\d+)\.norm|{_LAYER}\.ln_)(\d)": "norm_{}_{}",
    rf"(?:blocks\.(\d+)\.attn\.qkv|{_LAYER}{_ATTENTION}\.in_proj)": "attention_{}/qkv",
    rf"(?:blocks\.(\d+)\.attn\.proj|{_LAYER}{_ATTENTION}\.out_proj)": "attention_{}/out",
    rf"(?:blocks\.(\d+)\.mlp\.fc1|{_LAYER}\.mlp\.(?:0|linear_1))": "mlp_{}_in",
    rf"(?:blocks\.(\d+)\.mlp\.fc2|{_LAYER}\.mlp\.(?:3|linear_2))": "mlp_{}_out",
    r"blocks\.(\d+)\.ls(\d)\.gamma": "scale_{}_{}",
    r"norm|encoder\.ln": "norm_last",
}


def _vit(stored):
    first = "conv_proj.weight"
    if not any(name.endswith(first) for name in stored):
        first = "patch_embed.proj.weight"
    named: dict[str, np.ndarray] = {}
    for name, value in _below(stored, first).items():
        stem, last = re.fullmatch(r"(.+?)(?:[._](weight|bias))?", name).groups()  # type: ignore[union-attr]
        for pattern, ours in _VIT.items():
            if match := re.fullmatch(pattern, stem):
                ours = ours.format(*[g for g in match.groups() if g is not None])
                if last is None:
                    named[ours] = value.reshape(-1, value.shape[-1]) if value.ndim == 3 else value
                elif last == "bias":
                    named[f"{ours}/bias"] = value
                elif value.ndim == 4:
                    named[f"{ours}/kernel"] = value.transpose(2, 3, 1, 0)
                else:
                    kind = "scale" if value.ndim == 1 else "kernel"
                    named[f"{ours}/{kind}"] = value.T
    rows = len(named.get("position", ()))
    if "class" in named and rows and math.isqrt(rows) ** 2 == rows:
        # timm's no_embed_class: the class token has no position.
        named["position"] = np.pad(named["position"], ((1, 0), (0, 0)))
    return named
