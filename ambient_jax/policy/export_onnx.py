"""Writes a policy as an ONNX model, for onnxruntime and others; needs the extra ``onnx``.

>>> export_onnx.save(Policy.from_checkpoint("runs/mine", solver="dpmpp_2m"), "policy.onnx")

ONNX has no random numbers that JAX would draw again, so the model takes the first noise as an
input, standard normal [B, H, D], and only solvers that draw no other noise are exported.
"""

from __future__ import annotations

import functools
import os
import pathlib
from typing import Any

import jax
import numpy as np

from ambient_jax._packages import MissingError
from ambient_jax.data.paths import check_local, expanded, replacing
from ambient_jax.policy import solvers
from ambient_jax.policy.policy import Policy

TOLERANCE = 1e-4  # of the action, in units of its range


def save(policy: Policy, path: str | os.PathLike[str]) -> pathlib.Path:
    """Writes the ONNX model of a policy and compares it with the policy; returns its path.

    Its inputs are the observations by name, float32 [B, T, d] in data units, and "noise" float32
    [B, H, D]; its output is "action" float32 [B, H, D] in data units.

    Raises:
      ValueError: the solver draws noise at each step, the policy sees more than histories of
        numbers, ``path`` is in a bucket, or the model that came out differs from the policy.
      ImportError: a package of the extra is missing.
    """
    check_local("the ONNX file", path)
    if policy.solver == "ddpm" or policy.eta:
        what = "ddpm" if policy.solver == "ddpm" else f"ddim with eta {policy.eta}"
        raise ValueError(f"solver is {what}, which draws noise at each step; take dpmpp_2m or ddim")
    if policy.chain.steps or policy.chain.wide:
        raise ValueError(
            "the policy sees images, texts, masks or float64 numbers, expected histories of "
            "float32 numbers: python -m ambient_jax.export writes any policy as StableHLO"
        )
    try:
        import jax2onnx
        import onnxruntime
    except ImportError as error:
        raise MissingError(f"{error}: pip install 'ambient_jax[onnx]'") from error
    names, shape = list(policy.dims), (policy.horizon, policy.chain.action_dim)
    fields = ("solver", "steps", "schedule", "prediction", "clip", "eta")
    options: dict[str, Any] = {name: getattr(policy, name) for name in fields}

    def function(params, noise, *observation):
        denoise = policy.denoiser(params, dict(zip(names, observation, strict=True)))
        actions = solvers.solve(denoise, None, shape, noise=noise, **options)
        return policy.chain.act(actions)

    model = jax2onnx.to_onnx(
        functools.partial(function, policy.params),
        inputs=[("B", *shape), *(("B", policy.history, policy.dims[n]) for n in names)],
        model_name="policy",
        input_names=["noise", *names],
        output_names=["action"],
    ).SerializeToString()
    _compare(policy, onnxruntime.InferenceSession(model), names, function)
    path = pathlib.Path(expanded(path))
    with replacing(path) as file:
        file.write(model)
    return path


def _compare(policy, session, names, function):
    """Raises ValueError unless the model gives the policy's chunks, for one row and for three."""
    maps, rng, exact = policy.normalizer, np.random.default_rng(0), jax.jit(function)
    for batch in (1, 3):
        shape = (batch, policy.horizon, policy.chain.action_dim)
        given = {"noise": rng.normal(size=shape).astype(np.float32)}
        for name in names:
            shift, scale = (m[f"observation/{name}"] for m in (maps.shift, maps.scale))
            unit = rng.uniform(-1, 1, (batch, policy.history, policy.dims[name]))
            given[name] = (shift + scale * unit).astype(np.float32)
        (got,) = session.run(["action"], given)
        want = np.asarray(exact(policy.params, *given.values()))
        size = np.where(maps.scale["action"] == 0, 1, np.abs(maps.scale["action"]))
        off = float((np.abs(got - want) / size).max()) if got.shape == want.shape else np.inf
        if not off < TOLERANCE:
            raise ValueError(
                f"the ONNX model differs from the policy by {off:.1e} of the actions' range, "
                f"expected less than {TOLERANCE:g}: use the StableHLO export, and report this"
            )
