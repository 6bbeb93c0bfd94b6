"""What one accelerator does: training steps, images, policies together, latency; beside PyTorch.

    python -m experiments.benchmarks.accelerator                  # table, and results/accelerator/
    python -m experiments.benchmarks.accelerator --size=tiny      # minutes on a CPU, as a check
    python -m experiments.benchmarks.accelerator --size=small --only=latency  # for a CPU

It needs jax, flax and optax, and PyTorch for its columns: what an image for CUDA already has. No
data are read. A step is what training does: noise a batch, predict eps, gradient, clipping, AdamW,
average of the parameters; the state is donated. Steps are timed in blocks whose end alone is waited
for, JAX's and PyTorch's in turn: read the ratios. MFU: dense FLOPs of the products (forward once,
backward twice) over the published dense peak of the device, where it is known, and over a measured
product of 8192 x 8192 matrices (tiny: 512). PyTorch has bf16 by autocast and allows TF32, as JAX
does by default on NVIDIA's GPUs; with tiny it compiles the transformer in f32 alone. What does not
fit into --minutes is left out, and says so.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import pathlib
import re
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ambient_jax.models.multimodal import MultimodalEncoder
from ambient_jax.models.transformer import TransformerDenoiser
from ambient_jax.models.unet import UNet1D
from ambient_jax.policy import solvers
from experiments.benchmarks.flops import flops_per_step
from experiments.benchmarks.recipe import CLIP, CONDITION, DECAY, DIMS, EMA, HORIZON, RATE
from experiments.benchmarks.timing import interleaved

# Published dense peaks in TFLOP/s: (bf16, f32; TF32 on GPUs), by words in a GPU's name and by a
# TPU's whole name, of which JAX has two for some.
PEAKS = {
    **{"H200": (989, 494), "GH200": (989, 494), "H100": (989, 494), "H100 PCIe": (756, 378)},
    **{"L40S": (362, 183), "L40": (181, 90), "L4": (121, 60), "RTX 4090": (165, 83)},
    **{"A100": (312, 156), "B200": (2250, 1100), "TPU v4": (275, 0)},
    **dict.fromkeys(("TPU v5 lite", "TPU v5e"), (197, 0)),
    **dict.fromkeys(("TPU v5", "TPU v5p"), (459, 0)),
    **dict.fromkeys(("TPU v6 lite", "TPU v6e"), (918, 0)),
}

JOBS = ("steps", "latency", "images", "policies together")


@dataclasses.dataclass(frozen=True)
class Size:
    """Networks and batches of a run of the benchmark."""

    unet: tuple[int, ...]
    transformer: dict[str, int]
    batch: int
    images: tuple[int, int]  # rows, pixels of a side
    widths: tuple[int, ...]
    policies: tuple[int, ...]
    steps: int  # in a timed block
    blocks: int
    product: int
    compiled: tuple[tuple[str, str], ...]  # networks and dtypes that PyTorch compiles, too


NETWORKS, DTYPES = ("transformer", "unet"), ("bfloat16", "float32")
SIZES = {
    "full": Size(
        *((256, 512, 1024), dict(width=768, depth=12, heads=12), 1024, (64, 224)),
        *((64, 128, 256, 512), (1, 8, 32), 10, 7, 8192, tuple(itertools.product(NETWORKS, DTYPES))),
    ),
    "small": Size(  # the networks of ``train_step``
        *((64, 128, 256), dict(width=128, depth=4, heads=4), 128, (16, 96)),
        *((16, 32, 64, 128), (1, 2, 4), 4, 7, 1024, (("transformer", "float32"),)),
    ),
    "tiny": Size(
        *((16, 32), dict(width=32, depth=1, heads=2), 16, (2, 64)),
        *((8, 16), (1, 2), 2, 3, 512, (("transformer", "float32"),)),
    ),
}


def backbone(name: str, size: Size, dtype: str) -> Any:
    """Returns one of the two denoisers."""
    kind = jnp.dtype(dtype)
    if name == "unet":
        return UNet1D(features=size.unet, dtype=kind)
    return TransformerDenoiser(**size.transformer, dtype=kind)


def batch_of(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Returns a batch of noise: x0 and eps [B, H, D], sigma [B], condition [B, C]."""
    rng = np.random.default_rng(seed)
    shapes = {"x0": (HORIZON, DIMS), "eps": (HORIZON, DIMS), "condition": (CONDITION,)}
    batch = {n: rng.normal(size=(rows, *s)).astype(np.float32) for n, s in shapes.items()}
    return batch | {"sigma": rng.uniform(size=rows).astype(np.float32)}


