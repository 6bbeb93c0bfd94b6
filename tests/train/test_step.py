import functools
import os
import re
import subprocess
import sys
import textwrap

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ambient_jax import corruption, losses, observations, optim, schedules
from ambient_jax.train import config as config_lib
from ambient_jax.train import state as state_lib
from ambient_jax.train import step as step_lib
from ambient_jax.transforms import augment

B, H, D = 8, 4, 2


def _apply(params, x_t, sigma, observation):
    """A linear network: enough for gradients that every entry of the batch moves."""
    seen = jnp.concatenate([x_t, observation["state"][:, :1].repeat(H, 1)], -1)
    return seen @ params["w"] + sigma[:, None, None] * params["b"]


def _params():
    return {"w": jax.random.normal(jax.random.key(7), (D + 3, D)), "b": jnp.full(D, 0.3)}


def _batch(size=B):
    keys = jax.random.split(jax.random.key(1), 3)
    row = jnp.arange(size)
    return {
        "observation": {"state": jax.random.normal(keys[0], (size, 2, 3))},
        "action": jax.random.normal(keys[1], (size, H, D)),
        "mask": jnp.arange(H) < 1 + row[:, None] % H,
        "sigma": jnp.linspace(0.02, 0.98, size),
        "sigma_min": jnp.where(row % 2, 0.4, 0.0),
        "sigma_max": jnp.where(row % 2, 0.1, 1.0),
        "source": row % 2,
        "id": jnp.stack([row % 2, row, row], -1),
    }


def _step(objective=None, **options):
    config = config_lib.default().train
    optimizer = optim.make_optimizer(config)
    step = step_lib.make_train_step(objective or step_lib.Objective(), _apply, optimizer, **options)
    return step, state_lib.create(_params(), optimizer, 2)


@pytest.mark.parametrize("loss", step_lib.LOSSES)
@pytest.mark.parametrize("schedule", schedules.SCHEDULES)
def test_noised_chunks_have_the_variance_of_their_level(loss, schedule):
    schedule = schedules.get(schedule)
    batch = _batch(4000)
    batch["action"] = jnp.zeros_like(batch["action"])
    objective = step_lib.Objective(loss=loss, schedule=schedule)
    keys = jax.random.split(jax.random.key(2), 4000)
    _, _, x_t = step_lib.noised(objective, batch, keys, jax.random.key(3))
    _, noise = schedule.coefficients(batch["sigma"])
    # x0 = 0, so x_t / noise is standard normal: 32000 draws, so the variance is 1 +- 0.008.
    np.testing.assert_allclose(jnp.var(x_t / noise[:, None, None]), 1, atol=0.04)


def test_x_min_is_kept_from_step_to_step_and_x_t_is_not():
    batch = _batch()
    objective = step_lib.Objective(loss="ambient")
    noised = [
        step_lib.noised(objective, batch, jax.random.split(jax.random.key(s), B), jax.random.key(9))
        for s in range(2)
    ]
    chex.assert_trees_all_equal(noised[0][0], noised[1][0])
    assert not np.allclose(noised[0][2], noised[1][2])
    # A row of Omni's low band (sigma < sigma_max) starts from x0 itself.
    low = int(np.flatnonzero((batch["sigma"] < 0.4) & (batch["sigma_min"] > 0))[0])
    np.testing.assert_array_equal(noised[0][0][low], batch["action"][low])


