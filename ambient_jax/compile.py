"""Compiles a config's training step without data or accelerators, and prints its costs.

python -m ambient_jax.compile --config=my_config.py
python -m ambient_jax.compile --config=... --topology=v5e:2x4  # for a TPU; needs libtpu

The command prints parameters, FLOPs, each device's memory by use and the bytes of its collectives,
and adds a row to a table in the workdir (default ``runs/compile/<config name>``). A step that does
not fit in the devices has its row, too.
"""

import logging as python_logging
import os
import pathlib
import time
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import flags, logging
from jax.experimental import topologies

from ambient_jax import collectives
from ambient_jax.cli import launch, report
from ambient_jax.data import mixture as mixtures
from ambient_jax.data.paths import expanded
from ambient_jax.models import convolution
from ambient_jax.train import layout as layouts
from ambient_jax.train import parallel, trainer

COLUMNS = (
    *("config", "compiled for", "parameters", "state GiB", "rows", "batch MiB", "TFLOP"),
    *("arguments GiB", "temporaries GiB", "peak GiB", "fits", "collectives MB", "sent MB"),
)
CAPTION = """For each device: rows and MiB of its share of the batch, which the host sends at
every step; TFLOP of its step as XLA counts them (a loop once); arguments (state and batch) and
temporaries of the compiled program; the peak adds the program itself and the outputs that reuse no
argument's memory. The state holds the parameters, their average, and two moments of the optimizer.
Fits: the compiler placed the program, and the peak's share of the device's memory. Collectives: MB
(10^6 bytes) of their inputs in a step; sent: what a device then sends if its group is a ring
(ambient_jax/collectives.py). The CPU's compiler differs from an accelerator's, and so do its
temporaries.
"""
# GiB of one device of JAX (https://docs.cloud.google.com/tpu/docs/system-architecture-tpu-vm). In a
# topology one of v4 is a core, half of a chip.
MEMORY = {"TPU v4": 16, "TPU v5 lite": 16, "TPU v5": 95, "TPU v6 lite": 32}
MEMORY |= {"TPU v5e": 16, "TPU v5p": 95, "TPU v6e": 32}  # other names of the same


def batch_shapes(config: ml_collections.ConfigDict, rows: int) -> dict[str, Any]:
    """Returns the shapes of a batch of ``rows`` rows as the loader makes it, from the config alone.

    Raises:
      ValueError: the sources have no ``open_x``, so that their shapes need their data.
    """
    data = config.data
    form = mixtures.format_of(data)
    if not form.widths:
        raise ValueError(
            "the sources have no open_x, so only their data have their widths: expected a "
            "config whose sources have open_x, such as open_x/config.py:magic_soup"
        )
    shape = lambda *dims, dtype=np.float32: jax.ShapeDtypeStruct((rows, *dims), dtype)  # noqa: E731
    observation, width = mixtures.check(data), form.widths["action"]
    batch = {
        "observation": {n: shape(*s.shape, dtype=s.dtype) for n, s in observation.items()},
        "action": shape(data.horizon, width),
        "mask": shape(data.horizon, dtype=np.bool_),
        "dims": shape(width, dtype=np.bool_),
        "id": shape(3, dtype=np.int32),
        "source": shape(dtype=np.int32),
    }
    batch |= {name: shape() for name in ("sigma", "sigma_min", "sigma_max")}
    if form.labels:
        batch["quality"] = {label: shape() for label in form.labels}
    return batch


class DoesNotFit(ValueError):
    """The compiler finds no place for the program's arrays in a device's memory."""


