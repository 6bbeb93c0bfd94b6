"""Rendered tabletops, and the variant that trains on them in its smallest size."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest

from ambient_jax import evaluate, schedules
from ambient_jax.evaluate import evaluation
from ambient_jax.policy.policy import Policy
from ambient_jax.train import step as step_lib
from ambient_jax.train import trainer
from experiments.open_x import config as open_x_config
from experiments.open_x import floors, held_out, inputs, scene


def test_images_show_the_objects_where_they_are_and_only_there():
    drawn = scene.draw_scene(np.random.default_rng(0))
    image = scene.render(drawn, drawn.start).astype(int)
    pixel = 2 * scene.HALF_VIEW / scene.PIXELS
    for place, colour in zip(drawn.objects, drawn.colours, strict=True):
        # Beside the middle, which the effector could cover.
        rows, columns = np.nonzero(np.abs(image - scene.COLOURS[colour]).sum(-1) < 60)
        seen = np.mean([columns + 0.5, rows + 0.5], axis=1) * pixel - scene.HALF_VIEW
        np.testing.assert_allclose(seen * [1, -1], place, atol=2 * pixel)
    moved = dataclasses.replace(drawn, objects=drawn.objects[::-1])
    assert np.abs(scene.render(moved, drawn.start) - image).max() > 100


def test_objects_lie_anywhere_alike_and_none_touches_another():
    rng = np.random.default_rng(1)
    objects = np.stack([scene.draw_scene(rng).objects for _ in range(1500)])
    gaps = np.linalg.norm(objects[:, :, None] - objects[:, None], axis=-1)
    assert gaps[:, ~np.eye(scene.OBJECTS, dtype=bool)].min() > 0.045
    # Uniform on the square: quarters of either axis, their error from independent scenes.
    for axis in (0, 1):
        quarter = ((objects[..., axis] / scene.HALF_SIDE + 1) * 2).astype(int)
        share = np.stack([(quarter == q).mean(1) for q in range(4)])
        error = share.std(1) / np.sqrt(len(objects))
        assert np.all(np.abs(share.mean(1) - 0.25) < 4 * error)


def test_actions_need_both_the_image_and_the_instruction():
    rng = np.random.default_rng(2)
    one = scene.draw_scene(rng)
    ends = []
    for k in range(scene.OBJECTS):
        named = dataclasses.replace(one, named=k)
        positions, actions = scene.move(named, 0.0, rng)
        ends.append(positions[-1] + actions[-1])
        goal = one.start + (one.objects[k] - one.start) * (1 - (1 - scene.RATE) ** scene.STEPS)
        np.testing.assert_allclose(ends[-1], goal, atol=1e-12)
        elsewhere = dataclasses.replace(named, objects=-one.objects)  # the same instruction
        assert np.abs(scene.move(elsewhere, 0.0, rng)[1] - actions).max() > 1e-3
    assert len(np.unique(np.round(ends, 6), axis=0)) == scene.OBJECTS


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    config = open_x_config.get_config("inputs")
    config.data.root = str(folder / "data")
    config.task.update(dict(clean=6, corrupt=6, val=4))
    config.model.features = (8,)
    config.model.encoder.width = 8
    config.model.encoder.vision.update(dict(widths=(8,), blocks=1, keypoints=4))
    config.model.encoder.language.width = 8
    config.train.update(dict(steps=4, batch_size=8, warmup=1, log_every=2))
    config.train.checkpoint_every = config.train.keep_every = 2
    config.policy.steps = 2
    inputs.build(config)
    trainer.train(config, folder / "run")
    return config, folder / "run"


def test_data_are_drawn_anew_for_another_config_and_only_then(tmp_path):
    config = open_x_config.get_config("inputs")
    config.data.root = str(tmp_path)
    config.task.update(dict(clean=2, corrupt=2, val=1))

    def built():
        inputs.build(config)
        infos = sorted(tmp_path.glob("*/*/dataset_info.json"))
        return [(path.stat().st_ino, path.stat().st_mtime_ns) for path in infos]

    before = built()
    assert len(before) == 2 and built() == before
    for field, value, anew in (
        ("jitter", 0.01, [True, False]),  # of the shaky one, by name the first
        ("clean", 3, [False, True]),
        ("data_seed", 1, [True, True]),
    ):
        config.task[field] = value
        after = built()
        assert [a != b for a, b in zip(after, before, strict=True)] == anew
        before = after


@pytest.mark.slow
def test_the_task_reports_the_loss_of_the_training_on_held_out_scenes(run):
    config, workdir = run
    inputs.evaluate(config, str(workdir))
    results = json.loads((workdir / "report" / "results.json").read_text())
    bins = results["bins"]
    assert (
        list(bins)[0] == "all" and len(bins) == 11 and list(results["loss_by_step"]) == ["2", "4"]
    )
    # The cosine law: sigma <= s has the probability of an angle.
    share = np.diff(schedules.cosine().cdf(np.linspace(0, 1, 11)))
    total = share @ [b["policy"]["mean"] for n, b in bins.items() if n != "all"]
    assert bins["all"]["policy"]["mean"] == pytest.approx(total, rel=1e-4)
    assert results["loss_by_step"]["4"]["mean"] == pytest.approx(total, rel=1e-4)
    # After four steps it knows nothing, and the floors lie below it.
    assert bins["all"]["below both by"]["mean"] < 0
    for name in ("loss", "chunks"):
        assert (workdir / "report" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    table = (workdir / "report" / "table.md").read_text().splitlines()
    assert table[0].startswith("| noise level") and len([r for r in table if r[:3] == "| 0"]) == 10


@pytest.fixture(scope="module")
def seen(run):
    """The policy and what is held out."""
    config, workdir = run
    policy = Policy.from_checkpoint(workdir, source="steady")
    return policy, held_out.read(config, policy)


@pytest.mark.slow
def test_a_row_has_the_loss_of_the_training(seen):
    policy, held = seen
    levels = (0.3, 0.8)
    found = evaluation.row_losses(policy, held.chunks, levels=levels, seed=3, batch=12)
    x0 = np.asarray(policy.normalizer.normalize("action", held.chunks.action))
    eps = evaluation.noise(x0.shape, 3)
    observation = policy.check(held.chunks.observation, (policy.history,))
    batch = dict(action=x0, mask=held.chunks.mask, dims=np.tile(policy.action_mask, (len(x0), 1)))
    assert policy.action_mask.tolist() == [True, True, *[False] * 5]
    network = jax.jit(lambda p, o, x, sigma: policy.denoiser(p, o)(x, sigma))
    for sigma, loss in zip(levels, found, strict=True):
        alpha = math.sqrt(1 - sigma**2)
        x_t, v = alpha * x0 + sigma * eps, alpha * eps - sigma * x0
        h = network(policy.params, observation, x_t, sigma)
        valid = np.asarray(step_lib.entries(batch))
        expected = (valid * (h - v) ** 2).sum((1, 2)) / valid.sum((1, 2))
        np.testing.assert_allclose(loss, expected, rtol=1e-4)
    # x0_hat = alpha x_t - sigma v, and every number counts alike.
    order = np.random.default_rng(3).permutation(len(x0))
    weight = held.chunks.mask.sum(1) / held.chunks.mask.sum()
    shuffled = jax.tree.map(lambda a: a[order], held.chunks)
    found = evaluation.row_losses(policy, shuffled, levels=levels, seed=3, batch=12)
    total = evaluation.denoising_loss(policy, *held.chunks[:3], levels=levels, seed=3)
    expected = (found @ weight[order]) * np.square(levels)
    np.testing.assert_allclose(total, expected, rtol=1e-4)


@pytest.mark.slow
def test_the_evaluation_command_reads_the_common_form(run):
    _, workdir = run
    table = evaluate.evaluate(workdir, split="val", source="steady", samples=8, sampled=4).table
    assert "| steady | clean | 8 " in table
    results = json.loads((workdir / "evaluation" / "val" / "results.json").read_text())
    found = results["sources"]["steady"]
    # Of dimensions that this arm has not, nothing is told.
    assert [e is None for e in found["action_error"]] == [False, False, *[True] * 5]
    assert np.all(np.array(found["loss"]) > 0) and len(found["action_error_by_step_ahead"]) == 4


@pytest.mark.slow
def test_held_out_chunks_are_of_new_scenes_and_follow_the_law_that_the_floors_take(seen):
    policy, held = seen
    step = held.chunks.origin[:, 1]
    np.testing.assert_array_equal(step, np.tile(np.arange(scene.STEPS), 4))
    named = np.take_along_axis(held.objects, held.named[:, None, None], 1)[:, 0]
    motion = floors.Motion(
        scene.HALF_SIDE, scene.RATE, scene.STEPS, policy.horizon, np.zeros(2), np.ones(2)
    )
    expected = motion.gain[step][..., None] * (named - held.effector)[:, None]
    np.testing.assert_allclose(held.chunks.action[..., :2], expected, atol=1e-6)
    np.testing.assert_array_equal(held.chunks.mask, motion.mask[step])
    start = named + (held.effector - named) * motion.grown[step][:, None]
    assert np.all(np.abs(start) < scene.HALF_SIDE + 1e-6)
    texts = [bytes(t).rstrip(b"\0").decode() for t in held.chunks.observation["instruction"]]
    for text, colour in zip(texts, held.colours[np.arange(len(step)), held.named], strict=True):
        assert list(scene.COLOURS)[colour] in text
    swapped = held_out.swapped(held.chunks, "instruction").observation["instruction"]
    np.testing.assert_array_equal(
        swapped[scene.STEPS :], held.chunks.observation["instruction"][: -scene.STEPS]
    )
    # The image of the first step shows the objects of the same row.
    row = 0
    drawn = scene.Scene(
        held.objects[row],
        tuple(np.array(list(scene.COLOURS))[held.colours[row]]),
        tuple(np.array(scene.SHAPES)[held.shapes[row]]),
        *(0, "", held.effector[row]),
    )
    image = held.chunks.observation["image_primary"][row, -1].astype(int)
    assert np.abs(scene.render(drawn, held.effector[row]) - image).mean() < 5  # jpeg
    assert jax.tree.leaves(held.chunks.observation)[0].shape[0] == len(step)