def train_step(apply: Callable[..., Any]) -> tuple[Callable, optax.GradientTransformation]:
    """Returns ``step(state, batch) -> state`` of (params, average, moments), and its optimizer."""
    optimizer = optax.chain(optax.clip_by_global_norm(CLIP), optax.adamw(RATE, weight_decay=DECAY))

    def loss(params, batch):
        sigma = batch["sigma"][:, None, None]
        x_t = jnp.sqrt(1 - sigma**2) * batch["x0"] + sigma * batch["eps"]
        eps_hat = apply(params, x_t, batch["sigma"], batch["condition"])
        return jnp.mean((eps_hat - batch["eps"]) ** 2)

    def step(state, batch):
        params, average, moments = state
        grads = jax.grad(loss)(params, batch)
        updates, moments = optimizer.update(grads, moments, params)
        params = optax.apply_updates(params, updates)
        average = jax.tree.map(lambda e, p: e + (1 - EMA) * (p - e), average, params)
        return params, average, moments

    return step, optimizer


def first_params(model: Any, batch: dict[str, np.ndarray]) -> Any:
    """Returns a network's initial parameters."""
    first = jax.jit(model.init)  # not one operation after another
    return first(jax.random.key(0), batch["x0"], batch["sigma"], batch["condition"])


def first_state(params: Any, optimizer: optax.GradientTransformation) -> Any:
    """Returns the state of step 0, of copies, as a donated buffer must not be there twice."""
    copy = functools.partial(jax.tree.map, jnp.copy)
    return copy(params), copy(params), optimizer.init(params)


class Loop:
    """Calls ``step`` on its own state ``steps`` times, and waits for the last."""

    def __init__(self, step: Callable[[Any], Any], state: Any, steps: int):
        self._step, self._state, self._steps = step, state, steps

    def __call__(self) -> None:
        for _ in range(self._steps):
            self._state = self._step(self._state)
        jax.block_until_ready(self._state)


def measured_peak(size: Size, dtype: str, blocks: int) -> float:
    """Returns TFLOP/s of products of square matrices, by the default precision."""
    n, times = size.product, 4
    a = jax.random.normal(jax.random.key(0), (n, n)).astype(dtype)

    @jax.jit
    def products(a):
        x = a
        for _ in range(times):
            x = (x @ a) * (1 / n)
        return x

    best = interleaved([lambda: jax.block_until_ready(products(a))], blocks).min()
    return 2 * times * n**3 / best / 1e12


def published_peak(kind: str, dtype: str) -> float:
    """Returns the published peak of a device in TFLOP/s, 0 where it is not known."""
    words = lambda name: not name.startswith("TPU") and re.search(rf"\b{name}\b", kind)  # noqa: E731
    name = max((name for name in PEAKS if name == kind or words(name)), key=len, default="")
    bf16, f32 = PEAKS.get(name, (0, 0))
    return float(bf16 if dtype == "bfloat16" else f32)


