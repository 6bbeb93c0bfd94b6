"""Writes a policy as one StableHLO function that needs neither Flax nor this library.

>>> export.save(Policy.from_checkpoint("runs/mine"), "exported")

writes a folder: ``policy.stablehlo`` (the function: observation, solver and action in one, for any
batch and several platforms), ``params.npz``, ``policy.json`` (what it takes and returns) and
``load_policy.py``, which runs it with jax and NumPy alone.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

import ambient_jax
from ambient_jax import _checks
from ambient_jax.data.paths import check_local, expanded, replacing, write_text
from ambient_jax.policy import load_policy
from ambient_jax.policy.policy import Policy
from ambient_jax.transforms import steps

PLATFORMS = ("cpu", "cuda", "tpu")
# Of the platforms that jax.export knows.
_KNOWN = ("cpu", "cuda", "rocm", "tpu")


def save(
    policy: Policy, path: str | os.PathLike[str], *, platforms: Sequence[str] = PLATFORMS
) -> pathlib.Path:
    """Writes the folder of an exported policy; returns it.

    The function has the policy's solver, number of steps, clip and eta, and one source's statistics
    in it. Files that are there are replaced.

    Args:
      path: folder, made if it is absent.
      platforms: where the function shall run: any of cpu, cuda, rocm and tpu.

    Raises:
      ValueError: a platform is unknown, or ``path`` is a file or in a bucket.
    """
    check_local("the folder of the export", path)
    platforms = (platforms,) if isinstance(platforms, str) else tuple(platforms)
    for name in platforms:
        _checks.one_of("platform", name, _KNOWN)
    if not platforms:
        raise ValueError(f"platforms is empty, expected some of {', '.join(_KNOWN)}")
    folder = pathlib.Path(expanded(path))
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, expected a folder to write to")
    leaves, tree = jax.tree_util.tree_flatten_with_path(policy.params)
    names = [jax.tree_util.keystr(at, simple=True, separator="/") for at, _ in leaves]
    types = [jnp.asarray(leaf).dtype for _, leaf in leaves]
    # NumPy's files know no bfloat16: it travels as float32, which holds its values.
    params = {
        name: np.asarray(leaf, np.float32 if dtype == jnp.bfloat16 else dtype)
        for name, dtype, (_, leaf) in zip(names, types, leaves, strict=True)
    }
    inputs = _inputs(policy)

    def function(params, observation, keys):
        values = [params[n].astype(dtype) for n, dtype in zip(names, types, strict=True)]
        keys = jax.random.wrap_key_data(keys, impl="threefry2x32")
        return policy.chunk(tree.unflatten(values), observation, keys, ready=policy.chain.wide)

    exported = export.export(jax.jit(function), platforms=platforms)(*_shapes(params, inputs))
    module = {
        "kept": list(exported.module_kept_var_idx),
        "uses_global_constants": bool(exported.uses_global_constants),
        "calling_convention": exported.calling_convention_version,
    }
    about = _description(policy, inputs, platforms) | {"module": module}
    folder.mkdir(parents=True, exist_ok=True)
    # policy.json last: a folder that was not completed is refused.
    (folder / "policy.json").unlink(missing_ok=True)
    (folder / "policy.stablehlo").write_bytes(exported.mlir_module_serialized)
    with replacing(folder / "params.npz") as file:
        np.savez(file, **params)  # type: ignore[arg-type]
    shutil.copyfile(load_policy.__file__, folder / "load_policy.py")
    write_text(folder / "policy.json", json.dumps(about, indent=2) + "\n")
    return folder


def load(path: str | os.PathLike[str]) -> load_policy.ExportedPolicy:
    """Loads an exported policy. Raises FileNotFoundError or ValueError if there is none."""
    return load_policy.load(path)


def _shapes(params: Mapping[str, np.ndarray], inputs: Mapping[str, dict[str, Any]]) -> tuple:
    """Returns the shapes of the function's arguments, with a symbolic batch."""
    scope = export.SymbolicScope()
    (batch,) = export.symbolic_shape("b", scope=scope)
    observation = {}
    for name, spec in inputs.items():
        dtype = np.float32 if spec["dtype"] == "float64" else np.dtype(spec["dtype"])
        observation[name] = jax.ShapeDtypeStruct((batch, *spec["shape"][1:]), dtype)
    shapes = {n: jax.ShapeDtypeStruct(value.shape, value.dtype) for n, value in params.items()}
    return shapes, observation, jax.ShapeDtypeStruct((batch, 2), np.uint32)


