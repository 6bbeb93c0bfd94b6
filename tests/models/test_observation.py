import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax.models.observation import ObservationEncoder


def encode(observation):
    return ObservationEncoder(frequencies=0, width=0).apply({}, observation)


def test_histories_are_flattened_in_sorted_order_of_their_names():
    goal = np.array([[[7.0, 8.0]]])
    agent = np.arange(4.0).reshape(1, 2, 2)
    expected = [[0, 1, 2, 3, 7, 8]]
    np.testing.assert_array_equal(encode({"goal": goal, "agent": agent}), expected)
    np.testing.assert_array_equal(encode({"agent": agent, "goal": goal}), expected)


def test_waves_of_the_inputs_by_hand():
    observation = {"state": np.array([[[0.25, -0.5]]])}
    y = ObservationEncoder(frequencies=2, width=0).apply({}, observation)
    angles = np.pi * np.array([0.25, 0.5, -0.5, -1.0])
    expected = np.concatenate([[0.25, -0.5], np.sin(angles), np.cos(angles)])
    np.testing.assert_allclose(y[0], expected, atol=1e-6)


def test_a_hidden_layer_by_hand():
    observation = {"state": np.array([[[0.25, -0.5]], [[0.1, 0.2]]])}
    encoder = ObservationEncoder(width=12, depth=1)
    y, params = encoder.init_with_output(jax.random.key(0), observation)
    assert y.shape == (2, 12)
    hidden, out = params["params"]["hidden_0"], params["params"]["out"]
    x = ObservationEncoder(width=0).apply({}, observation) @ hidden["kernel"] + hidden["bias"]
    x = x * np.tanh(np.log1p(np.exp(x)))
    np.testing.assert_allclose(y, x @ out["kernel"] + out["bias"], atol=1e-5)


def test_without_waves_and_layers_it_has_no_parameters_and_gives_float32():
    observation = {"a": np.ones((3, 2, 4), np.float64), "b": np.ones((3, 1, 1), np.int32)}
    encoder = ObservationEncoder(frequencies=0, width=0)
    y, params = encoder.init_with_output(jax.random.key(0), observation)
    assert not params
    assert y.shape == (3, 9)
    assert y.dtype == jnp.float32


@pytest.mark.parametrize(
    "observation, message",
    [
        ({}, "observation is empty"),
        ({"goal": np.zeros((3, 2))}, r"'goal' has shape \(3, 2\); expected \[B, T, d\]"),
        (
            {"agent": np.zeros((3, 1, 2)), "goal": np.zeros((2, 1, 2))},
            "'goal' has batch size 2, but 'agent' has 3",
        ),
    ],
)
def test_bad_observations_are_named(observation, message):
    with pytest.raises(ValueError, match=message):
        encode(observation)
