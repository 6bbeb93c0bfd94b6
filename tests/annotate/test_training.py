"""The classifiers' batches, their moments, and what a pair's logit may see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax import schedules
from ambient_jax.annotate import pairs as pairs_lib
from ambient_jax.annotate import training
from ambient_jax.models.classifier import ChunkClassifier
from ambient_jax.models.observation import ObservationEncoder
from tests.annotate.test_pairs import make_data

VP = schedules.vp()
OPTIONS = training.Options(history=1, horizon=3, features=(4,), dropout=0.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"folds": 1}, "folds is 1, expected at least 2"),
        ({"crop": 17}, "crop is 17, expected 0 .all. to the horizon 16"),
        ({"crop": -1}, "crop is -1, expected"),
        ({"steps": 0}, "steps is 0, expected at least 1"),
        ({"patience": 0}, "patience is 0, expected at least 1"),
    ],
)
def test_impossible_options(fields, message):
    with pytest.raises(ValueError, match=message):
        training.Options(**fields)


def test_a_crop_is_what_the_classifier_sees():
    assert training.Options(horizon=8).length == 8
    assert training.Options(horizon=8, crop=3).length == 3


@pytest.fixture(scope="module")
def mixture():
    """Clean steps of 0, corrupt ones of 1 and of 2 in the first dimension, of 9 in the second."""
    chunks = [np.full((n, 2), (k, 9.0)) for k, n in enumerate((40, 20, 200))]
    data = make_data(*chunks, dims=[[1, 0], [1, 1], [1, 0]], length=5)
    pairs = pairs_lib.make(data)
    part = pairs_lib.split(data, pairs_lib.deal(data, 2), 2)[0]
    return data, {name: jax.tree.map(lambda x: x[0], value) for name, value in part.items()}, pairs


def test_half_of_a_batch_is_clean_and_each_corrupt_row_has_its_own_pair(mixture):
    data, part, pairs = mixture
    draw = lambda step: training.draw(  # noqa: E731
        data, part, pairs, jax.random.key(0), step, jnp.arange(4000), OPTIONS, VP
    )
    batch = jax.device_get(draw(0))
    first = batch["action"][:, :, 0]
    np.testing.assert_array_equal(first == first[:, :1], True)
    np.testing.assert_array_equal(batch["clean"], first[:, 0] == 0)
    corrupt = ~batch["clean"]
    np.testing.assert_array_equal(batch["pair"][corrupt], first[corrupt, 0] - 1)
    # Four standard deviations of a mean of 4000, or of half as many.
    assert abs(batch["clean"].mean() - 0.5) < 0.032
    for rows in (corrupt, ~corrupt):
        assert abs((batch["pair"][rows] == 0).mean() - 0.5) < 0.045
    assert not np.array_equal(batch["source"], draw(1)["source"])


def test_moments_are_those_of_each_pair_on_its_own_dimensions():
    rng = np.random.default_rng(0)
    sizes = {"clean": 0.0, "near": 1.0, "far": 3.0}
    chunks = [np.tile(rng.normal(size=(300, 1)), (1, 2)) + [s, 50.0] for s in sizes.values()]
    data = make_data(*chunks, dims=[[1, 0], [1, 0], [1, 0]])
    pairs = pairs_lib.make(data)
    part = pairs_lib.split(data, pairs_lib.deal(data, 2), 2)[0]
    part = {name: jax.tree.map(lambda x: x[0], value) for name, value in part.items()}
    options = training.Options(history=1, horizon=1, folds=2)
    found = training.measured(data, part, pairs, options, schedule=VP)
    assert found.moments.shape == (2, 1) and found.moments.dtype == np.float32
    for k, shift in enumerate((1.0, 3.0)):
        # Half clean of E x^2 = 1, half corrupt of 1 + shift^2; the second dimension is left out.
        np.testing.assert_allclose(found.moments[k, 0], 1 + shift**2 / 2, rtol=0.2)


def test_a_logit_is_that_of_its_rows_pair_and_of_its_dimensions(mixture):
    _, _, pairs = mixture
    mask = np.array([[1, 0], [0, 1]], np.float32)
    pairs = pairs._replace(mask=jnp.asarray(mask), moments=jnp.ones((2, 1)))
    alike = pairs._replace(mask=jnp.ones((2, 2)))
    classifier, encoder = ChunkClassifier(features=(4,), heads=2), ObservationEncoder(2, 8, 1)
    network = training.Network(classifier, encoder)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 3, 2)).astype(np.float32)
    seen = {"state": rng.normal(size=(4, 1, 2)).astype(np.float32)}
    inputs = jax.random.key(0), x, jnp.ones((4, 1)), seen
    shapes = jax.eval_shape(network.init, *inputs)
    params = jax.tree.map(lambda leaf: 0.5 * rng.normal(size=leaf.shape).astype("f4"), shapes)
    unseeing = jax.eval_shape(training.Network(classifier, None).init, *inputs)
    assert set(params) == {"encoder", "classifier"} and set(unseeing) == {"classifier"}
    sigma, pair = jnp.full(4, 0.3), jnp.array([0, 1, 0, 1])

    @jax.jit
    def logits(x, pair, seen, pairs):
        return network.apply(params, x, sigma, pair, pairs, seen)

    own, inside = logits(x, pair, seen, pairs), mask[np.asarray(pair)][:, None]
    assert own.shape == (4,)
    np.testing.assert_allclose(logits(x + 5 * (1 - inside), pair, seen, pairs), own, atol=1e-6)
    for other in (logits(x + 5 * inside, pair, seen, pairs), logits(x, 1 - pair, seen, pairs)):
        assert (np.abs(other - own) > 1e-5).all()
    same = [logits(x, pair, seen, alike), logits(x, 1 - pair, seen, alike)]
    assert (np.abs(same[0] - same[1]) > 1e-5).all()  # each pair has a head of its own
    changed = {"state": seen["state"] + 1}
    assert (np.abs(logits(x, pair, changed, pairs) - own) > 1e-6).all()
