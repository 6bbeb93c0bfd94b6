"""Denoiser networks: observation encoder, conditional 1-D U-Net, small transformer.

The networks are Flax *linen* modules. Training lifts a pure function over devices and often over
ensembles, so what matters is that `module.apply(params, ...)` is a pure function of plain nested
dictionaries: it goes through `jit`, `vmap`, `pmap` and Orbax without conversions, and of the Flax
interfaces it has the lowest cost of dispatch (1.7 ms a step for 148 parameter arrays, against
2.5 ms for NNX split and merge and 18.6 ms for `nnx.jit`).

This file imports nothing; take names from where they live, for example
`from ambient_jax.models.denoiser import build_denoiser`.
"""
