import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ambient_jax import optim
from ambient_jax.train import config as config_lib


def _config(**changes):
    config = config_lib.default().train
    config.update(changes)
    return config


def test_learning_rate_warms_up_and_decays_to_zero():
    rate = optim.learning_rate(_config(steps=100, warmup=10, learning_rate=0.5))
    np.testing.assert_allclose(rate(0), 0, atol=1e-9)
    np.testing.assert_allclose(rate(5), 0.25, rtol=1e-5)
    np.testing.assert_allclose(rate(10), 0.5, rtol=1e-5)
    # Half-way through the cosine (10 + 45 steps) the rate is half.
    np.testing.assert_allclose(rate(55), 0.25, rtol=1e-5)
    np.testing.assert_allclose(rate(100), 0, atol=1e-7)


@pytest.mark.parametrize("warmup", [-1, 100, 200])
def test_warmup_outside_the_run(warmup):
    with pytest.raises(ValueError, match=f"warmup is {warmup} and config.train.steps 100"):
        optim.learning_rate(_config(steps=100, warmup=warmup))


def test_optimizer_clips_the_global_norm():
    config = _config(steps=10, warmup=0, learning_rate=1.0, clip_norm=1.0, weight_decay=0.0)
    config.b1 = config.b2 = 0.0
    params = {"a": jnp.zeros(3), "b": jnp.zeros(())}
    huge = jax.tree.map(lambda p: jnp.full_like(p, 1e20), params)
    updates, _ = optim.make_optimizer(config).update(
        huge, optim.make_optimizer(config).init(params), params
    )
    assert all(bool(jnp.all(jnp.isfinite(u))) for u in jax.tree.leaves(updates))


def test_ema_decay_grows_to_its_limit():
    steps = jnp.arange(100_000)
    decay = optim.ema_decay(steps, 0.999)
    np.testing.assert_allclose(decay[0], 0.1)
    assert bool(jnp.all(jnp.diff(decay) >= 0))
    np.testing.assert_allclose(decay[-1], 0.999, rtol=1e-6)


def test_the_average_rests_where_the_parameters_do():
    params = {"w": jnp.linspace(-1, 1, 101)}
    for step in (0, 5, 10_000):
        same = optim.average(params, params, step, 0.999)
        np.testing.assert_array_equal(same["w"], params["w"])


@pytest.mark.parametrize("step, decay", [(0, 0.1), (8, 0.5), (10**6, 0.9)])
def test_the_average_is_optax_incremental_update(step, decay):
    old, new = {"w": jnp.array([1.0, -2.0])}, {"w": jnp.array([3.0, 5.0])}
    ours, theirs = optim.average(old, new, step, 0.9), optax.incremental_update(new, old, 1 - decay)
    np.testing.assert_allclose(ours["w"], theirs["w"], rtol=1e-6)


def _squared(params, batch, shared, own):
    """Distance of the parameters to each member's target, by data drawn from the batch's key."""
    noise = jax.random.normal(batch, own.shape) * shared
    return jnp.mean((params["w"] - own - noise) ** 2)


def _rounds(count, steps=10):
    return [jax.random.split(jax.random.key(i), steps) for i in range(count)]


def test_fit_finds_the_least_squares_solution():
    recipe = optim.Recipe(steps=600, learning_rate=0.1, weight_decay=0.0)
    target = jnp.array([1.0, -2.0])
    fitted = optim.fit(_squared, {"w": jnp.zeros(2)}, _rounds(60), recipe, shared=0.0, own=target)
    np.testing.assert_allclose(fitted.params["w"], target, atol=1e-3)
    assert [row["step"] for row in fitted.history] == list(range(10, 610, 10))
    assert fitted.history[-1]["train"] < 1e-5 < fitted.history[0]["train"]


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_fit_is_the_plain_loop(ema):
    recipe, target = optim.Recipe(steps=20, ema=ema), jnp.array([1.0, -2.0])
    rounds, params = _rounds(2), {"w": jnp.ones(2)}
    fitted = optim.fit(_squared, params, rounds, recipe, shared=0.5, own=target)
    optimizer = recipe.optimizer()
    state, mean = optimizer.init(params), params
    for step, key in enumerate(jnp.concatenate(rounds)):
        grads = jax.grad(_squared)(params, key, 0.5, target)
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        mean = optim.average(mean, params, step, ema)
    np.testing.assert_allclose(fitted.params["w"], (mean if ema else params)["w"], rtol=1e-5)


def test_members_are_fitted_as_if_alone():
    recipe = optim.Recipe(steps=30, ema=0.9)
    targets, params = jnp.array([[1.0, -2.0], [4.0, 0.5]]), jnp.array([[0.0, 0.0], [1.0, 1.0]])
    options = dict(shared=jnp.array(0.5))
    both = optim.fit(
        _squared, {"w": params}, _rounds(3), recipe, own=targets, members=True, **options
    )
    for k in range(2):
        one = optim.fit(_squared, {"w": params[k]}, _rounds(3), recipe, own=targets[k], **options)
        np.testing.assert_allclose(both.params["w"][k], one.params["w"], rtol=1e-5)
        np.testing.assert_allclose(
            both.history[-1]["train"][k], one.history[-1]["train"], rtol=1e-5
        )


def test_each_member_keeps_its_best_parameters_and_patience_ends_the_fit():
    """Held-out losses rise after the second round for one member, the first for the other."""
    told = iter([[3.0, 1.0], [2.0, 2.0], [4.0, 3.0], [5.0, 4.0], [6.0, 5.0]])
    seen = []

    def held_out(params):
        seen.append(np.asarray(params["w"]))
        return jnp.array(next(told))

    fitted = optim.fit(
        *(_squared, {"w": jnp.zeros((2, 2))}, _rounds(5), optim.Recipe(steps=50, ema=0.9)),
        **dict(shared=0.0, own=jnp.ones((2, 2)), members=True, held_out=held_out, patience=2),
    )
    assert [row["held_out"] for row in fitted.history] == [[3, 1], [2, 2], [4, 3], [5, 4]]
    np.testing.assert_array_equal(fitted.params["w"], [seen[1][0], seen[0][1]])


def test_a_held_out_loss_that_is_not_a_number_is_passed_over():
    told, seen = iter([3.0, np.nan, 1.0, 2.0]), []

    def held_out(params):
        seen.append(np.asarray(params["w"]))
        return jnp.array(next(told))

    fitted = optim.fit(
        *(_squared, {"w": jnp.zeros(2)}, _rounds(4), optim.Recipe(steps=40)),
        **dict(shared=0.0, own=jnp.ones(2), held_out=held_out, patience=3),
    )
    np.testing.assert_array_equal(fitted.params["w"], seen[2])


def test_a_loss_of_the_same_value_is_compiled_once():
    traces = []

    @dataclasses.dataclass(frozen=True)
    class Loss:
        scale: float

        def __call__(self, params, batch, shared, own):
            traces.append(self.scale)
            return self.scale * jnp.sum(params**2)

    for _ in range(2):
        optim.fit(Loss(2.0), jnp.ones(2), _rounds(2), optim.Recipe(steps=20))
    assert len(traces) == 1
