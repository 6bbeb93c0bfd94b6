"""The table of solvers and steps, of an untrained network."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ambient_jax.models.denoiser import build_denoiser
from ambient_jax.train import checkpoint
from ambient_jax.train import state as state_lib
from ambient_jax.transforms.normalizer import Normalizer
from experiments.maze import few_steps
from experiments.open_x.config import get_config


def save(folder, task="maze"):
    config = get_config("demo_debug")
    config.task.name = task
    model = build_denoiser(config.model)
    seen = {name: jnp.zeros((1, config.data.history, 2)) for name in ("state", "goal")}
    chunk = jnp.zeros((1, config.data.horizon, 2))
    params = model.init(jax.random.key(0), chunk, jnp.zeros(1), seen)["params"]
    names = ("action", "observation/state", "observation/goal")
    normalizer = Normalizer(
        "bounds",
        {name: np.full(2, 2.5) for name in names},
        {name: np.full(2, 2.5, np.float32) for name in names},
    )
    saver = checkpoint.Checkpointer(folder / "checkpoints")
    state = state_lib.create(params, optax.sgd(0.1), 1)
    saver.save(60, state, checkpoint.make_assets(config, normalizer.to_json()))
    saver.close()
    return folder


@pytest.mark.slow
def test_a_row_and_a_figure_for_every_solver_and_number_of_steps(tmp_path):
    workdir = save(tmp_path)
    options = dict(solvers=("ddim", "heun"), steps=(2,), goals=6)
    table = few_steps.measure(workdir, **options)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert [line[:3] for line in lines[2:4]] == [["ddim", "2", "2"], ["heun", "2", "4"]]
    folder = workdir / "report" / "few_steps"
    assert (folder / "few_steps.png").stat().st_size > 10_000
    rows = json.loads((folder / "results.json").read_text())["rows"]
    for row in rows:
        parts = (row["summary"][name] for name in ("collided", "timed_out"))
        assert row["summary"]["success"]["value"] + sum(parts) == pytest.approx(1)
    # Rollouts are kept, those of another number of goals are made anew.
    path = folder / "rollouts_ddim_2.npz"
    before = path.stat().st_mtime_ns
    few_steps.measure(workdir, **options)
    assert path.stat().st_mtime_ns == before
    few_steps.measure(workdir, **{**options, "solvers": ("ddim",), "goals": 5})
    with np.load(path) as file:
        assert len(file["lengths"]) == 5


def test_bad_input_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished checkpoint"):
        few_steps.measure(tmp_path)
    with pytest.raises(ValueError, match="solver is 'dpm', expected one of ddpm, ddim"):
        few_steps.measure(tmp_path, solvers=("dpm",))
    with pytest.raises(ValueError, match="steps is 'ten', expected a whole number at least 1"):
        few_steps.measure(tmp_path, steps=("ten",))
    with pytest.raises(ValueError, match="holds no maze policy, expected the workdir of the demo"):
        few_steps.measure(save(tmp_path, "bin_sorting"))
