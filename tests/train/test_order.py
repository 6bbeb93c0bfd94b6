"""Data first trains what noise first trains: the same expectation of loss and gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ambient_jax import losses, mixing, schedules
from ambient_jax.data import device
from ambient_jax.train import state as state_lib
from ambient_jax.train import step as step_lib

LEVELS = (np.arange(20) + 0.5) / 20
# clean, ambient, omni, unusable, clean of weight 0: bounds lie between the levels
WEIGHT, CLEAN = np.array([1, 2, 3, 2, 0]), np.array([True, False, False, False, True])
LOW, HIGH = np.array([0.0, 0.4, 0.8, 1.0, 0.0]), np.array([1.0, 0.0, 0.2, 0.0, 1.0])
LAWS = {
    "ambient": mixing.Ambient(),
    "re-weighted": mixing.Ambient(alpha=0.3),
    "exclusive": mixing.Exclusive(),
    "soft": mixing.Soft((0.0, 1.0), (0.9, 0.2)),
    "ben david": mixing.BenDavid(10, 70, (0.0, 1.0), (0.9, 0.0)),
    "cotraining": mixing.CoTraining(),
}
H, D = 3, 2


def admitted(law):
    """[K, L] by the definition; the law of co-training has no bounds."""
    where = (LEVELS > LOW[:, None]) | (LEVELS < HIGH[:, None])
    return where | isinstance(law, mixing.CoTraining)


def shares(law):
    """P(source | sigma) [K, L] in NumPy, from the table of ``mixing``."""
    weight = WEIGHT.astype(float)
    if law == mixing.Ambient(alpha=0.3):
        group = np.where(CLEAN, weight[CLEAN].sum(), weight[~CLEAN].sum())
        weight = weight / group * np.where(CLEAN, 0.3, 0.7)
    mass = weight[:, None] * admitted(law)
    clean, corrupt = mass * CLEAN[:, None], mass * ~CLEAN[:, None]
    if isinstance(law, mixing.Exclusive):
        mass = np.where(corrupt.sum(0) > 0, corrupt, clean)
    if isinstance(law, mixing.Soft | mixing.BenDavid):
        alpha = np.asarray(law.alpha(LEVELS))
        some = corrupt.sum(0) > 0
        alpha = np.where(some, alpha, 1)
        corrupt = corrupt / np.where(some, corrupt.sum(0), 1)
        return alpha * clean / clean.sum(0) + (1 - alpha) * corrupt
    return mass / mass.sum(0)


def population(law):
    """(source, sigma) of rows in the very proportions in which data first draws them."""
    _, sources = mixing.resolve(law, mixing.make_sources(WEIGHT, CLEAN, LOW, HIGH))
    weight = np.asarray(sources.weight, float)
    weight = np.rint(weight / weight[weight > 0].min() * 240).astype(int)
    source, sigma = [], []
    for k, levels in enumerate(admitted(law)):
        own = LEVELS[levels] if levels.any() else np.ones(1)
        source.append(np.full(weight[k], k))
        sigma.append(np.resize(own, weight[k]))
        assert weight[k] % len(own) == 0
    return np.concatenate(source), np.concatenate(sigma)


def rows_of(source, sigma, law):
    """A batch of such rows, whose chunks tell sources apart."""
    _, bounded = mixing.resolve(law, mixing.make_sources(WEIGHT, CLEAN, LOW, HIGH))
    size = len(source)
    x0 = np.random.default_rng(0).normal(size=(len(WEIGHT), H, D))
    return {
        "observation": {},
        "action": jnp.asarray(x0[source]),
        "mask": jnp.ones((size, H), bool),
        "sigma": jnp.asarray(sigma),
        "sigma_min": jnp.asarray(bounded.sigma_min, float)[source],
        "sigma_max": jnp.asarray(bounded.sigma_max, float)[source],
        "source": jnp.asarray(source),
        "id": jnp.stack([jnp.asarray(source)] * 3, -1),
    }


def apply(params, x_t, sigma, observation):
    return x_t @ params["w"] + sigma[:, None, None] * params["b"]


def _params(dtype=float):
    return {"w": jnp.asarray([[0.3, -0.2], [0.5, 0.1]], dtype), "b": jnp.full(D, 0.3, dtype)}


def value_of(params, batch, weights):
    """sum(weights x loss) of rows that all have the same noise."""
    size = len(batch["sigma"])
    keys = jnp.broadcast_to(jax.random.key(1), size)
    call = step_lib.make_loss(step_lib.Objective(loss="ambient"), apply)
    _, (rows, _) = call(params, batch, keys, jax.random.key(2))
    return jnp.sum(rows * weights)


@pytest.mark.parametrize("padding", (False, True))
@pytest.mark.parametrize("name", LAWS)
def test_expectation_of_loss_and_gradient(name, padding):
    """All draws of both orders, as often as they come, in float64. With padding half of the omni
    source's chunks have no valid entry: both means are over what has one."""
    law = LAWS[name]
    with jax.enable_x64(True):
        truth = shares(law) / len(LEVELS)
        source, sigma = (i.ravel() for i in np.meshgrid(range(5), LEVELS, indexing="ij"))
        wanted = rows_of(source, sigma, law)
        part = np.where(source == 2, 0.5, 1.0) if padding else np.ones(len(source))
        probability = truth.ravel() * part / (truth.ravel() * part).sum()
        want = jax.jit(jax.value_and_grad(value_of))(_params(), wanted, probability)

        source, sigma = population(law)
        if padding:
            source, sigma = np.repeat(source, 2), np.repeat(sigma, 2)
        batch = rows_of(source, sigma, law)
        if padding:
            empty = (source == 2) & (np.arange(len(source)) % 2 == 0)
            batch["mask"] &= ~jnp.asarray(empty)[:, None]
        sources = mixing.make_sources(WEIGHT, CLEAN, LOW, HIGH)
        weigh = jax.jit(jax.vmap(lambda s, k: mixing.data_first_weight(law, s, k, sources)))
        weight = weigh(batch["sigma"], batch["source"])
        keep = losses.batch_keep_mask(
            *(batch[n] for n in ("sigma", "sigma_min", "sigma_max", "mask"))
        )

        def mean(params):
            values = jax.vmap(lambda one: value_of(params, jax.tree.map(lambda a: a[None], one), 1))
            return losses.masked_mean(values(batch), keep, weight)

        got = jax.jit(jax.value_and_grad(mean))(_params())
    # sources keep weight and bounds in float32
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9), got, want)
    if name in ("ambient", "soft"):  # what is drawn in vain is no part of the mean
        assert not np.asarray(keep).all()


