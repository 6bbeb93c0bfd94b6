import numpy as np
import pytest
import tensorflow_datasets as tfds

from ambient_jax.data import features


def test_flatten_and_nest_are_inverse():
    tree = {"steps": {"observation": {"state": 1}, "action": 2}, "meta": 3}
    flat = features.flatten(tree)
    assert flat == {"steps/observation/state": 1, "steps/action": 2, "meta": 3}
    assert features.nest(flat) == tree


def test_rlds_features_have_the_standard_fields_and_those_asked_for():
    vector = np.zeros(2, np.float32)
    made = features.rlds_features(
        {"state": vector, "text": str},
        np.zeros(3, np.float32),
        step_extra={"cost": np.float32},
        episode_metadata={"seed": np.int64},
    )
    step = made["steps"].feature
    standard = {"is_first", "is_last", "is_terminal", "reward", "discount"}
    assert set(step) == {"observation", "action", "cost"} | standard
    assert step["observation"]["state"].shape == (2,) and step["action"].shape == (3,)
    assert isinstance(step["observation"]["text"], tfds.features.Text)
    assert made["episode_metadata"]["seed"].np_dtype == np.int64


def test_a_field_that_describes_nothing_is_refused():
    with pytest.raises((TypeError, ValueError)):
        features.rlds_features({"state": object()}, np.zeros(3, np.float32))
