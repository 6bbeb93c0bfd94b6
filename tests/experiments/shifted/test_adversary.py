"""The adversary's loss and its reversed gradient, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.shifted.adversary import AdversarialEncoder, attach, reverse


def test_an_attached_loss_counts_in_the_gradient_alone():
    def total(w):
        return jnp.sum(2 * attach(w * jnp.ones(3), (w * jnp.arange(3.0)) ** 2))

    value, grad = jax.value_and_grad(total)(3.0)
    assert value == 18
    assert grad == 2 * 3 + 2 * 3 * (0 + 1 + 4)


def test_reversal_turns_the_gradient():
    assert jax.grad(lambda x: reverse(x, 0.5) ** 2)(3.0) == -0.5 * 6


@pytest.fixture(scope="module")
def encoder():
    module = AdversarialEncoder(strength=0.5, width=8, depth=1, hidden=4)
    rng = np.random.default_rng(0)
    observation = {
        "state": jnp.asarray(rng.normal(size=(6, 2, 3)), jnp.float32),
        "is_clean": jnp.asarray(
            (np.arange(6) % 2)[:, None, None] * np.ones((1, 2, 1)), jnp.float32
        ),
    }
    return module, module.init(jax.random.key(0), observation), observation


def test_features_ignore_which_data_are_clean(encoder):
    module, params, observation = encoder
    told = observation | {"is_clean": 1 - observation["is_clean"]}
    got, other = (module.apply(params, o) for o in (observation, told))
    np.testing.assert_array_equal(got, other)


def test_the_encoder_ascends_the_loss_that_the_adversary_descends(encoder):
    module, params, observation = encoder
    zero = lambda p: 0 * jnp.sum(module.apply(p, observation))  # noqa: E731
    grad = jax.grad(zero)(params)["params"]

    def cross_entropy(p):
        inner = {"params": p["params"]["encoder"]}
        features = module_encoder.apply(inner, {"state": observation["state"]})
        hidden = features @ p["params"]["hidden"]["kernel"] + p["params"]["hidden"]["bias"]
        hidden = hidden * jnp.tanh(jnp.log1p(jnp.exp(hidden)))  # mish
        logit = (hidden @ p["params"]["logit"]["kernel"] + p["params"]["logit"]["bias"])[:, 0]
        clean = observation["is_clean"][:, -1, 0]
        return jnp.sum(jnp.log1p(jnp.exp(jnp.where(clean == 1, -logit, logit))))

    from ambient_jax.models.observation import ObservationEncoder

    module_encoder = ObservationEncoder(0, 8, 1)
    plain = jax.grad(cross_entropy)(params)["params"]
    for name, factor in (("hidden", 1.0), ("logit", 1.0), ("encoder", -0.5)):
        for got, expected in zip(*map(jax.tree.leaves, (grad[name], plain[name])), strict=True):
            np.testing.assert_allclose(got, factor * expected, rtol=1e-3, atol=1e-5)


def test_without_is_clean_the_message_says_what_to_add(encoder):
    module, _, observation = encoder
    with pytest.raises(ValueError, match="config.data.observation"):
        module.init(jax.random.key(0), {"state": observation["state"]})
