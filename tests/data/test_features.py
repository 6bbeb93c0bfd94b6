from ambient_jax.data import features


def test_flatten_and_nest_are_inverse():
    tree = {"steps": {"observation": {"state": 1}, "action": 2}, "meta": 3}
    flat = features.flatten(tree)
    assert flat == {"steps/observation/state": 1, "steps/action": 2, "meta": 3}
    assert features.nest(flat) == tree
