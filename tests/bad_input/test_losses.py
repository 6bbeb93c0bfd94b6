"""Levels, arrays, schedules, laws and keys that the kernels cannot work with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax import admission, ben_david, corruption, losses, mixing, schedules, targets
from ambient_jax.data import noise_first
from ambient_jax.policy import solvers

X = np.ones((3, 2), np.float32)
XB = np.ones((4, 3, 2), np.float32)
PAIR = mixing.make_sources([1, 1], [True, False], [0.0, 0.5])
LEVEL = r"expected a noise level in \[0, 1\]"
KEY = r"expected jax.random.key\(seed\)"


def denoising(sigma=0.5, sigma_min=0.0, sigma_max=None, x=X, **options):
    return lambda b: losses.denoising_loss(x, X, X, sigma, sigma_min, sigma_max, **options)


def ambient(sigma=0.5, sigma_min=0.2, sigma_max=None, x=X, **options):
    return lambda b: losses.ambient_loss(X, x, X, sigma, sigma_min, sigma_max, **options)


def batch(sigma=0.5, sigma_min=0.2, sigma_max=None, x=XB, loss=losses.batch_ambient_loss, **o):
    return lambda b: loss(XB, x, XB, sigma, sigma_min, sigma_max, **o)


def at(index, value):
    levels = np.full(4, 0.5, np.float32)
    levels[index] = value
    return levels


CASES = {
    "level above 1": (denoising(1.5), rf"sigma is 1.5, {LEVEL}"),
    "level below 0": (denoising(-0.25), rf"sigma is -0.25, {LEVEL}"),
    "level is NaN": (denoising(float("nan")), rf"sigma is nan, {LEVEL}"),
    "level is complex": (denoising(0.5j), r"sigma is 0.5j of type complex"),
    "level is a bool": (denoising(True), "sigma is True of type bool"),
    "level is text": (denoising("0.5"), "sigma is '0.5' of type str"),
    "level of a clock": (batch(np.arange(4)), "sigma at index 2 is 2.*Schedule.sigma"),
    "one level of a batch": (batch(at(3, 1.25)), rf"sigma at index 3 is 1.25, {LEVEL}"),
    "one level of a batch is NaN": (batch(at(1, np.nan)), "sigma at index 1 is nan"),
    "one bound of a batch": (batch(sigma_min=at(2, 2)), "sigma_min at index 2 is 2.0"),
    "sigma_min above 1": (ambient(0.5, 1.5), rf"sigma_min is 1.5, {LEVEL}"),
    "sigma_max below 0": (ambient(0.5, 0.2, -0.5), rf"sigma_max is -0.5, {LEVEL}"),
    "sigma_max is NaN": (ambient(0.5, 0.2, np.nan), "sigma_max is nan"),
    "sample of integers": (denoising(x=X.astype(int)), "h is an array of int64 .*floating"),
    "x_min of integers": (ambient(x=np.ones((3, 2), np.int32)), "x_min is an array of int32"),
    "complex sample": (ambient(x=X * 1j), "x_min is an array of complex64"),
    "sample of bools": (denoising(x=X > 0), "h is an array of bool"),
    "batch of integers": (batch(x=XB.astype(np.int8)), "x_min is an array of int8"),
    "ragged list": (denoising(x=[[1.0], [1.0, 2.0]]), "h is .* of type list, expected an array"),
    "buffer of an array": (
        lambda b: losses.batch_ambient_loss(XB, XB, XB, 0.5, 0.2, buffer=np.ones(2)),
        r"buffer is array\(\[1., 1.\]\), expected a number",
    ),
    "mask of text": (denoising(mask="110"), "mask is '110' of type str, expected booleans"),
    "mask of a batch a dict": (
        batch(mask={"a": 1}),
        "mask is {'a': 1} of type dict, expected bool",
    ),
    "complex mask": (denoising(mask=np.ones(3) * 1j), "mask is an array of complex128"),
    "mean of integers": (
        lambda b: losses.masked_mean(np.arange(3), np.ones(3, bool)),
        "values is an array of int64",
    ),
    "kept by name": (lambda b: losses.masked_mean(np.ones(3), "all"), "keep is 'all'"),
    "schedule by name": (denoising(schedule="edm"), r"'edm', expected .*schedules.get\('edm'\)"),
    "schedule not made": (batch(schedule=schedules.cosine), r"class .*Cosine.*schedules.get\("),
    "schedule a class": (ambient(schedule=schedules.EDM), r"EDM.*schedules.get\("),
    "schedule None": (denoising(schedule=None), r"schedule is None, expected a schedule"),
    "prediction a list": (batch(prediction=["eps"]), r"prediction is \['eps'\]"),
    "prediction a list, denoising": (
        batch(loss=losses.batch_denoising_loss, prediction=["x0"]),
        r"prediction is \['x0'\]",
    ),
    "level to add noise at": (lambda b: corruption.add_noise(X, X, 1.01), "sigma is 1.01"),
    "noise on integers": (lambda b: corruption.add_noise(X.astype(int), X, 0.5), "x0 is an array"),
    "renoise from above": (lambda b: corruption.renoise(X, X, 0.5, 1.2), "sigma_min is 1.2"),
    "anchor of no level": (lambda b: corruption.anchor_level(2.0, 0.1), "sigma is 2.0"),
    "id of floats": (
        lambda b: corruption.fixed_noise(jax.random.key(0), np.ones(3), (2,)),
        "sample_id is of type float32, expected integers",
    ),
    "target of integers": (
        lambda b: targets.denoising_target(X.astype(int), X, 0.5),
        "x0 is an array of int64",
    ),
    "ratio of no level": (lambda b: targets.noise_ratio(0.5, -0.1), "sigma_min is -0.1"),
    "conversion at no level": (
        lambda b: targets.convert(X, X, 7.0, source="eps", target="x0"),
        "sigma is 7.0",
    ),
    "conversion of a named schedule": (
        lambda b: targets.convert(X, X, 0.5, source="eps", target="x0", schedule="vp"),
        "schedule is 'vp'",
    ),
    "admissible at no level": (lambda b: admission.admissible(1.5, 0.1), "sigma is 1.5"),
    "measure of no bound": (lambda b: admission.measure(-1.0), "sigma_min is -1.0"),
    "measure by a name": (lambda b: admission.measure(0.1, None, "vp"), "schedule is 'vp'"),
    "draw from many bounds": (
        lambda b: admission.sample_sigma(jax.random.key(0), np.zeros(3)),
        r"sigma_min has shape \(3,\), expected a scalar",
    ),
    "scale of a time": (lambda b: schedules.edm().scale(80.0), "sigma is 80.0"),
    "level of a step": (lambda b: schedules.cosine().sigma(50), r"t is 50, expected a time in"),
    "quantile of no probability": (
        lambda b: schedules.vp().quantile([0.5, 1.5]),
        r"u at index 1 is 1.5, expected a probability",
    ),
    "cosine offset": (lambda b: schedules.get("cosine", offset=-1.0), "offset -1.0, expected a"),
    "edm mean": (lambda b: schedules.get("edm", p_mean=float("nan")), "p_mean nan.*finite"),
    "law by name": (
        lambda b: mixing.source_probabilities("soft", 0.5, PAIR),
        r"law is 'soft', expected .*mixing.get\('soft'\)",
    ),
    "sources as a list": (
        lambda b: mixing.source_probabilities(mixing.Ambient(), 0.5, [1, 2]),
        r"sources is of type list, expected mixing.make_sources",
    ),
    "law at no level": (
        lambda b: mixing.source_probabilities(mixing.Ambient(), 1.5, PAIR),
        "sigma is 1.5",
    ),
    "law at many levels": (
        lambda b: mixing.source_probabilities(mixing.Ambient(), np.zeros(2), PAIR),
        r"sigma has shape \(2,\), expected a scalar",
    ),
    "weight of a source that is not": (
        lambda b: mixing.data_first_weight(mixing.Ambient(), 0.5, 2, PAIR),
        "source is 2, expected an integer from 0 to 1",
    ),
    "share as text": (lambda b: mixing.Reweighted("half"), "alpha is half, expected a share"),
    "Ben-David without data": (lambda b: ben_david.best_alpha(0, 5, 0.1), "n_clean is 0"),
    "key a float": (lambda b: mixing.sample(0.5, mixing.Ambient(), PAIR), f"key is 0.5.*{KEY}"),
    "key None": (lambda b: admission.sample_sigma(None, 0.1), f"key is None.*{KEY}"),
    "key of floats": (lambda b: schedules.vp().sample(np.zeros(2)), f"float64.*{KEY}"),
    "key of a stream": (lambda b: noise_first.noise_keys("seed"), f"key is 'seed'.*{KEY}"),
    "old key of three numbers": (
        lambda b: noise_first.row_key(np.zeros(3, np.uint32), 0, 0),
        f"array of uint32 and shape .3,.*{KEY}",
    ),
    "seed to solve with": (lambda b: solvers.solve(None, 0, (3, 2)), "keys is one key"),
    "old key to solve with": (
        lambda b: solvers.solve(None, jax.random.PRNGKey(0), (3, 2)),
        "keys is one key",
    ),
    "solver's schedule by name": (
        lambda b: solvers.solve(None, jax.random.split(jax.random.key(0)), (3, 2), schedule="vp"),
        "schedule is 'vp'",
    ),
}


def test_types_are_told_under_jit_and_values_are_not_looked_at():
    with pytest.raises(ValueError, match="sigma is .*complex64"):
        jax.jit(corruption.add_noise)(X, X, jnp.complex64(0.5))
    loss = jax.jit(jax.vmap(losses.denoising_loss))(XB, XB, XB, at(1, np.nan))
    assert np.isfinite(loss).all() and loss[1] == 0


def test_lists_are_taken_for_arrays():
    rows, mask = [[1.0, 2.0]] * 3, [True, True, False]
    one = losses.denoising_loss(rows, rows, rows, 0.5, mask=mask)
    many = losses.batch_denoising_loss([rows], [rows], [rows], [0.5], mask=[mask])
    # eps_hat = h here, so that h - eps = 0.
    assert float(one) == 0 and many.tolist() == [0.0]
    assert losses.batch_keep_mask([0.1, 0.5], [0.2, 0.2], mask=[mask, mask]).tolist() == [
        False,
        True,
    ]
    assert float(losses.masked_mean([1.0, 2.0], [False, True])) == 2
    # Numbers in place of booleans: all but 0 are kept, once each.
    assert float(losses.masked_mean([1.0, 3.0], [2, 2])) == 2
    assert float(losses.masked_mean([1.0, 3.0], [0.0, 1.0], [1.0, 1.0])) == 3