def test_step_is_the_gradient_of_the_masked_mean():
    step, state = _step()
    batch, rng = _batch(), jax.random.key(5)
    new = step(state, batch, rng)

    fixed, fresh = step_lib.noise_first.noise_keys(rng)
    keys = step_lib.noise_first.row_keys(fresh, 0, jnp.arange(B))

    def by_hand(params):
        x0, sigma = batch["action"], batch["sigma"]
        z = jnp.stack([jax.random.normal(k, (H, D)) for k in keys])
        x_t = jax.vmap(corruption.add_noise)(x0, z, sigma)
        h = _apply(params, x_t, sigma, batch["observation"])
        keep = (sigma > batch["sigma_min"]) | (sigma < batch["sigma_max"])
        entries = jnp.broadcast_to(batch["mask"][..., None], h.shape)
        rows = jnp.sum((h - z) ** 2 * entries, (1, 2)) / jnp.sum(entries, (1, 2))
        return jnp.sum(jnp.where(keep, rows, 0)) / jnp.sum(keep)

    value, grads = jax.value_and_grad(by_hand)(_params())
    np.testing.assert_allclose(new.sums.bin_loss.sum() / new.sums.bin_count.sum(), value, rtol=1e-5)
    np.testing.assert_allclose(new.sums.grad_norm, optax.global_norm(grads), rtol=1e-5)
    np.testing.assert_allclose(new.sums.source_count.sum(), new.sums.bin_count.sum())


def test_accumulated_micro_batches_are_the_whole_batch():
    outcomes = []
    for accumulation in (1, 2, 4):
        step, state = _step(accumulation=accumulation)
        for _ in range(3):
            state = step(state, _batch(), jax.random.key(0))
        outcomes.append(state)
    for other in outcomes[1:]:
        chex.assert_trees_all_close(outcomes[0], other, rtol=2e-5, atol=1e-6)


def test_accumulation_that_does_not_divide():
    step, state = _step(accumulation=3)
    with pytest.raises(ValueError, match="accumulation is 3, expected a divisor of the 8 rows"):
        step(state, _batch(), jax.random.key(0))


def test_a_batch_with_nothing_admissible_changes_no_parameter_but_by_decay():
    step, state = _step()
    batch = _batch() | {"sigma_min": jnp.ones(B), "sigma_max": jnp.zeros(B)}
    batch["action"] = jnp.full_like(batch["action"], jnp.inf)
    batch["observation"] = {"state": jnp.full((B, 2, 3), jnp.nan)}
    new = step(state, batch, jax.random.key(0))
    assert float(new.sums.grad_norm) == 0 and float(new.sums.bin_count.sum()) == 0
    # Learning rate 0 at the first step of the warm-up: not even weight decay acts.
    chex.assert_trees_all_equal(new.params, state.params)


@pytest.mark.parametrize("loss", step_lib.LOSSES)
def test_what_a_masked_row_or_padded_action_holds_does_not_matter(loss):
    step, state = _step(step_lib.Objective(loss=loss))
    batch = _batch()
    keep = losses.batch_keep_mask(batch["sigma"], batch["sigma_min"], batch["sigma_max"])
    assert not bool(keep.all())
    poisoned = dict(batch)
    bad = ~keep[:, None, None] | ~batch["mask"][..., None]
    poisoned["action"] = jnp.where(bad, jnp.nan, batch["action"])
    state_obs = batch["observation"]["state"]
    poisoned["observation"] = {"state": jnp.where(keep[:, None, None], state_obs, jnp.inf)}
    blank = dict(batch, action=jnp.where(bad, 0, batch["action"]))
    rng = jax.random.key(3)
    chex.assert_trees_all_equal(step(state, poisoned, rng), step(state, blank, rng))


@pytest.mark.parametrize("loss", step_lib.LOSSES)
def test_one_device_or_many_whatever_they_mask(loss):
    """Devices keep different numbers of rows; sums over devices must agree with one device."""
    batch, rng = _batch(), jax.random.key(4)
    objective = step_lib.Objective(loss=loss)
    alone, state = _step(objective)
    split, _ = _step(objective, axis_name="batch")
    keep = losses.batch_keep_mask(batch["sigma"], batch["sigma_min"], batch["sigma_max"])
    assert len({int(k.sum()) for k in keep.reshape(4, 2)}) > 1, "masks must differ"

    @functools.partial(jax.vmap, axis_name="batch", in_axes=(None, 0))
    def lifted(state, part):
        return split(state, part, rng)

    parts = jax.tree.map(lambda a: a.reshape(4, 2, *a.shape[1:]), batch)
    expected = alone(state, batch, rng)
    for device in range(4):
        actual = jax.tree.map(lambda a, d=device: a[d], lifted(state, parts))
        chex.assert_trees_all_close(actual, expected, rtol=2e-5, atol=1e-6)


