"""Loads and runs an exported policy; this file needs jax and NumPy, nothing else.

    from load_policy import load
    policy = load("exported")                        # the folder that holds this file
    chunk = policy({"state": state}, seed=0)         # [B, T, d] to [B, H, D], data units

``python load_policy.py FOLDER`` prints what the policy takes and runs it once on zeros.
"""

import dataclasses
import functools
import json
import pathlib
import sys

import jax
import numpy as np
from jax import export


class ExportedPolicy:
    """A policy as one StableHLO function, with its parameters; ``about`` is ``policy.json``."""

    def __init__(self, folder):
        folder = pathlib.Path(folder)
        missing = [n for n in FILES if not (folder / n).is_file()]
        if missing:
            raise FileNotFoundError(f"{folder} is no exported policy: it has no {missing[0]}")
        self.about = json.loads((folder / "policy.json").read_text())
        if self.about["format"] != FORMAT:
            raise ValueError(
                f"{folder} has format {self.about['format']}, expected {FORMAT}: use the "
                "load_policy.py that lies in it"
            )
        with np.load(folder / "params.npz", allow_pickle=False) as file:
            self._params = jax.device_put({name: file[name] for name in file.files})
        module = (folder / "policy.stablehlo").read_bytes()
        self._call = jax.jit(_exported(self.about, self._params, module).call)

    def __call__(self, observation, seed=0):
        """Draws action chunks [B, H, D] float32, data units.

        Args:
          observation: {name: array [B, ...]} as ``about["inputs"]`` says, oldest step first.
          seed: a whole number; or the data of a key, uint32 [2], or of a key for each row, [B, 2].
            The chunk is that of ``Policy(observation, key)``.
        """
        inputs = self.check(observation)
        keys = _keys(seed, len(next(iter(inputs.values()))))
        return np.asarray(self._call(self._params, inputs, keys))

    def check(self, observation):
        """Returns the module's inputs; raises ValueError for a wrong observation."""
        specs = self.about["inputs"]
        needed = [name for name, spec in specs.items() if "default" not in spec]
        for name in observation:
            if name not in specs:
                raise ValueError(f"observation {name!r} is unknown, expected {', '.join(specs)}")
        for name in needed:
            if name not in observation:
                raise ValueError(f"observation {name!r} is missing, expected {', '.join(needed)}")
        batch = np.shape(observation[needed[0]])[:1]
        return {name: _input(name, spec, observation, batch) for name, spec in specs.items()}


FORMAT = 1
FILES = ("policy.json", "policy.stablehlo", "params.npz")
load = ExportedPolicy


def _input(name, spec, observation, batch):
    dtype, shape = np.dtype(spec["dtype"]), (*batch, *spec["shape"][1:])
    if name not in observation:
        return np.broadcast_to(np.asarray(spec["default"], dtype), shape)
    value = np.asarray(observation[name])
    if value.shape != shape or not batch or not batch[0]:
        want = ", ".join(map(str, (batch[0] if batch and batch[0] else "B", *shape[len(batch) :])))
        raise ValueError(f"observation {name!r} has shape {value.shape}, expected ({want})")
    if value.dtype != dtype and not (dtype.kind == "f" and value.dtype.kind in "fiu"):
        raise ValueError(f"observation {name!r} has type {value.dtype}, expected {dtype}")
    value = value.astype(dtype)
    if dtype.kind == "f" and not np.isfinite(value).all():
        row = int(np.argmin(np.isfinite(value).reshape(len(value), -1).all(1)))
        raise ValueError(f"observation {name!r} of row {row} is not finite")
    if "normalise" in spec:  # in float64, which devices lack
        value = (value - np.array(spec["normalise"]["shift"])) * spec["normalise"]["factor"]
    return value.astype(np.float32) if dtype.kind == "f" else value


def _keys(seed, batch):
    if isinstance(seed, int | np.integer) and not isinstance(seed, bool):
        seed = jax.random.key_data(jax.random.key(seed, impl="threefry2x32"))
    seed = np.asarray(seed)
    if seed.dtype != np.uint32 or seed.shape not in ((2,), (batch, 2)):
        raise ValueError(
            f"seed is an array of {seed.dtype} and shape {seed.shape}, expected a whole number, or "
            f"uint32 (2,), or uint32 ({batch}, 2)"
        )
    if seed.ndim == 2:
        return seed
    key = jax.random.wrap_key_data(seed, impl="threefry2x32")
    fold = jax.vmap(functools.partial(jax.random.fold_in, key))
    return np.asarray(jax.random.key_data(fold(np.arange(batch))))


def _exported(about, params, module):
    """Returns the ``jax.export.Exported`` of the module: that of an empty function of the same
    signature, with the module in place of its own. (``jax.export.deserialize`` needs a package
    beside jax.)"""
    scope = export.SymbolicScope()

    def shaped(shape, dtype):
        text = ",".join("b" if n == "batch" else str(n) for n in shape)
        return jax.ShapeDtypeStruct(export.symbolic_shape(text, scope=scope), dtype)

    inputs = {}
    for name, spec in about["inputs"].items():
        wide = spec["dtype"] == "float64"
        inputs[name] = shaped(spec["shape"], "float32" if wide else spec["dtype"])
    keys = shaped(("batch", 2), "uint32")
    horizon, width = about["output"]["shape"][1:]

    def empty(params, inputs, keys):
        return jax.numpy.zeros((keys.shape[0], horizon, width), "float32")

    platforms = tuple(about["platforms"])
    like = export.export(jax.jit(empty), platforms=platforms)(params, inputs, keys)
    return dataclasses.replace(
        like,
        fun_name="policy",
        mlir_module_serialized=module,
        module_kept_var_idx=tuple(about["module"]["kept"]),
        uses_global_constants=about["module"]["uses_global_constants"],
        calling_convention_version=about["module"]["calling_convention"],
    )


def _main(folder):
    policy = load(folder)
    for name, spec in policy.about["inputs"].items():
        default = "" if "default" not in spec else ", may be left out"
        print(f"{name}: {spec['dtype']} {spec['shape']}, {spec['units']}{default}")
    out = policy.about["output"]
    print(f"-> {out['dtype']} {out['shape']}, {out['units']}")
    specs = {n: s for n, s in policy.about["inputs"].items() if "default" not in s}
    zeros = {n: np.zeros((1, *s["shape"][1:]), s["dtype"]) for n, s in specs.items()}
    print(policy(zeros))


if __name__ == "__main__":
    _main(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
