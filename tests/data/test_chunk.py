import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax.data import chunk

STARTS = [(0, 1), (1, 3), (3, 8), (8, 17)]  # episodes of 1, 2, 5 and 9 steps, one after the other


def brute_force(step, start, end, history, horizon):
    observed, acted, mask = [], [], []
    for t in range(step - history + 1, step + 1):
        observed.append(t if t >= start else start)
    for t in range(step, step + horizon):
        mask.append(t < end)
        acted.append(t if t < end else end - 1)
    return observed, acted, mask


@pytest.mark.parametrize("history", [1, 2, 4, 12])
@pytest.mark.parametrize("horizon", [1, 3, 8, 20])
def test_indices_and_mask_are_those_of_a_loop(history, horizon):
    cases = [(t, a, b) for a, b in STARTS for t in range(a, b)]
    expected = [brute_force(*c, history, horizon) for c in cases]
    step, start, end = np.array(cases).T
    batched = chunk.indices(step, start, end, history, horizon, np)
    kernel = functools.partial(chunk.indices, history=history, horizon=horizon)
    mapped = jax.jit(jax.vmap(kernel))(step, start, end)
    for i, parts in enumerate(expected):
        one = kernel(*cases[i])
        for k, part in enumerate(parts):
            for found in (batched[k][i], mapped[k][i], one[k]):
                assert np.asarray(found).tolist() == part


def test_padded_entries_are_all_masked():
    """At the last of 6 steps, horizon 4: one real action, three repeats of it."""
    _, acted, mask = chunk.indices(5, 0, 6, 2, 4, np)
    assert acted.tolist() == [5, 5, 5, 5]
    assert mask.tolist() == [True, False, False, False]


def test_gather_stays_inside_the_episode():
    owner = np.repeat(np.arange(4), [b - a for a, b in STARTS]).astype(np.float32)
    steps = {"action": owner[:, None], "observation/state": owner[:, None]}
    cases = np.array([(t, a, b) for a, b in STARTS for t in range(a, b)])
    observation, action, _ = chunk.gather(steps, *cases.T, 5, 7, np)
    assert np.all(observation["state"][..., 0] == owner[:, None])
    assert np.all(action[..., 0] == owner[:, None])


def test_gather_is_the_same_in_jax():
    rng = np.random.default_rng(0)
    steps = {"action": rng.normal(size=(17, 3)), "observation/a/b": rng.normal(size=(17, 2))}
    steps = {n: v.astype(np.float32) for n, v in steps.items()}
    cases = np.array([(t, a, b) for a, b in STARTS for t in range(a, b)])
    ours = chunk.gather(steps, *cases.T, 3, 4, np)
    cut = functools.partial(chunk.gather, history=3, horizon=4)
    theirs = jax.jit(jax.vmap(cut, in_axes=(None, 0, 0, 0)))(steps, *cases.T)
    assert ours[0]["a/b"].shape == (17, 3, 2)
    assert ours[1].shape == (17, 4, 3)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    one = cut(jax.tree.map(jnp.asarray, steps), *cases[9])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[9], b), ours, one)


def episode(**changes):
    steps = {
        "observation": {"state": np.arange(6.0).reshape(3, 2), "pose": {"arm": np.ones((3, 2, 2))}},
        "action": np.arange(3),
        "text": np.array([b"a", b"b", b"c"], object),
    }
    for path, value in changes.items():
        node = steps
        *parents, last = path.split("__")
        for parent in parents:
            node = node[parent]
        node[last] = value
    return {"steps": steps}


def read(raw, observation=("state", "pose/arm"), action="action"):
    return chunk.episode_arrays(raw, observation, action, source="demos", index=7)


def test_fields_become_vectors_of_float32():
    arrays = read(episode())
    assert {n: (v.shape, v.dtype.name) for n, v in arrays.items()} == {
        "action": ((3, 1), "float32"),
        "observation/state": ((3, 2), "float32"),
        "observation/pose/arm": ((3, 4), "float32"),
    }
    assert arrays["observation/state"][1].tolist() == [2, 3]


def test_an_empty_episode_stays_empty():
    empty = {"steps": {"observation": {"state": np.zeros((0, 2))}, "action": np.zeros((0, 3, 2))}}
    assert [v.shape for v in read(empty, ["state"]).values()] == [(0, 6), (0, 2)]


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        (
            {"action": np.array([0, np.nan, 1])},
            {},
            r"source 'demos', episode 7, step 1: steps/action\[0\] is nan, expected finite",
        ),
        (
            {"observation__state": np.array([[0, 1], [0, 1], [0, np.inf]])},
            {},
            r"episode 7, step 2: steps/observation/state\[1\] is inf",
        ),
        ({"action": np.array([0, 1e300, 1])}, {}, "step 1: .*is inf"),
        ({}, {"observation": ["stat"]}, "no 'stat', it has state, pose; did you mean 'state'"),
        ({}, {"action": "actions"}, "steps has no 'actions'.*did you mean 'action'"),
        ({}, {"observation": ["pose"]}, "steps/observation/pose is a dict of arm"),
        ({}, {"observation": ["state/x"]}, "steps/observation/state has no 'x'.*no fields"),
        ({}, {"action": "text"}, "steps/text has type object, expected numbers"),
        (
            {"observation__state": np.zeros((2, 2))},
            {},
            "observation/state has 2 steps, the action has 3",
        ),
    ],
)
def test_bad_episodes_are_named(changes, arguments, message):
    with pytest.raises(ValueError, match=message):
        read(episode(**changes), **arguments)
