"""Networks with weights of files: equal to torchvision's where it is there, and to NumPy."""

import os
import subprocess
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors import numpy as safetensors

from ambient_jax import optim
from ambient_jax.models import pretrained
from ambient_jax.models.vision import ImageEncoder

# A Python with torch and torchvision, which the project does not need.
TORCH = os.environ.get("AMBIENT_JAX_TORCH_PYTHON", "")
SAVE = """
import sys, torch, torchvision
from safetensors.torch import save_file
torch.manual_seed(0)
kind, folder = sys.argv[1:]
if kind == "vit":
    net = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 64)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.2)
else:
    net = getattr(torchvision.models, kind)()
    for m in net.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.running_mean.normal_(std=0.1)
            m.running_var.uniform_(0.5, 2)
            m.weight.data.uniform_(0.5, 1.5)
net.eval()
images = torch.rand(2, 3, 32 if kind == "vit" else 64, 32 if kind == "vit" else 64)
mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
x = (images - mean[:, None, None]) / std[:, None, None]
with torch.no_grad():
    if kind == "vit":
        y = net._process_input(x)
        y = net.encoder(torch.cat([net.class_token.expand(2, -1, -1), y], 1))[:, 1:]
        y = y.reshape(2, 4, 4, 16)
    else:
        for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            x = getattr(net, name)(x)
        y = x.permute(0, 2, 3, 1)
weights = {"model." + n: v.contiguous() for n, v in net.state_dict().items()}
save_file(weights, f"{folder}/w.safetensors")
images = images.permute(0, 2, 3, 1).contiguous()
save_file({"images": images, "features": y.contiguous()}, f"{folder}/io.safetensors")
"""
NETWORKS = {
    "vit": pretrained.ViT(width=16, depth=2, heads=2, patch=8, grid=4),
    "resnet18": pretrained.ResNetFrozenNorm("resnet18"),
    "resnet50": pretrained.ResNetFrozenNorm("resnet50"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", NETWORKS)
def test_features_are_those_of_torchvision(kind, tmp_path):
    if not TORCH:
        pytest.skip("no Python with torchvision (AMBIENT_JAX_TORCH_PYTHON)")
    command = [TORCH, "-c", textwrap.dedent(SAVE), kind, str(tmp_path)]
    subprocess.run(command, check=True, timeout=300)
    given = safetensors.load_file(tmp_path / "io.safetensors")
    network, images = NETWORKS[kind], 2 * given["images"] - 1
    shapes = jax.eval_shape(network.init, jax.random.key(0), images)["params"]
    params = pretrained.load(tmp_path / "w.safetensors", shapes)
    found = jax.jit(network.apply)({"params": params}, images)
    scale = np.abs(given["features"]).max()
    np.testing.assert_allclose(found / scale, given["features"] / scale, atol=2e-5)


def _vit_file(path, width=8, depth=1, patch=4, grid=2):
    """Writes arrays with timm's names, as DINOv2 has them."""
    rng = np.random.default_rng(0)
    make = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    arrays = {
        "patch_embed.proj.weight": make(width, 3, patch, patch),
        "patch_embed.proj.bias": make(width),
        "cls_token": make(1, 1, width),
        "pos_embed": make(1, 1 + grid**2, width),
        "norm.weight": make(width),
        "norm.bias": make(width),
        "mask_token": make(1, width),
    }
    for i in range(depth):
        for name, shape in {
            **{"norm1": (width,), "norm2": (width,), "attn.qkv": (3 * width, width)},
            **{"attn.proj": (width, width), "mlp.fc1": (4 * width, width)},
            **{"mlp.fc2": (width, 4 * width)},
        }.items():
            arrays[f"blocks.{i}.{name}.weight"] = make(*shape)
            arrays[f"blocks.{i}.{name}.bias"] = make(shape[0])
        arrays |= {f"blocks.{i}.ls1.gamma": make(width), f"blocks.{i}.ls2.gamma": make(width)}
    safetensors.save_file(arrays, path)
    return arrays


SMALL = dict(width=8, depth=1, heads=2, patch=4, grid=2, layer_scale=True)


def _numpy_vit(a, images, heads=2, patch=4):
    """The published formulas, for the file of ``_vit_file`` and images of 2 x 2 patches."""
    width = a["norm.bias"].size
    x = (images - np.array(pretrained.MEAN)) / np.array(pretrained.STD)
    n = len(x)
    x = x.reshape(n, 2, patch, 2, patch, 3).transpose(0, 1, 3, 5, 2, 4).reshape(n, 4, -1)
    x = x @ a["patch_embed.proj.weight"].reshape(width, -1).T + a["patch_embed.proj.bias"]
    x = np.concatenate([np.repeat(a["cls_token"], n, 0), x], 1) + a["pos_embed"]

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * a[f"{name}.weight"] + a[f"{name}.bias"]

    def dense(x, name):
        return x @ a[f"{name}.weight"].T + a[f"{name}.bias"]

    erf = np.vectorize(__import__("math").erf)
    qkv = dense(norm(x, "blocks.0.norm1"), "blocks.0.attn.qkv")
    q, k, v = (p.reshape(n, 5, heads, -1).transpose(0, 2, 1, 3) for p in np.split(qkv, 3, -1))
    w = np.exp(q @ k.transpose(0, 1, 3, 2) / np.sqrt(width // heads))
    y = (w / w.sum(-1, keepdims=True) @ v).transpose(0, 2, 1, 3).reshape(n, 5, width)
    x = x + a["blocks.0.ls1.gamma"] * dense(y, "blocks.0.attn.proj")
    y = dense(norm(x, "blocks.0.norm2"), "blocks.0.mlp.fc1")
    y = dense(y * (1 + erf(y / np.sqrt(2))) / 2, "blocks.0.mlp.fc2")
    x = norm(x + a["blocks.0.ls2.gamma"] * y, "norm")[:, 1:]
    return x.reshape(n, 2, 2, width)


def test_a_vit_computes_the_published_formulas(tmp_path):
    arrays = _vit_file(tmp_path / "w.safetensors")
    network = pretrained.ViT(**SMALL)
    images = np.random.default_rng(1).uniform(size=(3, 8, 8, 3)).astype(np.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), images)["params"]
    params = pretrained.load(tmp_path / "w.safetensors", shapes)
    found = network.apply({"params": params}, 2 * images - 1)
    np.testing.assert_allclose(found, _numpy_vit(arrays, images), rtol=1e-4, atol=1e-4)
    larger = network.apply({"params": params}, np.zeros((1, 12, 16, 3), np.float32))
    assert larger.shape == (1, 3, 4, 8)


def test_a_class_token_without_a_position(tmp_path):
    """timm's no_embed_class, of the DINOv2 with registers (names *_reg4_dinov2)."""
    file = tmp_path / "w.safetensors"
    arrays = _vit_file(file) | {"reg_token": np.ones((1, 4, 8), np.float32)}
    rows = arrays["pos_embed"]
    network = pretrained.ViT(**SMALL, registers=4)
    images = np.random.default_rng(1).uniform(size=(1, 8, 8, 3)).astype(np.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), images)["params"]
    features = []
    for position in (np.concatenate([0 * rows[:, :1], rows[:, 1:]], 1), rows[:, 1:]):
        safetensors.save_file(arrays | {"pos_embed": position}, file)
        features.append(network.apply({"params": pretrained.load(file, shapes)}, images))
    np.testing.assert_array_equal(*features)


def _encoder(tmp_path, **more):
    section = {"name": "vit", "weights": str(tmp_path / "w.safetensors"), **SMALL, **more}
    return ImageEncoder(keypoints=2, pretrained=section)


@pytest.mark.parametrize("tune", [0.0, 0.1])
def test_frozen_or_tuned_at_its_own_rate(tmp_path, tune):
    _vit_file(tmp_path / "w.safetensors")
    encoder = _encoder(tmp_path, tune=tune)
    images = np.random.default_rng(1).integers(0, 256, (2, 1, 8, 8, 3), np.uint8)
    params = encoder.init(jax.random.key(0), images)["params"]
    params = pretrained.filled(params, tmp_path / "w.safetensors")
    grads = jax.grad(lambda p: jnp.sum(encoder.apply({"params": p}, images) ** 2))(params)
    optimizer = optim.at_own_rate(optax.sgd(1.0), pretrained.NAME, tune)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    assert np.abs(updates["keypoints"]["kernel"]).max() > 0
    np.testing.assert_array_equal(updates["keypoints"]["kernel"], -grads["keypoints"]["kernel"])
    own = jax.tree.map(lambda g: -tune * g, grads[pretrained.NAME])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), own, updates[pretrained.NAME]
    )
    assert (np.abs(updates[pretrained.NAME]["patches"]["kernel"]).max() > 0) == (tune > 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(width=16), r"safetensors has .* expected .*: its network is not the one of"),
        (dict(registers=4), r"has nothing for registers, expected \(4, 8\)"),
        (dict(name="vitt"), r"pretrained name .*'vit'"),
        (dict(weights=""), r"pretrained weights is missing"),
        (dict(wdith=8), r"field of pretrained .*'width'"),
        (dict(tune=-1.0), r"pretrained tune is -1"),
    ],
)
def test_what_does_not_fit(tmp_path, change, message):
    _vit_file(tmp_path / "w.safetensors")
    images = np.zeros((1, 1, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match=message):
        params = _encoder(tmp_path, **change).init(jax.random.key(0), images)["params"]
        pretrained.filled(params, tmp_path / "w.safetensors")


def test_files_that_are_none(tmp_path):
    like = {"patches": {"bias": np.zeros(3)}}
    with pytest.raises(FileNotFoundError, match="no weights at .*absent"):
        pretrained.load(tmp_path / "absent.safetensors", like)
    (tmp_path / "w.safetensors").write_bytes(b"\x80\x04pickled")
    with pytest.raises(ValueError, match="is no safetensors file"):
        pretrained.load(tmp_path / "w.safetensors", like)