def networks(size: Size, peaks: dict[str, float], torch_sides: Any) -> list[dict[str, Any]]:
    """Times the denoisers' steps, beside PyTorch's where it is there."""
    rows = []
    kind = jax.devices()[0].device_kind
    for name in NETWORKS:
        for dtype in DTYPES:
            model = backbone(name, size, dtype)
            batch = batch_of(size.batch)
            params = first_params(model, batch)
            step, optimizer = train_step(model.apply)
            step = jax.jit(step, donate_argnums=0)
            there = jax.device_put(batch)
            state = first_state(params, optimizer)
            compiled = step.lower(state, there).compile()
            memory = compiled.memory_analysis()
            runs = [Loop(lambda s, c=compiled, b=there: c(s, b), state, size.steps)]
            sides = torch_sides(name, size, params, batch, dtype) if torch_sides else {}
            times = interleaved([*runs, *sides.values()], size.blocks) / size.steps
            flops = flops_per_step(model, params, size.batch, HORIZON)
            best = float(np.median(times[0]))
            row = {
                "network": name,
                "dtype": dtype,
                "parameters": sum(p.size for p in jax.tree.leaves(params)),
                "batch": size.batch,
                "ms": 1e3 * best,
                "tflops": flops / best / 1e12,
                "of_measured": flops / best / 1e12 / peaks[dtype],
                "memory_bytes": memory.temp_size_in_bytes + memory.argument_size_in_bytes,
            }
            if peak := published_peak(kind, dtype):
                row["mfu"] = flops / best / 1e12 / peak
            for side, its in zip(sides, times[1:], strict=True):
                row[f"{side}_over_jax"] = float(np.median(its / times[0]))
            rows.append(row)
    return rows


def images(size: Size) -> dict[str, Any]:
    """Times a step of the U-Net behind a ResNet on two cameras, with images on the device."""
    rows, pixels = size.images
    vision = {"widths": size.widths, "group_size": min(16, size.widths[0])}
    encoder = MultimodalEncoder(width=CONDITION, vision=vision, dtype=jnp.bfloat16)
    model = backbone("unet", size, "bfloat16")
    rng = np.random.default_rng(0)
    shape = (rows, 1, pixels, pixels, 3)
    names = ("image_primary", "image_wrist")
    cameras = {n: jnp.asarray(rng.integers(0, 256, shape, np.uint8)) for n in names}
    batch = {n: jnp.asarray(v) for n, v in batch_of(rows).items()} | {"condition": cameras}
    first = jax.jit(encoder.init)(jax.random.key(0), cameras)
    condition = jnp.zeros((rows, CONDITION))
    second = first_params(model, batch | {"condition": condition})

    def apply(params, x_t, sigma, cameras):
        return model.apply(params[1], x_t, sigma, encoder.apply(params[0], cameras))

    step, optimizer = train_step(apply)
    step = jax.jit(step, donate_argnums=0)
    run = Loop(lambda s: step(s, batch), first_state((first, second), optimizer), size.steps)
    took = float(np.median(interleaved([run], size.blocks))) / size.steps
    return {"pixels": pixels, "rows": rows, "ms": 1e3 * took, "images_per_s": 2 * rows / took}


def together(size: Size) -> list[dict[str, Any]]:
    """Times K policies of a small U-Net trained as one program."""
    model = UNet1D(features=(32, 64, 128) if size.batch > 100 else size.unet)
    rows: list[dict[str, Any]] = []
    batch = jax.device_put(batch_of(min(size.batch, 128)))
    for count in size.policies:
        step, optimizer = train_step(model.apply)

        def create(key, optimizer=optimizer):
            params = model.init(key, batch["x0"], batch["sigma"], batch["condition"])
            return first_state(params, optimizer)

        state = jax.vmap(create)(jax.random.split(jax.random.key(0), count))
        step = jax.jit(jax.vmap(step, in_axes=(0, None)), donate_argnums=0)
        run = Loop(lambda s, step=step: step(s, batch), state, size.steps)
        took = float(np.median(interleaved([run], size.blocks))) / size.steps
        each = 1e3 * took / count
        alone = rows[0]["ms_each"] if rows else each
        rows.append({"policies": count, "ms_each": each, "of_one_alone": each / alone})
    return rows


