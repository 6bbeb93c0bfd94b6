"""The input "is_clean": the role of a source, from the data to the policy that asks for clean."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax import mixing, schedules
from ambient_jax.annotate import classifier
from ambient_jax.data import device, pipeline
from ambient_jax.data import mixture as mixtures
from ambient_jax.evaluate import evaluation
from ambient_jax.policy.policy import Policy, RecedingHorizon
from ambient_jax.train import config as config_lib
from ambient_jax.train import trainer
from ambient_jax.transforms.chain import Chain
from ambient_jax.transforms.normalizer import Normalizer
from ambient_jax.transforms.steps import Role

SEEN = ("state", "goal", "is_clean")
TWO = {"demos": ([5, 6], "clean", {}), "rrt": ([7, 8, 9], "corrupt", {"sigma_min": 0.3})}


def chain():
    ones = {"action": np.ones(2), "observation/state": np.ones(3)}
    maps = Normalizer("gaussian", {n: 0 * v for n, v in ones.items()}, ones)
    return Chain(maps, (Role(("demos", "rrt"), (True, False)),))


class Obedient(nn.Module):
    """Knows the chunk: 1 where it is told that data are clean, else -1."""

    @nn.compact
    def __call__(self, x_t, sigma, observation):
        assert observation["is_clean"].shape == (len(x_t), 2, 1)
        return jnp.ones_like(x_t) * (2 * observation["is_clean"][:, -1:] - 1)


def obedient(chain):
    return Policy(Obedient(), {}, chain, horizon=4, history=2, prediction="x0", steps=2)


def test_a_policy_asks_for_clean_data_unless_told_otherwise():
    policy, seen = obedient(chain()), {"state": np.zeros((3, 2, 3))}
    sign = lambda p, **more: np.unique(np.round(p({**seen, **more}, 0), 4)).tolist()  # noqa: E731
    assert sign(policy) == sign(policy, is_clean=1) == sign(policy, is_clean=np.True_) == [1]
    assert sign(policy, is_clean=0) == sign(policy, is_clean=np.zeros((3, 2, 1))) == [-1]
    mixed = policy(
        seen | {"is_clean": np.array([1.0, 0, 1])[:, None, None] * np.ones((3, 2, 1))}, 0
    )
    np.testing.assert_allclose(np.sign(mixed)[:, 0, 0], [1, -1, 1])
    # The policy of a corrupt source asks for its data; one of no source asks for clean data.
    asked = {name: sign(obedient(chain().for_source(name))) for name in ("demos", "rrt", None)}
    assert asked == {"demos": [1], "rrt": [-1], None: [1]}
    again = Chain.from_json(chain().to_json())
    assert again.steps == chain().steps and json.loads(again.to_json())
    assert sign(obedient(again.for_source("rrt"))) == [-1]


def test_compiled_code_and_control_ask_as_well():
    policy = obedient(chain())
    keys = jax.random.split(jax.random.key(0), 3)
    plan = jax.jit(lambda o, k: policy.chunk({}, o, k))
    np.testing.assert_allclose(plan({"state": jnp.zeros((3, 2, 3))}, keys), 1, atol=1e-4)
    told = {"state": jnp.zeros((3, 2, 3)), "is_clean": jnp.zeros((3, 2, 1))}
    np.testing.assert_allclose(plan(told, keys), -1, atol=1e-4)
    actions = RecedingHorizon(policy, execute=2)({"state": np.zeros((3, 3))}, 0)
    np.testing.assert_allclose(actions, 1, atol=1e-4)


@pytest.mark.parametrize(
    "value, shape",
    [(0.5, r"\(\)"), (np.ones((3, 2)), r"\(3, 2\)"), (np.full((3, 2, 1), 2.0), r"\(3, 2, 1\)")],
)
def test_another_value_is_refused(value, shape):
    seen = {"state": np.zeros((3, 2, 3)), "is_clean": value}
    with pytest.raises(ValueError, match=f"'is_clean' has shape {shape}.*a number or .3, 2, 1."):
        obedient(chain())(seen, 0)


def of_a_batch(batch):
    told, source = np.asarray(batch["observation"]["is_clean"]), np.asarray(batch["source"])
    assert told.dtype == np.float32 and told.shape == (len(source), 2, 1)
    np.testing.assert_array_equal(told[:, 0, 0], 1 - source)  # demos are source 0
    np.testing.assert_array_equal(told[:, 0], told[:, 1])
    assert set(source.tolist()) == {0, 1}


@pytest.mark.parametrize("per", ["mixture", "source"])
def test_batches_have_the_role_of_their_source(make_config, per):
    # Statistics of a source know no difference within it: the role is not normalised.
    options = dict(observation=SEEN, normalization="bounds", normalize_per=per)
    law, vp = mixing.CoTraining(), schedules.vp()
    mixture = mixtures.open_mixture(make_config(TWO, **options), law)
    assert mixture.chain.dims == {"state": 2, "goal": 1}
    assert mixture.observation_shapes["is_clean"].shape == (2, 1)
    data = jax.tree.map(jnp.asarray, device.load_device_data(mixture))
    of_a_batch(jax.jit(mixture.sampler(law, vp))(data, jax.random.key(0), 0, jnp.arange(64)))
    config = make_config(TWO, placement="stream", shuffle_window=20, prefetch=0, **options)
    stream = pipeline.stream_batches(pipeline.open_mixture(config, law), law, vp, seed=0,
                                     batch_size=32)  # fmt: skip
    of_a_batch(next(stream))
    stream.close()


def test_a_field_of_the_data_with_this_name_is_refused(make_config, write_source):
    config = make_config(TWO, observation=SEEN)
    length = {"observation": {"state": np.zeros((5, 2), "f4"), "goal": np.zeros((5, 1), "f4"),
                              "is_clean": np.ones((5, 1), "f4")},
              "action": np.zeros((5, 2), "f4")}  # fmt: skip
    flags = {n: np.zeros(5, bool) for n in ("is_first", "is_last", "is_terminal")}
    more = flags | {n: np.zeros(5, np.float32) for n in ("reward", "discount")}
    write_source("demos", [{"steps": length | more}], overwrite=True)
    with pytest.raises(ValueError, match="source 'demos' has an observation 'is_clean' of its own"):
        mixtures.open_mixture(config, mixing.CoTraining())
    config.observation = ("state", "goal")
    mixtures.open_mixture(config, mixing.CoTraining())  # without the input it is only a field


@pytest.fixture(scope="module")
def trained(toy_data, tmp_path_factory):
    config = config_lib.default()
    config.data.sources.good = config_lib.source(toy_data["good"], "clean")
    config.data.sources.bad = config_lib.source(toy_data["bad"], "corrupt")
    config.data.observation, config.data.horizon, config.law.name = SEEN, 8, "cotraining"
    config.model.update({"features": (8,), "groups": 2, "blocks": 1, "embed_dim": 16})
    config.train.update(dict(steps=4, warmup=1, batch_size=16, checkpoint_every=4))
    workdir = tmp_path_factory.mktemp("told")
    trainer.train(config, workdir)
    return workdir, config


@pytest.mark.slow
def test_checkpoints_keep_the_roles_and_evaluation_uses_them(trained):
    workdir, config = trained
    policy, corrupt = (Policy.from_checkpoint(workdir, source=n) for n in (None, "bad"))
    assert (policy.chain.steps[-1].asked, corrupt.chain.steps[-1].asked) == (1, 0)
    seen = {"state": np.zeros((2, 2, 2)), "goal": np.ones((2, 2, 2))}
    default = np.asarray(policy(seen, 0))
    np.testing.assert_array_equal(policy(seen | {"is_clean": 1}, 0), default)
    np.testing.assert_array_equal(corrupt(seen, 0), policy(seen | {"is_clean": 0}, 0))
    assert not np.array_equal(corrupt(seen, 0), default)
    # Chunks of the corrupt source are judged as its own, unless one asks otherwise.
    source = mixtures.open_source(config.data, "bad", last_step="keep")
    chunks = evaluation.recorded(source, corrupt, episodes=4, samples=32)
    assert "is_clean" not in chunks.observation
    loss = evaluation.row_losses(corrupt, chunks, levels=(0.3, 0.8))
    told = chunks._replace(observation=chunks.observation | {"is_clean": 0})
    np.testing.assert_array_equal(evaluation.row_losses(policy, told, levels=(0.3, 0.8)), loss)
    assert not np.array_equal(evaluation.row_losses(policy, chunks, levels=(0.3, 0.8)), loss)


def test_an_observing_classifier_is_not_told(make_config):
    mixture = mixtures.open_mixture(make_config(TWO, observation=SEEN), mixing.CoTraining())
    data = device.load_device_data(mixture)
    assert set(data.constants) == {"observation/is_clean"}
    judged = classifier._on_device(data, classifier.Options(observed=True))
    assert not judged.constants
    assert set(judged.steps) == {"action", "observation/state", "observation/goal"}
