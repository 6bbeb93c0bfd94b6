"""The policy in data units, its checks, and the receding horizon around it."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ambient_jax import schedules
from ambient_jax.data.normalizer import Normalizer
from ambient_jax.models.denoiser import build_denoiser
from ambient_jax.policy import solvers
from ambient_jax.policy.inpainting import Inpainting
from ambient_jax.policy.policy import Policy, RecedingHorizon
from ambient_jax.train import checkpoint
from ambient_jax.train import config as config_lib
from ambient_jax.train import state as state_lib

HORIZON, HISTORY = 16, 2
NORMALIZER = Normalizer(
    "bounds",
    {
        "action": np.float32([1.0, -2.0]),
        "observation/state": np.float32([0.5, 0.5, 3.0]),
        "observation/goal": np.float32([2.0, 2.0]),
    },
    {
        "action": np.float32([2.0, 0.5]),
        "observation/state": np.float32([4.0, 1.0, 2.0]),
        "observation/goal": np.float32([1.0, 5.0]),
    },
)


class KnownAnswer(nn.Module):
    """Knows the chunk: x0[h] = gain (normalised goal - newest normalised state) + 0.01 h."""

    @nn.compact
    def __call__(self, x_t, sigma, observation):
        gain = self.param("gain", lambda _: jnp.float32(0.5))
        state, goal = observation["state"], observation["goal"]
        x0 = gain * (goal[:, -1] - state[:, -1, :2])[:, None]
        x0 = x0 + 0.01 * jnp.arange(HORIZON)[None, :, None] + 0 * x_t
        level = sigma[:, None, None]
        return (x_t - schedules.signal(level) * x0) / level  # eps


class Unsure(KnownAnswer):
    """x0 ~ N(known answer, 0.04): chunks differ from key to key."""

    @nn.compact
    def __call__(self, x_t, sigma, observation):
        eps = super().__call__(x_t, sigma, observation)
        level = sigma[:, None, None]
        a = schedules.signal(level)
        centre = (x_t - level * eps) / a
        return level * (x_t - a * centre) / (0.04 * a**2 + level**2)


def make(model=None, **options):
    options = {"steps": 4, "horizon": HORIZON, "history": HISTORY, **options}
    return Policy(model or KnownAnswer(), {"gain": jnp.float32(0.5)}, NORMALIZER, **options)


def observation(batch=5, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "state": rng.normal(size=(batch, HISTORY, 3)),
        "goal": rng.normal(size=(batch, HISTORY, 2)),
    }


def answer(state, goal):
    """The known chunk [N, H, 2] in data units, from the newest observations in data units."""
    state, goal = (state - [0.5, 0.5, 3.0]) / [4.0, 1.0, 2.0], (goal - 2.0) / [1.0, 5.0]
    x0 = 0.5 * (goal - state[:, :2])[:, None] + 0.01 * np.arange(HORIZON)[None, :, None]
    return x0 * [2.0, 0.5] + [1.0, -2.0]


@pytest.mark.parametrize("solver", ("ddpm", "ddim", "heun", "dpmpp_2m"))
@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_observations_and_actions_are_in_data_units(name, solver):
    policy = make(solver=solver, schedule=schedules.get(name))
    seen = observation()
    got = policy(seen, jax.random.key(0))
    assert got.shape == (5, HORIZON, 2) and got.dtype == jnp.float32
    np.testing.assert_allclose(got, answer(seen["state"][:, -1], seen["goal"][:, -1]), atol=1e-3)


def test_row_keys_make_rows_independent_of_their_batch():
    policy, seen, key = make(Unsure()), observation(), jax.random.key(3)
    whole = policy(seen, key)
    np.testing.assert_array_equal(policy(seen, key), whole)
    assert not np.allclose(policy(seen, jax.random.key(4)), whole)
    two = {name: value[2:4] for name, value in seen.items()}
    rows = jnp.stack([jax.random.fold_in(key, i) for i in (2, 3)])
    np.testing.assert_allclose(policy(two, rows), whole[2:4], atol=1e-5)
    same = {name: np.repeat(value[:1], 5, 0) for name, value in seen.items()}
    chunks = policy(same, key)
    assert np.asarray(chunks).std(axis=0).min() > 0.02  # each row its own noise


def test_compiles_once_for_a_batch_size():
    traces = []

    class Counting(KnownAnswer):
        def __call__(self, x_t, sigma, observation):
            traces.append(x_t.shape)
            return super().__call__(x_t, sigma, observation)

    policy = make(Counting())
    policy(observation(), jax.random.key(0))
    count = len(traces)
    for seed in range(3):
        policy(observation(seed=seed), jax.random.key(seed))
    assert len(traces) == count > 0
    policy(observation(2), jax.random.key(0))
    assert len(traces) > count


def test_the_pure_form_goes_into_other_jitted_code():
    policy, seen = make(Unsure()), observation()
    keys = jax.random.split(jax.random.key(0), 5)
    got = jax.jit(lambda p, o, k: policy.chunk(p, o, k) * 2)(policy.params, seen, keys)
    np.testing.assert_allclose(got, 2 * policy(seen, keys), rtol=1e-5, atol=1e-5)


def test_clip_bounds_actions_in_normalised_units():
    policy = make(clip=0.1)
    normalised = (np.asarray(policy(observation(), jax.random.key(0))) - [1, -2]) / [2, 0.5]
    assert np.abs(normalised).max() <= 0.1 + 1e-5


@pytest.mark.parametrize("solver", solvers.SOLVERS)
def test_known_actions(solver):
    """In data units: of weight 1 they are returned bit for bit, also beyond the solver's clip; of
    weight 0 in all rows nothing changes, bit for bit; between, the samples come nearer."""
    policy, seen, key = make(Unsure(), solver=solver, clip=0.9), observation(), jax.random.key(0)
    plain = np.asarray(policy(seen, key))
    known = plain + np.float32(0.2 * np.random.default_rng(1).normal(size=plain.shape))
    known[:, :4] += 3
    np.testing.assert_array_equal(policy(seen, key, known=known, weights=np.zeros((5, 16))), plain)
    weights = np.tile(np.float32([1] * 4 + [0.5] * 4 + [0] * 8), (5, 1))
    got = np.asarray(policy(seen, key, known=known, weights=weights))
    np.testing.assert_array_equal(got[:, :4], known[:, :4])
    soft = slice(4, 8)
    assert np.abs((got - known)[:, soft]).mean() < 0.9 * np.abs((plain - known)[:, soft]).mean()
    # Entries of this policy are independent: those that know nothing stay as they were.
    np.testing.assert_allclose(got[:, 8:], plain[:, 8:], atol=1e-4)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(5))
    pure = policy.chunk(policy.params, seen, keys, known=known, weights=weights)
    np.testing.assert_allclose(pure, got, atol=1e-5)


def test_known_actions_compile_once_for_a_batch_size():
    traces = []

    class Counting(Unsure):
        def __call__(self, x_t, sigma, observation):
            traces.append(x_t.shape)
            return super().__call__(x_t, sigma, observation)

    policy, known = make(Counting()), np.zeros((5, HORIZON, 2))
    policy(observation(), 0, known=known, weights=np.ones((5, HORIZON)))
    count = len(traces)
    for seed in range(3):
        weights = np.full((5, HORIZON), 0.3 * (seed + 1))
        policy(observation(seed=seed), seed, known=known + seed, weights=weights)
    assert len(traces) == count > 0
    with pytest.raises(ValueError, match=r"known has shape \(5, 16, 3\), expected \(5, 16, 2\)"):
        policy(observation(), 0, known=np.zeros((5, 16, 3)), weights=np.zeros((5, 16)))


def test_wrong_observations_are_named():
    policy, seen, key = make(), observation(), jax.random.key(0)
    with pytest.raises(ValueError, match=r"observation is 'stat', .*did you mean 'state'\?"):
        policy({"stat": seen["state"], "goal": seen["goal"]}, key)
    with pytest.raises(ValueError, match="observation 'goal' is missing, .*; came state"):
        policy({"state": seen["state"]}, key)
    with pytest.raises(ValueError, match=r"'state' has shape \(5, 3\), expected \(5, 2, 3\)"):
        policy({**seen, "state": seen["state"][:, -1]}, key)
    with pytest.raises(ValueError, match=r"'goal' has shape \(4, 2, 2\), expected \(5, 2, 2\)"):
        policy({**seen, "goal": seen["goal"][:4]}, key)
    with pytest.raises(ValueError, match=r"'state' has shape \(5, 2, 2\), expected \(5, 2, 3\)"):
        policy({**seen, "state": seen["state"][..., :2]}, key)
    with pytest.raises(ValueError, match=r"'state' has shape \(\), expected \(B, 2, 3\)"):
        policy({**seen, "state": 1.0}, key)
    with pytest.raises(ValueError, match="the observation is empty, expected state, goal"):
        policy({name: value[:0] for name, value in seen.items()}, key)
    for bad in (np.nan, np.inf):
        broken = {**seen, "goal": seen["goal"].copy()}
        broken["goal"][3, 1, 0] = bad
        with pytest.raises(ValueError, match="'goal' of environment 3 is not finite .1 of 5"):
            policy(broken, key)
    with pytest.raises(ValueError, match="key has 4 keys, expected one, or one for each of 5"):
        policy(seen, jax.random.split(key, 4))


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match=r"solver is 'huen'.*did you mean 'heun'\?"):
        make(solver="huen")
    per_source = Normalizer("none", {"action": np.zeros((2, 2))}, {}, ("clean", "sim"))
    with pytest.raises(ValueError, match="map for each of clean, sim.*for_source"):
        dataclasses.replace(make(), chain=per_source)


class Recorder:
    """A policy whose chunk tells what it was given."""

    history, horizon = 3, 4

    def __init__(self):
        self.seen = []

    def check(self, observation, between):
        assert between == ()
        return {name: np.asarray(value, np.float32) for name, value in observation.items()}

    def __call__(self, observation, key):
        self.seen.append(observation["x"][..., 0].copy())
        n = len(observation["x"])
        return np.arange(n * self.horizon, dtype=np.float32).reshape(n, self.horizon, 1)


def test_histories_start_with_the_first_observation_repeated_and_then_move():
    recorder = Recorder()
    control = RecedingHorizon(recorder, execute=2)
    actions = control({"x": np.array([[1.0], [10.0]])}, None)
    assert isinstance(actions, np.ndarray) and actions.shape == (2, 2, 1)
    np.testing.assert_array_equal(actions[..., 0], [[0, 1], [4, 5]])
    np.testing.assert_array_equal(recorder.seen[-1], [[1, 1, 1], [10, 10, 10]])
    control.observe({"x": np.array([[2.0], [20.0]])})
    control({"x": np.array([[3.0], [30.0]])}, None)
    np.testing.assert_array_equal(recorder.seen[-1], [[1, 2, 3], [10, 20, 30]])
    control.observe({"x": np.array([[4.0], [40.0]])})
    control.plan(None)
    np.testing.assert_array_equal(recorder.seen[-1], [[2, 3, 4], [20, 30, 40]])


def test_reset_of_some_environments_restarts_their_history_only():
    recorder = Recorder()
    control = RecedingHorizon(recorder, execute=2)
    for step in range(3):
        control.observe({"x": np.array([[1.0], [10.0]]) * (step + 1)})
    control.reset(np.array([False, True]))
    with pytest.raises(ValueError, match="nothing was observed in environment 1 since the reset"):
        control.plan(None)
    control({"x": np.array([[4.0], [70.0]])}, None)
    np.testing.assert_array_equal(recorder.seen[-1], [[2, 3, 4], [70, 70, 70]])
    control({"x": np.array([[5.0], [80.0]])}, None)
    np.testing.assert_array_equal(recorder.seen[-1], [[3, 4, 5], [70, 70, 80]])
    control.reset()
    control({"x": np.array([[7.0]])}, None)  # and another number of environments
    np.testing.assert_array_equal(recorder.seen[-1], [[7, 7, 7]])


def test_receding_horizon_matches_the_policy():
    policy, key = make(Unsure()), jax.random.key(7)
    seen = observation()
    control = RecedingHorizon(policy, execute=8)
    control.observe({name: value[:, 0] for name, value in seen.items()})
    got = control({name: value[:, 1] for name, value in seen.items()}, key)
    np.testing.assert_array_equal(got, np.asarray(policy(seen, key))[:, :8])


def test_receding_horizon_errors():
    policy = make()
    with pytest.raises(ValueError, match="execute is 17, expected 1 to 16"):
        RecedingHorizon(policy, execute=17)
    control = RecedingHorizon(policy)
    with pytest.raises(ValueError, match="nothing was observed since the reset"):
        control.plan(jax.random.key(0))
    newest = {name: value[:, -1] for name, value in observation().items()}
    with pytest.raises(ValueError, match=r"'state' has shape \(5, 2, 3\), expected \(5, 3\)"):
        control.observe({**newest, "state": observation()["state"]})
    broken = {**newest, "state": newest["state"].copy()}
    broken["state"][4, 2] = np.nan
    with pytest.raises(ValueError, match="'state' of environment 4 is not finite"):
        control.observe(broken)
    control.observe(newest)
    with pytest.raises(ValueError, match="observations of 3 environments came, expected 5"):
        control.observe({name: value[:3] for name, value in newest.items()})
    with pytest.raises(ValueError, match=r"mask is bool \(3,\), expected bool \(5,\)"):
        control.reset(np.zeros(3, bool))
    with pytest.raises(ValueError, match="mask is int"):
        control.reset(np.array([0, 1, 0, 0, 0]))


def save(workdir, normalizer=NORMALIZER, **sources):
    """A checkpoint of an untrained network, as training leaves it; the network and its EMA."""
    config = config_lib.default()
    config.model = {"name": "unet", "features": (8, 16), "groups": 4}
    config.schedule = {"name": "cosine", "offset": 0.01}
    config.objective.prediction = "v"
    config.policy.solver, config.policy.steps, config.policy.clip = "heun", 3, 1.5
    for name, role in sources.items():
        config.data.sources[name] = config_lib.source(name, role)
    model = build_denoiser(config.model)
    dummy = {n: jnp.zeros((1, HISTORY, d)) for n, d in (("state", 3), ("goal", 2))}
    shapes = jax.eval_shape(
        model.init, jax.random.key(0), jnp.zeros((1, HORIZON, 2)), jnp.zeros(1), dummy
    )
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda a: 0.1 * rng.normal(size=a.shape).astype("f"), shapes["params"])
    state = state_lib.create(params, optax.sgd(0.1), 1)
    ema = jax.tree.map(lambda p: p * 0.5, state.params)
    state = state.replace(ema_params=ema)
    saver = checkpoint.Checkpointer(workdir / "checkpoints")
    saver.save(20, state, checkpoint.make_assets(config, normalizer.to_json()))
    saver.close()
    return model, ema


def test_from_checkpoint(tmp_path):
    model, ema = save(tmp_path)
    policy = Policy.from_checkpoint(tmp_path)
    assert (policy.solver, policy.steps, policy.clip, policy.prediction) == ("heun", 3, 1.5, "v")
    assert policy.schedule == schedules.cosine(offset=0.01)
    assert (policy.horizon, policy.history, policy.dims) == (16, 2, {"state": 3, "goal": 2})
    jax.tree.map(np.testing.assert_array_equal, policy.params, ema)
    by_hand = Policy(
        model,
        ema,
        NORMALIZER,
        HORIZON,
        HISTORY,
        schedule=schedules.cosine(offset=0.01),
        prediction="v",
        solver="heun",
        steps=3,
        clip=1.5,
    )
    seen, key = observation(), jax.random.key(1)
    np.testing.assert_allclose(policy(seen, key), by_hand(seen, key), rtol=1e-5, atol=1e-5)
    fast = Policy.from_checkpoint(tmp_path / "checkpoints" / "20", solver="ddim", steps=2)
    assert (fast.solver, fast.steps, fast.clip) == ("ddim", 2, 1.5)
    how = Inpainting("replacement")
    assert policy.inpainting is None and policy.how == Inpainting()
    assert Policy.from_checkpoint(tmp_path, inpainting=how).inpainting == how
    with pytest.raises(ValueError, match="inpainting is 'replacement', expected .*Inpainting"):
        dataclasses.replace(policy, inpainting="replacement")
    with pytest.raises(ValueError, match=r"policy option is 'step'.*did you mean 'steps'\?"):
        Policy.from_checkpoint(tmp_path, step=3)
    with pytest.raises(FileNotFoundError, match="no finished checkpoint"):
        Policy.from_checkpoint(tmp_path / "elsewhere")


def test_from_checkpoint_with_a_map_for_each_source(tmp_path):
    both = Normalizer(
        "bounds",
        {name: np.stack([v + 9, v]) for name, v in NORMALIZER.shift.items()},
        {name: np.stack([v * 2, v]) for name, v in NORMALIZER.scale.items()},
        ("sim", "real"),
    )
    save(tmp_path / "one", both, sim="corrupt", real="clean")
    policy = Policy.from_checkpoint(tmp_path / "one")
    np.testing.assert_array_equal(policy.normalizer.shift["action"], NORMALIZER.shift["action"])
    other = Policy.from_checkpoint(tmp_path / "one", source="sim")
    np.testing.assert_array_equal(other.normalizer.shift["action"], [10, 7])
    with pytest.raises(ValueError, match=r"source is 'rael'.*did you mean 'real'\?"):
        Policy.from_checkpoint(tmp_path / "one", source="rael")
    save(tmp_path / "two", both, sim="clean", real="clean")
    with pytest.raises(ValueError, match="has 2 clean ones: give source=, one of real, sim"):
        Policy.from_checkpoint(tmp_path / "two")


def test_a_small_range_about_a_large_state_is_not_rounded_away():
    """The same policy of time stamps as of times since the first: what is seen is the same."""

    class Seen:
        def apply(self, variables, x_t, sigma, observation):
            return jnp.broadcast_to(observation["time"].mean((1, 2))[:, None, None], x_t.shape)

    def answer_at(offset):
        maps = Normalizer(
            "bounds",
            {"action": np.zeros(1), "observation/time": np.array([offset + 5.0])},
            {"action": np.ones(1, np.float32), "observation/time": np.array([5], np.float32)},
        )
        policy = Policy(Seen(), {}, maps, horizon=2, history=1, prediction="x0", steps=2)
        time = offset + np.array([1.25, 7.5]).reshape(2, 1, 1)
        return np.asarray(policy({"time": time}, jax.random.key(0)))

    np.testing.assert_allclose(answer_at(1.7e9)[:, 0, 0], [-0.75, 0.5], atol=1e-6)
    np.testing.assert_allclose(answer_at(1.7e9), answer_at(0.0), atol=1e-6)
