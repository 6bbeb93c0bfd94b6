"""What pictures show: the chunks, the cameras and the losses that were measured."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np

from ambient_jax import mixing
from ambient_jax.data import mixture as mixtures
from ambient_jax.evaluate import evaluation, pictures
from ambient_jax.train import config as config_lib
from ambient_jax.transforms.chain import Chain
from ambient_jax.transforms.steps import Images
from tests.rollout import envs


def shown(cameras, width=3, count=2):
    rng = np.random.default_rng(0)
    recorded = rng.normal(size=(count, 6, width))
    mask = np.arange(6) < np.array([[6], [4]])[:count]
    samples = recorded[:, None] + 0.1 * rng.normal(size=(count, 5, 6, width))
    frames = {name: np.full((count, 8, 12, 3), 90 * k, np.uint8) for k, name in enumerate(cameras)}
    return pictures.Shown(frames, recorded, mask, samples)


def test_samples_are_those_of_the_policy_for_each_recorded_chunk():
    chunk = lambda o, x: jnp.broadcast_to(o["state"][:, -1:] + 0.01 * x, x.shape)  # noqa: E731
    policy = envs.policy(chunk)
    chain = Chain(policy.chain.normalizer, (Images(("wrist",), (4, 4)),))
    policy = dataclasses.replace(policy, chain=chain, clip=3.0)
    rng = np.random.default_rng(1)
    observation = {name: rng.normal(size=(3, 2, 2)) for name in ("state", "goal")}
    observation["image_wrist"] = rng.integers(0, 255, (3, 2, 4, 4, 3)).astype(np.uint8)
    chunks = evaluation.Chunks(observation, np.zeros((3, 4, 2)), np.ones((3, 4), bool))
    found = pictures.sampled(policy, chunks, samples=5)
    assert found.samples.shape == (3, 5, 4, 2)
    np.testing.assert_array_equal(found.cameras["wrist"], observation["image_wrist"][:, -1])
    middle = np.broadcast_to(observation["state"][:, -1, None, None], found.samples.shape)
    assert np.abs(found.samples - middle).max() < 0.2
    assert (found.samples[:, 0] != found.samples[:, 1]).any()
    np.testing.assert_array_equal(
        pictures.sampled(policy, chunks, samples=5).samples, found.samples
    )


def test_a_figure_has_the_lines_and_frames_that_it_shows():
    data = shown(("primary", "wrist"))
    figure = pictures.chunks_figure(data, "good")
    axes = np.array(figure.axes).reshape(2, 5)
    assert [a.get_title() for a in axes[0]] == [
        "primary",
        "wrist",
        *(f"action {d}" for d in range(3)),
    ]
    assert (axes[1, 1].images[0].get_array() == 90).all()
    lines = axes[1, 3].lines
    assert len(lines) == 6  # five samples, one recorded chunk
    np.testing.assert_array_equal(lines[2].get_ydata(), data.samples[1, 2, :, 1])
    np.testing.assert_array_equal(lines[5].get_ydata()[:4], data.recorded[1, :4, 1])
    assert np.isnan(lines[5].get_ydata()[4:]).all()  # past the episode's end
    image = pictures.image_of(figure)
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    many = pictures.chunks_figure(shown((), width=30, count=1), "good")
    assert len(many.axes) == pictures.DIMENSIONS


def test_losses_of_every_source_are_drawn():
    levels = len(evaluation.LEVELS)
    [axes] = pictures.losses_figure({n: np.full(levels, k + 1.0) for k, n in enumerate("ab")}).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]
    assert (axes.lines[1].get_ydata() == 2).all()


def test_a_painter_draws_the_losses_that_evaluation_measures(toy_data, monkeypatch):
    config = config_lib.default()
    config.data.sources.bad = config_lib.source(toy_data["bad"], "corrupt", sigma_min=0.3)
    config.data.sources.good = config_lib.source(toy_data["good"], "clean")
    config.data.observation, config.data.horizon = ("state", "goal"), 8
    config.model = {"name": "tests.rollout.envs:Mlp"}
    config.train.pictures, config.policy.steps = 2, 2
    mixture = mixtures.open_mixture(config.data, mixing.get("ambient"))
    painter = pictures.Painter(config, mixture)
    policy = pictures.policy_of(config, mixture, "good")
    like = policy.parameter_shapes()
    params = jax.tree.map(lambda s: jnp.full(s.shape, 0.02, s.dtype), like)
    seen = types.SimpleNamespace()
    monkeypatch.setattr(pictures, "losses_figure", lambda found: setattr(seen, "losses", found))
    monkeypatch.setattr(pictures, "chunks_figure", lambda *found: setattr(seen, "chunks", found))
    monkeypatch.setattr(pictures, "image_of", lambda figure: np.zeros((1, 1, 3), np.uint8))
    drawn = []
    writer = types.SimpleNamespace(picture=lambda *arguments: drawn.append(arguments[:2]))
    painter(7, params, writer)
    assert drawn == [(7, "chunks"), (7, "losses")]
    assert seen.chunks[1] == "good" and seen.chunks[0].recorded.shape == (2, 8, 2)
    for name in ("good", "bad"):
        source = mixtures.open_source(config.data, name)
        chunks = evaluation.recorded(source, policy, samples=pictures.LOSS_ROWS)
        options = dict(samples=pictures.LOSS_ROWS, params=params)
        expected = evaluation.denoising_loss(policy, *chunks[:3], **options)
        np.testing.assert_allclose(seen.losses[name], expected, rtol=1e-5)