def _inputs(policy: Policy) -> dict[str, dict[str, Any]]:
    """Returns shape, type, units and, if it may be left out, the default of each input by name."""
    chain, history = policy.chain, policy.history
    shapes = chain.inputs(history)
    # What is left out of an observation of zeros, the chain fills in.
    given = {name: np.zeros((1, history, width)) for name, width in chain.dims.items()}
    for name, shape in shapes.items():
        if shape.dtype == np.uint8 or name == steps.INSTRUCTION:
            given[name] = np.zeros((1, *shape.shape), shape.dtype)
    filled = chain.check(given, (history,))
    inputs: dict[str, dict[str, Any]] = {}
    for name, shape in shapes.items():
        dtype = "float64" if name in chain.wide else str(shape.dtype)
        spec = {"shape": ["batch", *shape.shape], "dtype": dtype, "units": _units(policy, name)}
        if name in chain.wide:
            shift, scale = (m[f"observation/{name}"] for m in _maps(chain.normalizer))
            constant = (scale == 0).astype(np.float32)
            factor = (1 - constant) / (scale + constant)
            spec["normalise"] = {"shift": shift.tolist(), "factor": factor.tolist()}
        if name not in given:
            spec["default"] = np.asarray(filled[name][0]).tolist()
        inputs[name] = spec
    return inputs


def _maps(normalizer):
    return normalizer.shift, normalizer.scale


def _units(policy, name):
    if name in policy.dims:
        return "data units, the last steps, oldest first"
    if name.startswith("image_"):
        if name.endswith(steps.augment.MASK):
            return "whether the camera's frame is there (its frame is ignored where it is not)"
        return "RGB frames resized to this size, oldest first"
    if name == steps.INSTRUCTION:
        text = next(step for step in policy.chain.steps if isinstance(step, steps.Text))
        if text.table:
            return f"the instruction's row of {pathlib.Path(text.embeddings).name}; zeros for none"
        return "UTF-8 bytes of the instruction, padded with zeros; zeros for none"
    if name == steps.IS_CLEAN:
        return "1 to act as clean data do, 0 as corrupt data do"
    return "1 where the robot has the dimension, 0 elsewhere"


def _description(policy: Policy, inputs: Mapping[str, Any], platforms: Sequence[str]) -> dict:
    """Returns ``policy.json``, without what concerns the module."""
    width = policy.chain.action_dim
    return {
        "format": load_policy.FORMAT,
        "made_by": {"ambient_jax": ambient_jax.__version__, "jax": jax.__version__},
        "platforms": list(platforms),
        "arguments": ["params: {name: array}", "observation: {name: array}", "keys"],
        "inputs": dict(inputs),
        "keys": {
            "shape": ["batch", 2],
            "dtype": "uint32",
            "meaning": "data of a threefry2x32 key for each row; row i of a seed has "
            "fold_in(key(seed), i)",
        },
        "output": {
            "shape": ["batch", policy.horizon, width],
            "dtype": "float32",
            "units": "data units, in the order of time",
        },
        "history": policy.history,
        "horizon": policy.horizon,
        "solver": {n: getattr(policy, n) for n in ("solver", "steps", "clip", "eta")},
        "schedule": policy.schedule.name,
        "prediction": policy.prediction,
    }
