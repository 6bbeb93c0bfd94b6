"""First actions that are known: the denoiser's input, its training, and the policy that uses it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ambient_jax import schedules
from ambient_jax.data.normalizer import Normalizer
from ambient_jax.models import prefix
from ambient_jax.models.denoiser import build_denoiser
from ambient_jax.policy.inpainting import Inpainting
from ambient_jax.policy.policy import Policy
from ambient_jax.train import state as state_lib
from ambient_jax.train import step as step_lib

B, H, D, PREFIX = 16, 8, 2, 4
MODEL = {"name": "transformer", "width": 32, "depth": 1, "heads": 2, "prefix": PREFIX}
OBSERVATION = {"state": jnp.zeros((B, 1, 3))}


@pytest.fixture(scope="module")
def model():
    return build_denoiser(MODEL)


@pytest.fixture(scope="module")
def start(model):
    inputs = jnp.zeros((B, H, D)), jnp.zeros(B), OBSERVATION
    return model.init(jax.random.key(0), *inputs)["params"]


@pytest.fixture(scope="module")
def params(start):
    """Parameters with which every layer does something; some begin at zero."""
    leaves, tree = jax.tree.flatten(start)
    return tree.unflatten(leaf + 0.1 * draw(i, *leaf.shape) for i, leaf in enumerate(leaves))


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def test_join_and_split():
    actions, is_known = draw(0, 3, H, D), jnp.arange(H) < jnp.array([0, 2, H])[:, None]
    values, column = prefix.split(prefix.join(actions, is_known))
    np.testing.assert_array_equal(column[..., 0], is_known)
    np.testing.assert_array_equal(values, np.where(is_known[..., None], actions, 0))


def test_known_actions_take_the_place_of_noised_ones(model, params):
    apply = lambda x, known: model.apply(  # noqa: E731
        {"params": params}, x, jnp.full(B, 0.5), OBSERVATION | {prefix.KNOWN: known}
    )
    actions, is_known = draw(1, B, H, D), jnp.broadcast_to(jnp.arange(H) < 3, (B, H))
    known, noised = prefix.join(actions, is_known), draw(2, B, H, D)
    got = apply(noised, known)
    assert got.shape == (B, H, D)
    other = noised.at[:, :3].add(5.0)
    np.testing.assert_array_equal(apply(other, known), got)
    assert not np.allclose(apply(noised, prefix.join(actions + 1, is_known)), got)
    # That an action is known tells more than its value.
    unknown = prefix.join(actions, jnp.zeros((B, H), bool))
    assert not np.allclose(apply(noised.at[:, :3].set(actions[:, :3]), unknown), got)
    without = model.apply({"params": params}, noised, jnp.full(B, 0.5), OBSERVATION)
    np.testing.assert_array_equal(apply(noised, unknown), without)


def batch(size, seed=0):
    """Chunks of one value, N(0, 1), that the observation does not tell."""
    value = draw(seed, size, 1, D)
    row = jnp.arange(size)
    return {
        "observation": {"state": jnp.zeros((size, 1, 3))},
        "action": jnp.broadcast_to(value, (size, H, D)),
        "mask": jnp.ones((size, H), bool),
        "sigma": jnp.linspace(0.02, 1, size),
        "sigma_min": jnp.zeros(size),
        "sigma_max": jnp.ones(size),
        "source": 0 * row,
        "id": jnp.stack([0 * row, row, row], -1),
    }


def test_half_of_the_rows_know_nothing_and_shown_actions_leave_the_loss():
    rows = batch(5000)
    keys = jax.random.split(jax.random.key(0), 5000)
    shown = step_lib.with_prefix(rows, keys, PREFIX)
    actions, column = prefix.split(shown["observation"][prefix.KNOWN])
    count = np.asarray(column[..., 0].sum(1))
    share = np.bincount(count.astype(int), minlength=PREFIX + 1) / 5000
    want = np.array([0.5] + [0.5 / PREFIX] * PREFIX)
    np.testing.assert_allclose(share, want, atol=4 * np.sqrt(0.25 / 5000))
    np.testing.assert_array_equal(actions, np.where(column > 0, rows["action"], 0))
    np.testing.assert_array_equal(shown["mask"], column[..., 0] == 0)
    seen = []

    def apply(params, x_t, sigma, observation):
        known = prefix.split(observation[prefix.KNOWN])[1]
        seen.append(known)
        return x_t + params * known  # wrong by ``params`` where it is known

    loss = step_lib.make_loss(step_lib.Objective(), apply, PREFIX)
    total = lambda wrong: loss(wrong, rows, keys, jax.random.key(1))[0]  # noqa: E731
    assert total(0.0) == total(100.0) > 0
    assert np.array_equal(seen[0], column)


def test_it_learns_to_continue_what_is_known(model, start):
    """With one action known the others are the same; with none the mean is 0, the error 1."""
    optimizer = optax.adam(5e-3)
    objective = step_lib.Objective(prediction="x0", schedule=schedules.cosine())
    apply = lambda params, *inputs: model.apply({"params": params}, *inputs)  # noqa: E731
    step = jax.jit(step_lib.make_train_step(objective, apply, optimizer, prefix=PREFIX))
    state = state_lib.create(start, optimizer, 1)
    for number in range(200):
        state = step(state, batch(64, number), jax.random.key(3))
    test = batch(256, 1000)
    noise, sigma = draw(9, 256, H, D), jnp.ones(256)

    def error(count):
        known = prefix.join(test["action"], jnp.broadcast_to(jnp.arange(H) < count, (256, H)))
        got = apply(state.params, noise, sigma, test["observation"] | {prefix.KNOWN: known})
        return float(jnp.square(got - test["action"])[:, count:].mean())

    assert error(0) == pytest.approx(1, abs=0.2)
    assert error(1) < 0.2 and error(PREFIX) < 0.2


def policy(model, params, **options):
    shift = {"action": np.float32([1, -2]), "observation/state": np.zeros(3, np.float32)}
    scale = {"action": np.float32([2, 0.5]), "observation/state": np.ones(3, np.float32)}
    chain = Normalizer("bounds", shift, scale)
    return Policy(model, params, chain, horizon=H, history=1, steps=3, **options)


def test_policy_keeps_what_is_known_and_leaves_the_rest_free(model, params):
    drawn = policy(model, params)
    assert drawn.how == Inpainting("trained")
    seen, key = {"state": np.zeros((B, 1, 3), np.float32)}, jax.random.key(4)
    known = np.asarray(3 * draw(5, B, H, D))
    hard = np.tile(np.float32([1, 1, 0, 0, 0, 0, 0, 0]), (B, 1))
    soft = hard + np.float32([0, 0, 0.5, 0.2, 0, 0, 0, 0])
    got = np.asarray(drawn(seen, key, known=known, weights=hard))
    np.testing.assert_array_equal(got[:, :2], known[:, :2])
    np.testing.assert_array_equal(drawn(seen, key, known=known, weights=soft), got)
    # The network sees normalised actions: what it makes of them is that of the denoiser itself.
    changed = np.asarray(drawn(seen, key, known=known + np.float32([[2.0, 0.5]]), weights=hard))
    assert not np.allclose(changed[:, 2:], got[:, 2:])
    assert np.isfinite(got).all()


def test_errors(model, params):
    seen, key = {"state": np.zeros((B, 1, 3), np.float32)}, jax.random.key(4)
    weights = np.tile((np.arange(H) < PREFIX + 1).astype(np.float32), (B, 1))
    with pytest.raises(ValueError, match="known has 5 actions of weight 1, expected at most the 4"):
        policy(model, params)(seen, key, known=np.zeros((B, H, D)), weights=weights)
    plain = build_denoiser({**MODEL, "prefix": 0})
    with pytest.raises(ValueError, match="the model saw no known actions in training"):
        policy(plain, params, inpainting=Inpainting("trained"))
    with pytest.raises(ValueError, match="prefix is -1"):
        build_denoiser({**MODEL, "prefix": -1})