def compile_step(config: ml_collections.ConfigDict, devices: list[jax.Device]) -> dict[str, Any]:
    """Compiles the config's step for devices, which may be those of a topology.

    Returns the number of ``devices``; for one device ``kind``, ``parameters`` (by part),
    ``state_bytes``, ``rows``, ``batch_bytes``, ``flops``, ``memory`` (bytes, by use) and
    ``collectives`` (``collectives.moved``, by kind); and ``seconds`` of the compilation. Raises
    ValueError if the batch is no multiple of the devices, DoesNotFit if they are too small.
    """
    count = len(devices)
    if config.train.batch_size % count:
        raise ValueError(
            f"train.batch_size is {config.train.batch_size}, expected a multiple of {count} devices"
        )
    rows = config.train.batch_size // count
    batch = batch_shapes(config, rows)
    one_row = lambda s: jax.ShapeDtypeStruct(s.shape[1:], s.dtype)  # noqa: E731
    observation = jax.tree.map(one_row, batch["observation"])
    width, names = batch["action"].shape[-1], config.data.sources
    layout = layouts.Sharded(devices) if config.train.fsdp else layouts.Replicated()
    learner = trainer.make_learner(config, observation, width, len(names), layout)
    key = jax.random.key(config.seed)
    if isinstance(layout, layouts.Sharded):
        step: Any = layout.streamed(learner.train_step, key)
        inputs = layout.shapes(learner.shapes, batch_shapes(config, config.train.batch_size))
    else:
        step = parallel.lift_streamed(learner.train_step, key, devices)
        everywhere = lambda s: jax.ShapeDtypeStruct((count, *s.shape), s.dtype)  # noqa: E731
        inputs = jax.tree.map(everywhere, (learner.shapes, batch))
    start = time.monotonic()
    with convolution.traced_for(devices[0].platform):
        lowered = step.lower(*inputs)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise DoesNotFit(
            f"the step does not fit ({_first_lines(error)}); use more devices, "
            "config.train.accumulation, or remat in config.model.encoder.vision"
        ) from error
    seconds = time.monotonic() - start
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    uses = ("argument", "output", "alias", "temp", "generated_code")
    sizes = {use: getattr(memory, f"{use}_size_in_bytes") for use in uses}
    # Aliased outputs reuse the memory of the arguments.
    sizes["peak"] = sum(sizes.values()) - 2 * sizes["alias"]
    return {
        "devices": count,
        "kind": devices[0].device_kind,
        "parameters": parts(learner.shapes.ema_params),
        "state_bytes": size_in_bytes(learner.shapes),
        "rows": rows,
        "batch_bytes": size_in_bytes(batch),
        "flops": (cost[0] if isinstance(cost, list) else cost)["flops"],
        "memory": sizes,
        "collectives": collectives.as_dict(collectives.moved(compiled.as_text(), count)),
        "seconds": seconds,
    }


def parts(params: Any) -> dict[str, int]:
    """Counts the parameters of the image encoders, instruction encoder, conditioning, denoiser."""
    counts = {"vision": 0, "language": 0, "condition": 0, "denoiser": 0}
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        top, name = (str(k.key) for k in path[:2])
        part = "vision" if name.startswith(("image", "resnet")) else "condition"
        part = "language" if name.startswith("instruction") else part
        counts[part if top == "encoder" else "denoiser"] += leaf.size
    return counts