def latency(size: Size, torch_chunk: Any) -> list[dict[str, Any]]:
    """Times sampling of one chunk by DDIM, 20 steps, from the observation's condition on."""
    rows = []
    steps = 20
    for name in ("unet", "transformer"):
        model = backbone(name, size, "float32")
        batch = batch_of(1)
        params = first_params(model, batch)

        @jax.jit
        def chunk(params, condition, keys, model=model):
            def denoise(x_t, sigma):
                return model.apply(params, x_t, jnp.broadcast_to(sigma, len(x_t)), condition)

            return solvers.solve(denoise, keys, (HORIZON, DIMS), solver="ddim", steps=steps)

        keys = jax.random.split(jax.random.key(1), 1)
        run = functools.partial(chunk, params, jnp.asarray(batch["condition"]), keys)
        runs = [lambda run=run: jax.block_until_ready(run())]
        if torch_chunk:
            runs.append(torch_chunk(name, size, params, batch["condition"], steps))
        times = interleaved(runs, max(10, 3 * size.blocks))
        row = {"network": name, "ddim_steps": steps, "ms": 1e3 * float(np.median(times[0]))}
        if torch_chunk:
            row["torch_over_jax"] = float(np.median(times[1] / times[0]))
        rows.append(row)
    return rows


def markdown(results: dict[str, Any]) -> str:
    """Returns the results as tables."""
    parts = [f"{results['device']}, jax {results['jax']}, torch {results['torch'] or 'absent'}"]
    for name, rows in results["tables"].items():
        rows = rows if isinstance(rows, list) else [rows]
        columns = list(dict.fromkeys(c for row in rows for c in row))
        cell = lambda v: f"{v:.3g}" if isinstance(v, float) else str(v)  # noqa: E731
        lines = [columns, ["---"] * len(columns)]
        lines += [[cell(row.get(c, "")) for c in columns] for row in rows]
        parts.append(f"## {name}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    parts += [f"Left out for time: {', '.join(results['left_out'])}"] * bool(results["left_out"])
    return "\n\n".join(parts) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Times one accelerator.")
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--minutes", type=float, default=7.5, help="begin nothing after this")
    parser.add_argument("--out", default="experiments/benchmarks/results/accelerator")
    parser.add_argument("--only", choices=JOBS, help="one of the tables")
    parser.add_argument("--no_torch", action="store_true", help="time JAX alone")
    chosen = parser.parse_args(arguments)
    size, begin = SIZES[chosen.size], time.monotonic()
    try:
        if chosen.no_torch:
            raise ImportError("not asked for")
        from experiments.benchmarks import accelerator_torch as other
    except ImportError as error:
        print(f"without PyTorch: {error}", flush=True)
        other = None  # type: ignore[assignment]
    peaks = {dtype: measured_peak(size, dtype, size.blocks) for dtype in DTYPES}
    results: dict[str, Any] = {
        **{"device": jax.devices()[0].device_kind, "jax": jax.__version__, "size": chosen.size},
        **{"torch": other and other.VERSION, "measured_peak_tflops": peaks},
        **{"tables": {}, "left_out": []},
    }
    jobs: dict[str, Callable[[], Any]] = {
        "steps": lambda: networks(size, peaks, other and other.sides),
        "latency": lambda: latency(size, other and other.chunk),
        "images": lambda: images(size),
        "policies together": lambda: together(size),
    }
    folder = pathlib.Path(chosen.out)
    folder.mkdir(parents=True, exist_ok=True)
    took: list[float] = []
    for name in [chosen.only] if chosen.only else JOBS:
        spent = time.monotonic() - begin
        if spent > 60 * chosen.minutes - (statistics.median(took) if took else 0):
            results["left_out"].append(name)
            continue
        print(f"{name} ...", flush=True)
        results["tables"][name] = jobs[name]()
        took.append(time.monotonic() - begin - spent)
        results["seconds"] = time.monotonic() - begin
        (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    (folder / "table.md").write_text(markdown(results))
    print(markdown(results))


if __name__ == "__main__":
    main()