def test_the_ambient_loss_without_bounds_is_the_denoising_loss():
    batch = _batch() | {"sigma_min": jnp.zeros(B), "sigma_max": jnp.ones(B)}
    outcomes = []
    for loss in step_lib.LOSSES:
        step, state = _step(step_lib.Objective(loss=loss))
        outcomes.append(step(state, batch, jax.random.key(0)))
    chex.assert_trees_all_close(*outcomes, rtol=1e-5, atol=1e-7)


def test_importance_weights_scale_their_rows():
    rng = jax.random.key(0)
    step, state = _step()
    doubled = step(state, _batch() | {"weight": jnp.full(B, 2.0)}, rng)
    plain = step(state, _batch(), rng)
    np.testing.assert_allclose(doubled.sums.grad_norm, 2 * plain.sums.grad_norm, rtol=1e-5)


def test_moving_average_follows_its_own_decay():
    step, state = _step(ema_limit=0.5)
    ema = state.ema_params["b"]
    for n in range(4):
        state = step(state, _batch(), jax.random.key(0))
        decay = min(0.5, (1 + n) / (10 + n))
        ema = decay * ema + (1 - decay) * state.params["b"]
    np.testing.assert_allclose(state.ema_params["b"], ema, rtol=1e-6)


def test_a_linear_network_learns():
    """200 steps on x0 = 0: the best network for eps is x_t / sigma, far better than the start."""
    config = config_lib.default().train
    config.learning_rate, config.warmup, config.steps = 3e-2, 10, 200
    optimizer = optim.make_optimizer(config)
    step = jax.jit(step_lib.make_train_step(step_lib.Objective(), _apply, optimizer))
    state = state_lib.create(_params(), optimizer, 2)
    batch = _batch() | {"sigma": jnp.full(B, 0.9), "action": jnp.zeros((B, H, D))}
    first = float(step(state, batch, jax.random.key(0)).sums.bin_loss.sum())
    for _ in range(200):
        state = state.replace(sums=state_lib.empty_sums(2))
        state = step(state, batch, jax.random.key(0))
    assert float(state.sums.bin_loss.sum()) < 0.05 * first


def _free_outputs(params, x_t, sigma, observation):
    return params["h"]


@pytest.mark.parametrize(("loss", "prediction"), [("denoising", "eps"), ("ambient", "v")])
def test_dimensions_that_a_robot_lacks_are_no_part_of_the_loss(loss, prediction):
    """Each row's loss is that of the problem without its padding; no gradient reaches the rest."""
    wide = 5
    objective = step_lib.Objective(loss=loss, prediction=prediction)
    batch = _batch()
    has = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 1, 0, 1], [0, 0, 0, 0, 0]] * 2, bool)
    action = jax.random.normal(jax.random.key(5), (B, H, wide))
    filler = jnp.array([jnp.nan, jnp.inf, -jnp.inf, 1e30, 0.0])
    batch |= {"action": jnp.where(has[:, None], action, filler), "dims": jnp.asarray(has)}
    params = {"h": jax.random.normal(jax.random.key(6), (B, H, wide))}
    keys, noise_key = jax.random.split(jax.random.key(2), B), jax.random.key(3)
    function = jax.jit(
        jax.value_and_grad(step_lib.make_loss(objective, _free_outputs), has_aux=True)
    )
    (total, (rows, keep)), grads = function(params, batch, keys, noise_key)
    noised = jax.jit(functools.partial(step_lib.noised, objective))
    start, z, _ = noised(batch | {"action": action}, keys, noise_key)
    admissible = losses.batch_keep_mask(batch["sigma"], batch["sigma_min"], batch["sigma_max"])
    np.testing.assert_array_equal(keep, admissible & has.any(1))
    assert 3 <= keep.sum() < B
    kernels = {"denoising": losses.batch_denoising_loss, "ambient": losses.batch_ambient_loss}
    for i, dims in enumerate(has):
        counted = np.asarray(batch["mask"][i])[:, None] & dims & bool(keep[i])
        np.testing.assert_array_equal(np.asarray(grads["h"][i]) != 0, counted)
        if keep[i]:
            narrow = (a[i : i + 1][..., dims] for a in (params["h"], start, z))
            level = (batch[n][i : i + 1] for n in ("sigma", "sigma_min", "sigma_max", "mask"))
            alone = kernels[loss](*narrow, *level, prediction=prediction)
            np.testing.assert_allclose(rows[i], alone[0], rtol=1e-5)
    np.testing.assert_allclose(total, np.sum(np.where(keep, rows, 0)), rtol=1e-6)


