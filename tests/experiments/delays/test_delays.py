"""The study of delays: what an episode is made of, its jerk by hand, and the report."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from ambient_jax import schedules
from ambient_jax.data.normalizer import Normalizer
from ambient_jax.models.denoiser import build_denoiser
from ambient_jax.policy import chunks
from ambient_jax.policy.policy import Policy
from ambient_jax.train import checkpoint
from ambient_jax.train import config as config_lib
from ambient_jax.train import state as state_lib
from experiments import checks
from experiments.delays import config as delays_config
from experiments.delays import metrics, rollouts, study
from experiments.maze import config as maze_config
from experiments.planar_pushing.scene import Scene

HORIZON = 8
IDENTITY = Normalizer(
    "none",
    {name: np.zeros(2) for name in ("action", "observation/state", "observation/goal")},
    {name: np.ones(2, np.float32) for name in ("action", "observation/state", "observation/goal")},
)


class Straight(nn.Module):
    """Knows the chunk: straight to the goal, 3 cm a step."""

    @nn.compact
    def __call__(self, x_t, sigma, observation):
        state, goal = observation["state"][:, -1], observation["goal"][:, -1]
        way = goal - state
        far = jnp.linalg.norm(way, axis=-1, keepdims=True)
        steps = 0.03 * jnp.arange(1, HORIZON + 1)[:, None]
        x0 = state[:, None] + (way / far)[:, None] * jnp.minimum(steps, far[:, None])
        level = sigma[:, None, None]
        return (x_t - schedules.signal(level) * x0) / level  # eps


def straight():
    return Policy(Straight(), {}, IDENTITY, horizon=HORIZON, history=1, steps=2)


@pytest.mark.parametrize("strategy", (chunks.Receding(), chunks.Ensemble(), chunks.RealTime()))
def test_a_known_plan_is_not_changed_by_a_delay(strategy):
    """Chunks that agree: to goals that are free and in sight all strategies go straight, with any
    delay, and one at a distance takes the steps of its line but for the goal's radius."""
    start = np.array([2.5, 2.5])
    goals = np.array([[2.6, 2.0], [2.5, 2.11], [2.9, 2.45]])
    for delay in (0, 3):
        options = dict(execute=4, delay=delay)
        got = rollouts.run(straight(), rollouts.Maze(goals), strategy, **options)
        assert got.success.all()
        far = np.linalg.norm(goals - start, axis=1)
        np.testing.assert_array_equal(got.lengths, np.ceil((far - 0.1) / 0.03 - 1e-3))
        way = (goals - start) / far[:, None]
        line = start + 0.03 * np.arange(1, 6)[None, :, None] * way[:, None]
        np.testing.assert_allclose(got.actions[:, :5], line, atol=1e-4)


def test_an_unaligned_chunk_steps_back():
    """It begins with the action after its observation, ``delay`` steps late."""
    options = dict(execute=4, delay=3)
    goals = np.array([[2.6, 1.9]])
    strategy = chunks.Receding(aligned=False)
    got = rollouts.run(straight(), rollouts.Maze(goals), strategy, **options)
    moved = np.linalg.norm(got.actions[0] - [2.5, 2.5], axis=-1)
    np.testing.assert_allclose(moved[6:8], [0.03 * 7, 0.03 * 5], atol=1e-4)
    assert got.arrived[0].nonzero()[0][:2].tolist() == [0, 7]


def test_pushing_episodes_are_those_of_the_environment():
    """Actions that stay at the pusher's place push nothing: every episode is out of time, and each
    start is that of its seed."""
    seeds, scene = [700_000, 700_001], Scene(max_steps=5)
    world = rollouts.Pushing(seeds, scene, threads=1)
    first = world.reset()["state"]
    assert np.abs(first[0] - first[1]).max() > 0.01
    np.testing.assert_array_equal(world.reset()["state"], first)
    for step in range(5):
        seen, ended, success = world.step(first[:, :2])
        assert ended.all() == (step == 4) and not success.any()
    np.testing.assert_allclose(seen["state"][:, 2:4], first[:, 2:4], atol=1e-3)
    assert checks.evaluation_seeds(delays_config.get_config("pushing")).shape == (100,)


def test_jerk_by_hand():
    """Positions 0 0 0 0 1 1 1 1 1: third differences 0 1 -2 1 0 0 with windows 0-3, 1-4, ...; a
    chunk that arrives at step 4 makes windows 1 to 3 those of the border."""
    actions = np.float32([0, 0, 0, 0, 1, 1, 1, 1, 1])[None, :, None]
    arrived = np.zeros((1, 9), bool)
    arrived[0, [0, 4]] = True
    made = rollouts.Rollouts(np.array([9]), np.array([True]), actions, arrived)
    border, inside = metrics.squared_jerk(made)
    np.testing.assert_allclose(border, (1 + 4 + 1) / 3 * 1e6)
    np.testing.assert_allclose(inside, 0)
    ended = rollouts.Rollouts(np.array([6]), np.array([True]), actions, arrived)
    np.testing.assert_allclose(metrics.squared_jerk(ended)[0], (1 + 4) / 2 * 1e6)
    never = rollouts.Rollouts(np.array([4]), np.array([True]), actions, arrived)
    assert np.isnan(metrics.squared_jerk(never)[0]).all()


