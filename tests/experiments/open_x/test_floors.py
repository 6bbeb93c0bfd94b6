"""Closed-form floors against sums over many draws that know nothing of the closed form."""

import numpy as np
import pytest

from experiments.open_x import floors, scene

MOTION = floors.Motion(
    half_side=scene.HALF_SIDE,
    rate=scene.RATE,
    steps=3,
    horizon=2,
    shift=np.array([0.002, -0.001]),
    scale=np.array([0.02, 0.03]),
)


def chunks(rng, named, start):
    """Rolled out step by step: e [N, 2], step [N], x0 and mask [N, H, 2] of a random step each."""
    e, places, actions = start, [], []
    for _ in range(MOTION.steps):
        actions.append(MOTION.rate * (named - e))
        places.append(e)
        e = e + actions[-1]
    step = rng.integers(MOTION.steps, size=len(named))
    ahead = step[:, None] + np.arange(MOTION.horizon)
    rows = np.arange(len(named))[:, None]
    action = np.stack(actions, 1)[rows, np.minimum(ahead, MOTION.steps - 1)]
    mask = np.repeat((ahead < MOTION.steps)[..., None], 2, axis=2)
    return np.stack(places, 1)[rows[:, 0], step], (action - MOTION.shift) / MOTION.scale, mask


def draws(count, seed=0):
    """Objects [N, n, 2] without regard to each other, and chunks of the first of them."""
    rng = np.random.default_rng(seed)
    objects = rng.uniform(-scene.HALF_SIDE, scene.HALF_SIDE, (count, 4, 2))
    start = rng.uniform(-scene.HALF_SIDE, scene.HALF_SIDE, (count, 2))
    return objects, *chunks(rng, objects[:, 0], start)


def brute(effector, x_t, sigma, places, starts, near):
    """x0_hat [H, 2] of one row: the weighted mean over drawn episodes that are at ``effector``
    (but for ``near``) and explain x_t. ``places`` [M, 2] are of the named object."""
    rng = np.random.default_rng(1)
    e, x0, mask = chunks(rng, places, starts)
    here = np.hypot(*(e - effector).T) < near
    x0, mask = x0[here], mask[here]
    square = ((x_t - np.sqrt(1 - sigma**2) * x0) ** 2).sum((1, 2))
    weight = np.exp(-(square - square.min()) / (2 * sigma**2))
    entry = weight[:, None, None] * mask / mask.sum((1, 2), keepdims=True)
    return (entry * x0).sum(0) / entry.sum(0), int(here.sum())


@pytest.mark.parametrize("sigma", [0.7, 0.95])
def test_both_floors_are_what_many_simulated_episodes_say(sigma):
    rng = np.random.default_rng(3)
    objects, e, x0, _ = draws(4)
    x_t = np.sqrt(1 - sigma**2) * x0 + sigma * rng.normal(size=x0.shape)
    image = floors.from_image(MOTION, e, objects, x_t, sigma)
    text = floors.from_instruction(MOTION, e, x_t, sigma)
    side = scene.HALF_SIDE
    for i in range(len(e)):
        starts = rng.uniform(-side, side, (1_000_000, 2))
        named = objects[i][rng.integers(4, size=len(starts))]
        expected, count = brute(e[i], x_t[i], sigma, named, starts, near=0.006)
        assert count > 300
        np.testing.assert_allclose(image[i], expected, atol=0.12)
        anywhere = rng.uniform(-side, side, starts.shape)
        expected, count = brute(e[i], x_t[i], sigma, anywhere, starts, near=0.006)
        assert count > 300
        np.testing.assert_allclose(text[i], expected, atol=0.2)


@pytest.mark.parametrize("sigma", [0.05, 0.5, 0.9])
def test_no_function_of_what_is_seen_explains_the_residual(sigma):
    """E[weight (x0 - h) f(seen)] = 0 for every f: what a least-squares minimiser is."""
    rng = np.random.default_rng(4)
    objects, e, x0, mask = draws(40_000, seed=5)
    x_t = np.sqrt(1 - sigma**2) * x0 + sigma * rng.normal(size=x0.shape)
    weight = mask / mask.sum((1, 2), keepdims=True)
    found = {
        "image": floors.from_image(MOTION, e, objects, x_t, sigma),
        "text": floors.from_instruction(MOTION, e, x_t, sigma),
    }
    seen = [np.ones_like(x_t), x_t, x_t**2, np.repeat(e[:, None], 2, axis=1) / scene.HALF_SIDE]
    for h in found.values():
        for f in (*seen, h, np.tanh(h)):
            product = weight * (x0 - h) * f
            error = product.std(0) / np.sqrt(len(product)) + 1e-12
            assert np.all(np.abs(product.mean(0)) < 4.5 * error)
    loss = {name: (weight * (h - x0) ** 2).sum((1, 2)).mean() for name, h in found.items()}
    # Either beats the mean of the data, and the places that an image shows narrow the choice.
    assert loss["image"] < (weight * (x0 - x0.mean(0)) ** 2).sum((1, 2)).mean()
    assert loss["image"] < loss["text"] < (weight * (x0 - x0.mean(0)) ** 2).sum((1, 2)).mean()


def test_without_noise_everything_is_known_and_in_pure_noise_nothing():
    objects, e, x0, mask = draws(500, seed=6)
    h = floors.from_image(MOTION, e, objects, x0 * np.sqrt(1 - 1e-4), 1e-2)
    assert np.mean(np.abs(h - x0)[mask] > 0.05) < 0.02
    h = floors.from_instruction(MOTION, e, x0 * np.sqrt(1 - 1e-6), 1e-3)
    np.testing.assert_allclose(h[mask], x0[mask], atol=0.01)
    noise = np.random.default_rng(0).normal(size=x0.shape)
    with_noise = floors.from_image(MOTION, e, objects, noise, 1 - 1e-12)
    np.testing.assert_allclose(
        with_noise, floors.from_image(MOTION, e, objects, -noise, 1 - 1e-12), atol=1e-3
    )