def _camera_batch():
    images = jax.random.randint(jax.random.key(8), (B, 2, 6, 6, 3), 0, 256, jnp.uint8)
    batch = _batch()
    batch["observation"] |= {"image_front": images, "image_front_mask": jnp.ones((B, 2), bool)}
    batch |= {"sigma_min": jnp.zeros(B), "sigma_max": jnp.ones(B)}
    return batch


def _see(params, x_t, sigma, observation):
    seen = observation["image_front"].astype(jnp.float32)[:, :, :4, :4].mean((1, 2, 3)) / 255
    return _apply(params, x_t, sigma, observation) + seen[:, None, :D]


def _see_step(**options):
    optimizer = optim.make_optimizer(config_lib.default().train)
    step = step_lib.make_train_step(step_lib.Objective(), _see, optimizer, **options)
    return step, state_lib.create(_params(), optimizer, 2)


STRONG = augment.Augmentation(crop=(4, 4), brightness=0.3)


def test_no_augmentation_is_no_operation():
    programs = []
    for options in ({}, {"augmentation": augment.Augmentation()}, {"augmentation": STRONG}):
        step, state = _see_step(**options)
        programs.append(str(jax.make_jaxpr(step)(state, _camera_batch(), jax.random.key(0))))
    strip = [re.sub(r" at 0x[0-9a-f]+", "", program) for program in programs]
    assert strip[0] == strip[1] != strip[2]


def test_augmentation_is_that_of_the_rows_by_their_global_number():
    rng, batch = jax.random.key(0), _camera_batch()
    (plain, state), (some, _) = _see_step(), _see_step(augmentation=STRONG)
    plain, some = jax.jit(plain), jax.jit(some)
    for step in (0, 3):
        state = state.replace(step=jnp.asarray(step))
        key = jax.random.fold_in(step_lib.noise_first.stream_key(rng, "augmentation"), step)
        camera = jax.random.fold_in(key, augment.zlib.crc32(b"image_front"))
        images = jnp.stack(
            [
                STRONG(jax.random.fold_in(camera, row), batch["observation"]["image_front"][row])
                for row in range(B)
            ]
        )
        by_hand = {**batch, "observation": {**batch["observation"], "image_front": images}}
        chex.assert_trees_all_close(
            some(state, batch, rng), plain(state, by_hand, rng), rtol=1e-5, atol=1e-6
        )