def save(workdir, tiny, step=2):
    """A checkpoint of an untrained network for the maze."""
    config = config_lib.default()
    config.task = ml_collections.ConfigDict()
    config = tiny(config)
    config.data.horizon, config.data.history = 16, 2
    config.objective.prediction = "x0"
    model = build_denoiser(config.model)
    seen = {name: jnp.zeros((1, 2, 2)) for name in ("state", "goal")}
    params = model.init(jax.random.key(0), jnp.zeros((1, 16, 2)), jnp.zeros(1), seen)["params"]
    params = jax.tree.map(np.asarray, params)
    saver = checkpoint.Checkpointer(workdir / "checkpoints")
    state = state_lib.create(params, optax.sgd(0.1), 1)
    saver.save(step, state, checkpoint.make_assets(config, IDENTITY.to_json()))
    saver.close()
    return str(workdir)


def test_the_study_reports_every_cell_and_continues(tmp_path, tiny):
    run = save(tmp_path / "run", tiny)
    config = delays_config.get_config("debug")
    text = study.run(config, [run, run], tmp_path / "out")
    folder = tmp_path / "out" / "report"
    assert text in (folder / "table.md").read_text()
    assert (folder / "delays.png").stat().st_size > 10_000
    cells = json.loads((folder / "results.json").read_text())["cells"]
    names = ("receding", "unaligned", "ensemble", "real_time")
    want = [f"{name}, delay {delay}" for name in names for delay in (0, 4)]
    assert list(cells) == [*want, "open_loop, delay 0"]
    assert "delay 4: it halves jerk at borders" in (folder / "table.md").read_text()
    assert all(cell["success"]["count"] == 2 * config.episodes for cell in cells.values())
    files = sorted((tmp_path / "out" / "rollouts").glob("*.npz"))
    before = [file.stat().st_mtime_ns for file in files]
    assert study.run(config, [run, run], tmp_path / "out") == text and len(files) == 18
    assert [file.stat().st_mtime_ns for file in files] == before
    files[0].unlink()
    config.report_only = True
    study.run(config, [run, run], tmp_path / "out")
    assert not files[0].exists()


def test_a_policy_that_was_trained_on_is_rolled_out_again(tmp_path, tiny):
    config = delays_config.get_config("debug")
    config.update(dict(delays=(0,), episodes=2, strategies={"receding": {"kind": "receding"}}))
    run, file = save(tmp_path / "run", tiny), tmp_path / "out" / "rollouts" / "0_receding_0.npz"
    study.run(config, [run], tmp_path / "out")
    before = file.stat().st_mtime_ns
    save(tmp_path / "run", tiny, step=4)
    study.run(config, [f"{run}/checkpoints/2"], tmp_path / "out")  # the same policy
    assert file.stat().st_mtime_ns == before
    study.run(config, [run], tmp_path / "out")
    assert file.stat().st_mtime_ns > before


def test_what_is_lost_is_paired_by_starts(tmp_path):
    """By hand: two policies that each fail at the other half of the starts lose half of them at
    every start, so their interval has no width; one that a cell lacks is compared nowhere."""
    config = delays_config.get_config("debug")

    def of(success):
        count = len(success)
        steps = np.zeros((count, 5, 2), np.float32), np.zeros((count, 5), bool)
        return rollouts.Rollouts(np.full(count, 5), np.array(success, bool), *steps)

    half, all_of_them = np.arange(40) % 2, np.ones(40)
    found = {
        ("receding", 0): {0: of(all_of_them), 1: of(all_of_them), 2: of(0 * half)},
        ("real_time", 4): {0: of(half), 1: of(1 - half)},
        ("receding", 4): {3: of(half)},
    }
    study._report(config, found, 4, tmp_path)
    lost = json.loads((tmp_path / "results.json").read_text())["lost"]
    assert lost["real_time, delay 4"] == {"value": 0.5, "low": 0.5, "high": 0.5, "count": 40}
    assert lost["receding, delay 4"] is None


def test_wrong_configs_are_named(tmp_path):
    with pytest.raises(ValueError, match="config.delays is missing: this command takes configs of"):
        study.run(maze_config.get_config("debug"), [], tmp_path)
    config = delays_config.get_config("debug")
    with pytest.raises(ValueError, match="expected --checkpoint=FOLDER"):
        study.run(config, [], tmp_path)
    config.world = "mase"
    with pytest.raises(ValueError, match=r"config.world is 'mase'.*did you mean 'maze'\?"):
        study.run(config, [], tmp_path)
    with pytest.raises(FileNotFoundError, match="no finished checkpoint"):
        study.run(delays_config.get_config("debug"), [str(tmp_path)], tmp_path)
