import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ambient_jax.train import state


def test_created_state_shares_no_buffer_between_params_and_ema():
    params = {"w": jnp.ones(4)}
    made = state.create(params, optax.sgd(0.1), 2)
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