def size_in_bytes(tree: Any) -> int:
    """Returns the size of all arrays, or shapes, of a tree."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def topology(name: str) -> list[jax.Device]:
    """Returns the chips of a TPU topology, which need not exist on this host. Raises ValueError for
    an unknown topology."""
    # Outside Google's cloud there is no metadata server to wait for.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    # Nor does another process that holds libtpu, such as a training, matter without a chip.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    try:
        chips = topologies.get_topology_desc(platform="tpu", topology_name=name)
    except Exception as error:  # of many types, by version
        raise ValueError(
            f"no TPU topology {name!r} ({_first_lines(error)}): expected one such as v5e:2x4, and "
            "libtpu installed (pip install -e '.[tpu]'; no chip is needed)"
        ) from error
    return list(chips.devices)


def table(figures: dict[str, Any]) -> str:
    """Returns the figures of one compilation as a markdown table."""
    total, memory = sum(figures["parameters"].values()), figures["memory"]
    count = lambda number: f"{number / 1e6:.2f}M"  # noqa: E731
    gib = lambda size: f"{size / 2**30:.3f} GiB"  # noqa: E731
    rows = [["parameters", count(total)]]
    rows += [[f"  {part}", count(number)] for part, number in figures["parameters"].items()]
    rows += [
        ["state (parameters, average, optimizer)", gib(figures["state_bytes"])],
        [f"batch, {figures['rows']} rows", f"{figures['batch_bytes'] / 2**20:.1f} MiB"],
        ["FLOPs of a step", f"{figures['flops']:.4g}"],
        ["arguments (state and batch)", gib(memory["argument"])],
        ["outputs", f"{gib(memory['output'])}, {gib(memory['alias'])} in place of arguments"],
        ["temporaries", gib(memory["temp"])],
        ["program", gib(memory["generated_code"])],
        ["peak", gib(memory["peak"])],
    ]
    for kind, moved in figures["collectives"].items():
        inputs, sent = (moved[f"{which}_bytes"] / 1e6 for which in ("operand", "sent"))
        loops = f", {moved['in_loops']} of them in loops" if moved["in_loops"] else ""
        if moved["in_open_loops"]:
            loops += f", {moved['in_open_loops']} in loops of unknown length, counted once"
        rows.append([kind, f"{moved['count']}: {inputs:.4g} MB in, {sent:.4g} MB sent{loops}"])
    return report.markdown((f"each of {figures['devices']} x {figures['kind']}", ""), rows)


def run(
    config: ml_collections.ConfigDict, workdir: str, *, devices: int = 8, tpu: str = ""
) -> None:
    """Compiles, prints the figures, and adds a row to the table in the workdir.

    The targets are ``devices`` CPU devices, or the TPU topology ``tpu``, such as "v5e:2x4".
    """
    # Before JAX looks for devices: a chip of this host may be training, and is not needed.
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 1 if tpu else devices)
    # A cached program has no memory analysis.
    jax.config.update("jax_enable_compilation_cache", False)
    python_logging.getLogger("jax").setLevel(python_logging.ERROR)
    targets = topology(tpu) if tpu else jax.local_devices()
    logging.info("compiling %s for %d x %s", config.name, len(targets), targets[0].device_kind)
    target = tpu or f"{len(targets)} x CPU"
    about = {"target": target, "config": config.name, "batch_size": config.train.batch_size}
    folder = pathlib.Path(expanded(workdir))
    try:
        figures = compile_step(config, targets)
    except DoesNotFit as error:
        kind = {"devices": len(targets), "kind": targets[0].device_kind}
        record(folder, about | kind | {"reason": str(error)})
        raise
    logging.info("compiled in %.0f s", figures["seconds"])
    print(table(figures))
    record(folder, about | figures)


def record(folder: pathlib.Path, figures: dict[str, Any]) -> None:
    """Adds a step to the results, or replaces that of the same config, target and batch."""
    results = folder / "results.json"
    steps = report.read(results).get("steps", {}) if results.exists() else {}
    rows = figures["batch_size"] // figures["devices"]
    steps[f"{figures['config']}, {figures['target']}, {rows} rows"] = figures
    report.write(folder, COLUMNS, [_row(s) for s in steps.values()], CAPTION, {"steps": steps})


def _row(figures):
    name = figures["config"], figures["target"]
    if "reason" in figures:
        rows = figures["batch_size"] // figures["devices"]
        return [*name, "", "", rows, *[""] * 5, "no", "", ""]
    memory = figures["memory"]
    moved = figures.get("collectives")  # older results have none
    size = MEMORY.get(figures["kind"])
    return [
        *name,
        f"{sum(figures['parameters'].values()) / 1e6:.1f}M",
        f"{figures['state_bytes'] / 2**30:.2f}",
        figures["rows"],
        f"{figures['batch_bytes'] / 2**20:.1f}",
        f"{figures['flops'] / 1e12:.3g}",
        *(f"{memory[k] / 2**30:.2f}" for k in ("argument", "temp", "peak")),
        f"yes, {memory['peak'] / 2**30 / size:.0%}" if size else "",
        *(_megabytes(moved, k) if moved is not None else "" for k in ("operand", "sent")),
    ]


def _megabytes(moved, which):
    return f"{sum(m[f'{which}_bytes'] for m in moved.values()) / 1e6:.1f}"


def _first_lines(error):
    return " ".join(str(error).split())[:300]


def main() -> None:
    """Runs the command."""
    devices = flags.DEFINE_integer("devices", 8, "devices of the host's platform", lower_bound=1)
    tpu = flags.DEFINE_string("topology", "", "TPU to compile for instead, such as v5e:2x4")
    launch.run("compile", lambda c, w: run(c, w, devices=devices.value, tpu=tpu.value))


if __name__ == "__main__":
    main()
