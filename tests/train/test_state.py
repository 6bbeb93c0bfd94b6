import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax.train import config as config_lib
from ambient_jax.train import state


def _config(**changes):
    config = config_lib.default().train
    config.update(changes)
    return config


def test_learning_rate_warms_up_and_decays_to_zero():
    rate = state.learning_rate(_config(steps=100, warmup=10, learning_rate=0.5))
    np.testing.assert_allclose(rate(0), 0, atol=1e-9)
    np.testing.assert_allclose(rate(5), 0.25, rtol=1e-5)
    np.testing.assert_allclose(rate(10), 0.5, rtol=1e-5)
    # Half-way through the cosine (10 + 45 steps) the rate is half.
    np.testing.assert_allclose(rate(55), 0.25, rtol=1e-5)
    np.testing.assert_allclose(rate(100), 0, atol=1e-7)


@pytest.mark.parametrize("warmup", [-1, 100, 200])
def test_warmup_outside_the_run(warmup):
    with pytest.raises(ValueError, match=f"warmup is {warmup} and config.train.steps 100"):
        state.learning_rate(_config(steps=100, warmup=warmup))


def test_optimizer_clips_the_global_norm():
    config = _config(steps=10, warmup=0, learning_rate=1.0, clip_norm=1.0, weight_decay=0.0)
    config.b1 = config.b2 = 0.0
    params = {"a": jnp.zeros(3), "b": jnp.zeros(())}
    huge = jax.tree.map(lambda p: jnp.full_like(p, 1e20), params)
    updates, _ = state.make_optimizer(config).update(
        huge, state.make_optimizer(config).init(params), params
    )
    assert all(bool(jnp.all(jnp.isfinite(u))) for u in jax.tree.leaves(updates))


def test_ema_decay_grows_to_its_limit():
    steps = jnp.arange(100_000)
    decay = state.ema_decay(steps, 0.999)
    np.testing.assert_allclose(decay[0], 0.1)
    assert bool(jnp.all(jnp.diff(decay) >= 0))
    np.testing.assert_allclose(decay[-1], 0.999, rtol=1e-6)


def test_created_state_shares_no_buffer_between_params_and_ema():
    params = {"w": jnp.ones(4)}
    made = state.create(params, state.make_optimizer(_config()), 2)
    pointer = lambda x: x.unsafe_buffer_pointer()  # noqa: E731
    assert pointer(made.params["w"]) != pointer(made.ema_params["w"])


@pytest.mark.parametrize("field", ["bin_loss", "grad_norm"])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_the_first_step_that_is_not_finite_is_marked_and_stays(field, value):
    sums = state.empty_sums(2).marked(4)
    assert int(sums.nonfinite) == 0
    bad = sums.replace(**{field: getattr(sums, field) + value})
    assert int(bad.marked(5).nonfinite) == 5
    assert int(bad.marked(5).marked(6).nonfinite) == 5