def resident():
    """One step an episode: a chunk is its sample and masked padding."""
    sizes = np.array([40, 80, 120, 80, 40], np.int32)
    total = int(sizes.sum())
    owner = np.repeat(np.arange(5), sizes)
    action = np.random.default_rng(0).normal(size=(total, D)) + owner[:, None]
    step = np.arange(total, dtype=np.int32)
    return device.DeviceData(
        {"action": jnp.asarray(action, jnp.float32)},
        *(jnp.asarray(step), jnp.asarray(step + 1), jnp.asarray(step)),
        jnp.asarray(np.cumsum(sizes) - sizes, jnp.int32),
        jnp.asarray(sizes),
        mixing.make_sources(WEIGHT, CLEAN, LOW, HIGH),
    )


def gradient(batch, axis=None, **options):
    """The gradient that a train step takes, and its metric sums."""
    optimizer = optax.sgd(1.0)
    train_step = step_lib.make_train_step(
        step_lib.Objective(), apply, optimizer, axis_name=axis, **options
    )
    state = state_lib.create(_params(jnp.float32), optimizer, 5)
    if axis:
        lifted = jax.vmap(train_step, (None, 0, None), axis_name=axis)
        batch = jax.tree.map(lambda a: a.reshape(4, len(a) // 4, *a.shape[1:]), batch)
        after = jax.tree.map(lambda a: a[0], jax.jit(lifted)(state, batch, jax.random.key(3)))
    else:
        after = jax.jit(train_step)(state, batch, jax.random.key(3))
    return jax.tree.map(lambda a, b: a - b, state.params, after.params), after.sums


def drawn(law, order, size):
    sample = functools.partial(
        device.sample_batch, law=law, schedule=schedules.vp(), history=1, horizon=H, order=order
    )
    return jax.jit(sample)(resident(), jax.random.key(5), 0, jnp.arange(size))


@pytest.mark.parametrize("name", ("ambient", "soft"))
def test_a_step_on_drawn_batches(name):
    """Monte Carlo, 2^16 rows: errors are below 2%; to divide by the rows kept gives 4/3."""
    found = [gradient(drawn(LAWS[name], order, 2**16)) for order in device.ORDERS]
    (noise, of_noise), (data, of_data) = found
    scale = np.sqrt(sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(noise)))
    for a, b in zip(jax.tree.leaves(data), jax.tree.leaves(noise), strict=True):
        np.testing.assert_allclose(a, b, atol=0.03 * scale)
    means = [float(s.bin_loss.sum() / s.bin_count.sum()) for s in (of_noise, of_data)]
    np.testing.assert_allclose(means[1], means[0], rtol=0.03)
    of = [np.asarray(s.source_count / s.source_count.sum()) for s in (of_noise, of_data)]
    np.testing.assert_allclose(of[1], of[0], atol=0.01)


def test_data_first_is_the_same_on_devices_and_in_micro_batches():
    """With rows that are drawn in vain and rows that padding empties, unevenly spread."""
    batch = drawn(LAWS["ambient"], "data_first", 64)
    batch["mask"] &= (jnp.arange(64) % 5 > 0)[:, None]
    keep = losses.batch_keep_mask(*(batch[n] for n in ("sigma", "sigma_min", "sigma_max", "mask")))
    per_device = np.asarray(keep).reshape(4, 16).sum(1)
    assert len(set(per_device)) > 1
    want, _ = gradient(batch)
    for options in ({"axis": "devices"}, {"accumulation": 4}):
        got, _ = gradient(batch, **options)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), got, want)