@pytest.mark.slow
def test_augmentation_on_8_devices_is_that_on_1():
    """Eight devices, one row each, in a process of their own."""
    script = f"""
        import importlib.util
        import jax, numpy as np
        from ambient_jax.train import parallel
        spec = importlib.util.spec_from_file_location("tests_step", {__file__!r})
        tests = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tests)
        assert jax.local_device_count() == 8
        key = jax.random.key(4)
        alone, state = tests._see_step(augmentation=tests.STRONG)
        alone = jax.jit(alone)
        step, first = tests._see_step(augmentation=tests.STRONG, axis_name=parallel.AXIS)
        step, many = parallel.lift_streamed(step, key), parallel.replicate(first)
        batch = tests._camera_batch()
        for n in range(2):
            state = alone(state, batch, key)
            many = step(many, parallel.shard(jax.tree.map(np.asarray, batch)))
        many = parallel.unreplicate(many)
        assert int(many.step) == 2
        for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(many), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)
    """
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def _noise(minimum):
    curves = tuple(map(observations.curve, (0.0, minimum)))
    return observations.ObservationNoise(("state",), observations.Levels(0.5, 0.2), curves)


def test_rows_dropped_at_every_level_teach_the_network_nothing_about_observations():
    """A source with minimum 1 shows zeros: the gradient of the observation's weights is that of the
    clean rows alone, and the source's observations, even infinite ones, change nothing."""
    batch, keys = _batch(), jax.random.split(jax.random.key(2), B)
    batch |= {"sigma_min": jnp.zeros(B), "sigma_max": jnp.ones(B)}
    loss = step_lib.make_loss(step_lib.Objective(), _apply, observation_noise=_noise(1.0))
    wrong = jnp.where((batch["source"] == 1)[:, None, None], jnp.inf, batch["observation"]["state"])
    spoilt = {**batch, "observation": {"state": wrong}}
    grad = jax.grad(lambda b: loss(_params(), b, keys, jax.random.key(0))[0], allow_int=True)
    value = jax.value_and_grad(lambda p, b: loss(p, b, keys, jax.random.key(0))[0])
    (v, g), (w, h) = value(_params(), batch), value(_params(), spoilt)
    np.testing.assert_allclose(v, w)
    chex.assert_trees_all_close(g, h)
    assert np.isfinite(jax.tree.leaves(g)[0]).all()
    moved = grad(batch)["observation"]["state"]
    assert not np.any(np.asarray(moved)[np.asarray(batch["source"]) == 1])
    assert np.any(np.asarray(moved)[np.asarray(batch["source"]) == 0])


def test_observation_noise_reaches_the_network_with_its_level():
    seen = {}

    def apply(params, x_t, sigma, observation):
        seen.update(observation)
        return _apply(params, x_t, sigma, observation)

    batch, keys = _batch(), jax.random.split(jax.random.key(2), B)
    batch |= {"sigma_min": jnp.zeros(B), "sigma_max": jnp.ones(B)}  # no row is masked
    loss = step_lib.make_loss(step_lib.Objective(), apply, observation_noise=_noise(0.5))
    loss(_params(), batch, keys, jax.random.key(0))
    level, state = seen[observations.LEVEL][:, 0, 0], batch["observation"]["state"]
    assert (level[batch["source"] == 1] >= 0.5).all()
    same = (seen["state"] == state).all((1, 2))
    np.testing.assert_array_equal(same[batch["source"] == 0], level[batch["source"] == 0] == 0)


def test_a_coloured_schedule_colours_the_noise_of_both_losses():
    colour = 2.0
    matrix = corruption.colour_matrix(H, colour)
    for loss in step_lib.LOSSES:
        batch = _batch(20_000) | {
            "sigma_min": jnp.full(20_000, 0.4),
            "sigma": jnp.full(20_000, 0.8),
        }
        batch["action"] = jnp.zeros_like(batch["action"])
        objective = step_lib.Objective(loss=loss, schedule=schedules.vp(colour=colour))
        keys = jax.random.split(jax.random.key(0), 20_000)
        x_t = np.asarray(step_lib.noised(objective, batch, keys, jax.random.key(1))[2])[..., 0]
        np.testing.assert_allclose(np.cov(x_t.T), 0.64 * matrix @ matrix, atol=0.05)
