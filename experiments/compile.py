"""What one training step takes, without data and without chips: it is compiled, and not run.

python -m experiments.compile --config=experiments/open_x/config.py:magic_soup_plus,size=large
python -m experiments.compile --config=... --topology=v5e:2x4  # for a TPU: pip install -e '.[tpu]'

The step is the one that training runs, lifted over ``--devices`` devices of the host's own platform
or over a TPU's chips. Prints parameters, FLOPs and the compiler's account of each device's memory,
and leaves a table with a row of each run in the workdir (default ``runs/compile/<config name>``).
"""

from __future__ import annotations

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

from ambient_jax.cli import report
from ambient_jax.data import mixture as mixtures
from ambient_jax.data.paths import expanded
from ambient_jax.train import parallel, trainer
from experiments import launch

_DEVICES = flags.DEFINE_integer("devices", 8, "devices of the host's platform", lower_bound=1)
_TOPOLOGY = flags.DEFINE_string("topology", "", "TPU to compile for instead, such as v5e:2x4")

COLUMNS = ("config", "compiled for", "parameters", "state GiB", "rows", "batch MiB", "TFLOP")
COLUMNS += ("arguments GiB", "temporaries GiB", "peak GiB")
CAPTION = """Of each device: rows and MiB of its share of the batch, which the host sends it
every step; TFLOP of its step as XLA counts them (a loop once); arguments (state and batch) and
temporaries of the compiled program; the peak is both, the program itself, and outputs that take
no argument's place. The state: parameters, their average, and two moments of the optimizer. On
CPU the compiler is another than an accelerator's, and so are its temporaries.
"""


