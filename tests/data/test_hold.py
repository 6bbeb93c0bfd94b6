"""Past the end of its episode a robot stands still: positions stay, displacements are zero."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ambient_jax import mixing, schedules
from ambient_jax.data import chunk, device, pipeline, rlds
from ambient_jax.data import mixture as mixtures
from ambient_jax.data.features import leaves
from ambient_jax.evaluate import evaluation
from ambient_jax.open_x import fixtures, registry, standardize
from ambient_jax.train import config as train_config
from ambient_jax.train import trainer

LAW, VP = mixing.CoTraining(), schedules.vp()
# What each rotation of the common form has at rest: no turn, by SciPy.
NO_TURN = {
    "rpy": Rotation.identity().as_euler("xyz"),
    "rotvec": Rotation.identity().as_rotvec(),
    "quat": Rotation.identity().as_quat(),
    "rot6d": Rotation.identity().as_matrix()[:, :2].T.ravel(),
}


def episode(seed, length, width=8):
    rng = np.random.default_rng(seed)
    action = rng.uniform(0.2, 0.4, (length, width)).astype(np.float32)
    action[:, 3:7] /= np.linalg.norm(action[:, 3:7], axis=1, keepdims=True)
    action[:, 7] = rng.integers(0, 2, length)
    flags = {n: np.zeros(length, bool) for n in ("is_first", "is_last", "is_terminal")}
    rewards = {n: np.zeros(length, np.float32) for n in ("reward", "discount")}
    observation = {"state": action[:, :2] + 1, "goal": action[:, :1]}
    return {"steps": {"observation": observation, "action": action, **flags, **rewards}}


EPISODES = [episode(0, 5), episode(1, 3), episode(2, 7)]
ARM = {"hz": 10, "action": "xyz action[0:3]; quat action[3:7]; grip action[7]"}
JOINTS = {"hz": 10, "action": "joint action[0:7]; grip action[7]"}


def of_specs(make_config, specs, rotation="rpy", hz=None, width=10, **fields):
    given = {n: (EPISODES, "clean", {"open_x": s}) for n, s in specs.items()}
    fields = {"history": 1, "horizon": 6, "padding": "hold", "observation": ("state",), **fields}
    config = make_config(given, **fields)
    config.open_x.update(rotation=rotation, action_width=width, state_width=2, hz=hz)
    return config


def with_state(spec):
    return spec | {"state": "observation/state"}


def past_the_end(mixture, batch):
    """Actions past the end and the last one before, in data units, of one source at a time."""
    source, number, step = np.asarray(batch["id"]).T
    lengths = [mixture.statistics[n].lengths for n in mixture.names]
    left = np.array([lengths[k][e] - t for k, e, t in zip(source, number, step, strict=True)])
    for k in range(len(mixture.names)):
        index = k if mixture.normalizer.sources else None
        actions = np.asarray(batch["action"])
        for row in np.flatnonzero((source == k) & (left < actions.shape[1])):
            path = mixture.normalizer.unnormalize("action", actions[row], index)
            yield mixture.names[k], path[left[row] - 1], path[left[row] :]


@pytest.mark.parametrize("per", ["mixture", "source"])
@pytest.mark.parametrize("kind", ["bounds", "gaussian", "none"])
def test_both_placements_stand_still(make_config, kind, per):
    """Displacements are zero in data units, whatever zero is when normalised."""
    specs = {"arm": with_state(ARM), "joints": with_state(JOINTS)}
    config = of_specs(make_config, specs, normalization=kind, normalize_per=per)
    mixture = mixtures.open_mixture(config, LAW)
    data = device.load_device_data(mixture)
    stream = pipeline.stream_batches(mixture, LAW, VP, seed=0, batch_size=128)
    drawn = jax.jit(mixture.sampler(LAW, VP))(data, jax.random.key(0), 0, jnp.arange(128))
    streamed = next(stream)
    stream.close()
    assert "still" not in streamed and set(drawn) == set(streamed)
    for batch in (drawn, streamed):
        assert np.all(batch["mask"])
        seen = set()
        for name, last, after in past_the_end(mixture, batch):
            seen.add(name)
            wanted = np.tile(last, (len(after), 1))
            if name == "arm":  # xyz and rpy
                wanted[:, :6] = 0
            np.testing.assert_allclose(after, wanted, atol=1e-5)
        assert seen == {"arm", "joints"}


@pytest.mark.parametrize("hz", [None, 5, 4])
@pytest.mark.parametrize("rotation", NO_TURN)
def test_no_turn_in_every_rotation(make_config, rotation, hz):
    config = of_specs(make_config, {"arm": with_state(ARM)}, rotation, hz, horizon=3)
    mixture = mixtures.open_mixture(config, LAW)
    index, stored = next(mixture.datasets["arm"].stream(0))
    arrays = mixture.read(0, index, stored)
    length = len(arrays["action"])
    turn = NO_TURN[rotation]
    for at in range(length):
        _, action, mask = chunk.gather(
            arrays, np.array([at]), np.array([0]), np.array([length]), 1, 9, np, "hold"
        )
        assert mask.all()
        np.testing.assert_array_equal(action[0, : length - at], arrays["action"][at:])
        after = action[0, length - at :]
        np.testing.assert_array_equal(after[:, :3], 0)
        np.testing.assert_allclose(after[:, 3 : 3 + len(turn)], np.tile(turn, (len(after), 1)))
        rest = slice(3 + len(turn), None)  # the gripper, and padding
        stays = np.tile(arrays["action"][-1, rest], (len(after), 1))
        np.testing.assert_array_equal(after[:, rest], stays)


def test_masks_and_the_mask_padding_are_as_before(make_config):
    for padding in ("mask", "hold"):
        config = of_specs(make_config, {"joints": with_state(JOINTS)}, padding=padding)
        mixture = mixtures.open_mixture(config, LAW)
        index, stored = next(mixture.datasets["joints"].stream(0))
        assert chunk.STILL not in mixture.read(0, index, stored)  # positions alone: no memory
    config = of_specs(make_config, {"arm": with_state(ARM)}, padding="mask")
    mixture = mixtures.open_mixture(config, LAW)
    assert chunk.STILL not in device.load_device_data(mixture).steps


@pytest.mark.parametrize("name", registry.data_sets())
def test_rest_of_every_row(name):
    """Written from what the kinds of parts mean: what moves is at rest at 0, the others stay."""
    spec = registry.get(name).spec
    features = fixtures.features(name)
    rest, at = standardize.rest(spec, features), 0
    there = standardize.action_mask(spec, features)
    assert np.isnan(rest[~there]).all() and rest.shape == there.shape
    for part in spec.action:
        width = 3 if part.kind == "xyz" or part.is_rotation else 1
        if part.kind in ("joint", "djoint", "base"):
            (stored,) = leaves(features)[part.field.key].shape
            width = len(range(stored)[slice(*part.field.window)])
        own, has = rest[at : at + width], there[at : at + width]
        stays = part.kind in ("grip", "joint")
        assert np.isnan(own[has]).all() if stays else (own[has] == 0).all()
        at += width


@pytest.fixture
def plain(make_config):
    def make(**fields):
        fields = {"horizon": 6, "padding": "hold", "normalization": "bounds", **fields}
        return make_config({"a": (EPISODES, "clean", {})}, **fields)

    return make


@pytest.mark.parametrize("delta", [(), (0, 1, 2), (7, 3)])
def test_plain_sources_by_their_field(plain, delta):
    mixture = mixtures.open_mixture(plain(delta=delta), LAW)
    batch = jax.jit(mixture.sampler(LAW, VP))(
        device.load_device_data(mixture), jax.random.key(0), 0, jnp.arange(64)
    )
    found = list(past_the_end(mixture, batch))
    for _, last, after in found:
        wanted = np.tile(last, (len(after), 1))
        wanted[:, list(delta)] = 0
        np.testing.assert_allclose(after, wanted, atol=1e-6)
    assert found
    shape = types.SimpleNamespace(chain=mixture.chain, history=1, horizon=6)
    chunks = evaluation.recorded(mixture.datasets["a"], shape, padding="hold")
    for (number, step), actions in zip(chunks.origin, chunks.action, strict=True):
        own = rlds.open_dataset(mixture.datasets["a"].directory)[int(number)]["steps"]["action"]
        wanted = np.tile(own[-1], (6, 1))
        wanted[:, list(delta)] = 0
        wanted[: len(own) - step] = own[step : step + 6]
        np.testing.assert_array_equal(actions, wanted)


def test_evaluation_of_a_common_form(make_config):
    mixture = mixtures.open_mixture(of_specs(make_config, {"arm": with_state(ARM)}, "quat"), LAW)
    shape = types.SimpleNamespace(chain=mixture.chain, history=1, horizon=6)
    chunks = evaluation.recorded(mixture.datasets["arm"], shape, padding="hold")
    ends = chunks.action[:, -1][chunks.origin[:, 1] >= 2]  # 6 steps from there no episode has
    np.testing.assert_array_equal(ends[:, :7], np.tile([0, 0, 0, 0, 0, 0, 1], (len(ends), 1)))


def test_untold_it_is_said_and_training_refuses(plain, caplog):
    config = train_config.default()
    config.data = plain()
    mixture = mixtures.open_mixture(config.data, LAW)
    assert "config.data.delta does not state which" in caplog.records[-1].getMessage()
    index, stored = next(mixture.datasets["a"].stream(0))
    assert chunk.STILL not in mixture.read(0, index, stored)
    config.policy.execute = 4
    config.data.root = "/nowhere"  # it is refused before a file is opened
    with pytest.raises(ValueError, match="padding is 'hold'.*set it to \\(\\), none"):
        trainer.assemble(config, None)


def test_standing_still_is_the_formula():
    action = np.array([[1.0, 2, 3], [4, 5, 6]])
    rest = np.array([0, np.nan, 1])
    assert chunk.standing_still(action, rest).tolist() == [[0, 2, 1], [0, 5, 1]]
    moved = chunk.standing_still(action, rest, np.array([-1.0, 9, 0.5]))
    assert moved.tolist() == [[-1, 2, 0.5], [-1, 5, 0.5]]