def batch_shapes(config: ml_collections.ConfigDict, rows: int) -> dict[str, Any]:
    """Shapes of ``rows`` rows as the loader makes them, from the config alone.

    Raises:
      ValueError: sources that are read as they are, whose shapes only the data know.
    """
    data = config.data
    form = mixtures.format_of(data)
    if not form.widths:
        raise ValueError(
            "the sources have no open_x, so only their data say how wide they are: expected a "
            "config of sources in the common form, such as open_x/config.py:magic_soup"
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


def compile_step(config: ml_collections.ConfigDict, devices: list[jax.Device]) -> dict[str, Any]:
    """Compiles the config's step for devices, which may be those of a topology.

    Returns:
      Its figures, all of one device but the number of ``devices``: ``parameters`` (by part),
      ``state_bytes``, ``rows``, ``batch_bytes``, ``flops``, ``memory`` (bytes, by kind) and
      ``seconds`` of the compilation.

    Raises:
      ValueError: a batch that the devices do not divide, or a program that does not fit in them.
    """
    count = len(devices)
    if config.train.batch_size % count:
        raise ValueError(
            f"train.batch_size is {config.train.batch_size}, expected a multiple of {count} devices"
        )
    rows = config.train.batch_size // count
    batch = batch_shapes(config, rows)
    observation = {n: _of_one(s) for n, s in batch["observation"].items()}
    width, names = batch["action"].shape[-1], config.data.sources
    learner = trainer.make_learner(config, observation, width, len(names), parallel.AXIS)
    step = parallel.lift_streamed(learner.train_step, jax.random.key(config.seed), devices)
    everywhere = lambda s: jax.ShapeDtypeStruct((count, *s.shape), s.dtype)  # noqa: E731
    start = time.monotonic()
    lowered = step.lower(*jax.tree.map(everywhere, (learner.shapes, batch)))
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise ValueError(
            f"the step does not fit ({_first_lines(error)}); use more devices, "
            "config.train.accumulation, or remat in config.model.encoder.vision"
        ) from error
    seconds = time.monotonic() - start
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    found = {
        kind: getattr(memory, f"{kind}_size_in_bytes")
        for kind in ("argument", "output", "alias", "temp", "generated_code")
    }
    kept = found["output"] - found["alias"] + found["generated_code"]
    found["peak"] = found["argument"] + found["temp"] + kept
    return {
        "devices": count,
        "kind": devices[0].device_kind,
        "parameters": parts(learner.shapes.params),
        "state_bytes": size_in_bytes(learner.shapes),
        "rows": rows,
        "batch_bytes": size_in_bytes(batch),
        "flops": (cost[0] if isinstance(cost, list) else cost)["flops"],
        "memory": found,
        "seconds": seconds,
    }


def parts(params: Any) -> dict[str, int]:
    """Numbers of parameters: cameras' encoders, the instruction's, what joins them, denoiser."""
    told = {"vision": 0, "language": 0, "condition": 0, "denoiser": 0}
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        top, name = (str(k.key) for k in path[:2])
        part = "vision" if name.startswith(("image", "resnet")) else "condition"
        part = "language" if name.startswith("instruction") else part
        told[part if top == "encoder" else "denoiser"] += leaf.size
    return told


def size_in_bytes(tree: Any) -> int:
    """Of all arrays of a tree (shapes will do)."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def topology(name: str) -> list[jax.Device]:
    """The chips of a TPU topology that is not here; raises ValueError, saying what is missing."""
    # Off Google's cloud there is no metadata server to wait for.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=name)
    except Exception as error:  # of many types, by version
        raise ValueError(
            f"no TPU topology {name!r} ({_first_lines(error)}): expected one such as v5e:2x4, and "
            "libtpu installed (pip install -e '.[tpu]'; no chip is needed)"
        ) from error
    return list(found.devices)


def told(found: dict[str, Any]) -> str:
    """The figures of one compilation, as a table to read."""
    total, memory = sum(found["parameters"].values()), found["memory"]
    rows = [["parameters", f"{total / 1e6:.2f}M"]]
    rows += [[f"  {n}", f"{count / 1e6:.2f}M"] for n, count in found["parameters"].items()]
    rows += [
        ["state (parameters, average, optimizer)", _gib(found["state_bytes"])],
        [f"batch, {found['rows']} rows", f"{found['batch_bytes'] / 2**20:.1f} MiB"],
        ["FLOPs of a step", f"{found['flops']:.4g}"],
        ["arguments (state and batch)", _gib(memory["argument"])],
        ["outputs", f"{_gib(memory['output'])}, {_gib(memory['alias'])} in place of arguments"],
        ["temporaries", _gib(memory["temp"])],
        ["program", _gib(memory["generated_code"])],
        ["peak", _gib(memory["peak"])],
    ]
    return report.markdown((f"each of {found['devices']} x {found['kind']}", ""), rows)


def run(config: ml_collections.ConfigDict, workdir: str) -> None:
    """The command: compiles, prints, and adds a row to the table in the workdir."""
    # Before any device is asked for: a chip that is here may be training, and is not needed.
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 1 if _TOPOLOGY.value else _DEVICES.value)
    # A program out of the cache comes without an account of its memory.
    jax.config.update("jax_enable_compilation_cache", False)
    python_logging.getLogger("jax").setLevel(python_logging.ERROR)
    devices = topology(_TOPOLOGY.value) if _TOPOLOGY.value else jax.local_devices()
    logging.info("compiling %s for %d x %s", config.name, len(devices), devices[0].device_kind)
    found = compile_step(config, devices)
    logging.info("compiled in %.0f s", found["seconds"])
    print(told(found))
    folder = pathlib.Path(expanded(workdir))
    kept = folder / "results.json"
    before = report.read(kept).get("steps", {}) if kept.exists() else {}
    target = _TOPOLOGY.value or f"{len(devices)} x CPU"
    steps = before | {f"{config.name}, {target}": {"target": target, "config": config.name} | found}
    report.write(folder, COLUMNS, [_row(s) for s in steps.values()], CAPTION, {"steps": steps})


def _row(found):
    memory = found["memory"]
    return [
        *(found["config"], found["target"]),
        f"{sum(found['parameters'].values()) / 1e6:.1f}M",
        f"{found['state_bytes'] / 2**30:.2f}",
        found["rows"],
        f"{found['batch_bytes'] / 2**20:.1f}",
        f"{found['flops'] / 1e12:.3g}",
        *(f"{memory[k] / 2**30:.2f}" for k in ("argument", "temp", "peak")),
    ]


def _gib(size):
    return f"{size / 2**30:.3f} GiB"


def _of_one(shape):
    return jax.ShapeDtypeStruct(shape.shape[1:], shape.dtype)


def _first_lines(error):
    return " ".join(str(error).split())[:300]


if __name__ == "__main__":
    launch.run("compile", run)
