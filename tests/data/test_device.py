import functools

import jax
import numpy as np
import pytest

from ambient_jax import mixing, schedules
from ambient_jax.data import device
from ambient_jax.data import mixture as mixtures

VP = schedules.vp()
AMBIENT = mixing.Ambient()
TWO = {
    "demos": ([5, 1, 6], "clean", {}),
    "rrt": ([7, 8, 2, 9], "corrupt", {"sigma_min": 0.4, "sigma_max": 0.2}),
}


def sampler(mixture, law=AMBIENT):
    return jax.jit(mixture.sampler(law, VP))


def check_content(batch, history, horizon, lengths):
    """Every entry from its id: values of the episodes are (episode, step), plus 0.25 in actions."""
    for i, (source, episode, step) in enumerate(np.asarray(batch["id"]).tolist()):
        length = lengths[source][episode]
        assert batch["source"][i] == source and 0 <= step < length
        past = [max(step - history + 1 + j, 0) for j in range(history)]
        ahead = [step + j for j in range(horizon)]
        states = [[episode, t] for t in past]
        actions = [[episode + 0.25, min(t, length - 1) + 0.25] for t in ahead]
        assert batch["observation"]["state"][i].tolist() == states
        assert batch["observation"]["goal"][i].tolist() == [[episode + 0.5]] * history
        assert batch["action"][i].tolist() == actions
        assert batch["mask"][i].tolist() == [t < length for t in ahead]


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
@pytest.mark.parametrize(("history", "horizon"), [(1, 1), (3, 4), (12, 9)])
def test_batches_are_what_their_ids_say(make_config, file_format, history, horizon):
    config = make_config(TWO, file_format, history=history, horizon=horizon)
    mixture = mixtures.open_mixture(config, AMBIENT)
    data = device.load_device_data(mixture)
    batch = sampler(mixture)(data, jax.random.key(0), 3, np.arange(300))
    shapes = {n: v.shape for n, v in batch.items() if n != "observation"}
    assert shapes == {
        "action": (300, horizon, 2),
        "mask": (300, horizon),
        "id": (300, 3),
        **dict.fromkeys(("sigma", "source", "sigma_min", "sigma_max"), (300,)),
    }
    check_content(jax.device_get(batch), history, horizon, [TWO["demos"][0], TWO["rrt"][0]])
    # All chunks of both sources: 12 and 26; 300 draws miss none of them under this key.
    assert len(np.unique(batch["id"], axis=0)) == 38
    np.testing.assert_allclose(batch["sigma_min"], np.array([0, 0.4])[batch["source"]], rtol=1e-6)
    np.testing.assert_allclose(batch["sigma_max"], np.array([1, 0.2])[batch["source"]], rtol=1e-6)
    kept = (batch["sigma"] > batch["sigma_min"]) | (batch["sigma"] < batch["sigma_max"])
    assert np.all(kept)


def test_rows_do_not_depend_on_their_device(make_config):
    mixture = mixtures.open_mixture(make_config(TWO), AMBIENT)
    data = device.load_device_data(mixture)
    sample = functools.partial(sampler(mixture), data, jax.random.key(1))
    whole = sample(7, np.arange(32))
    parts = [sample(7, rows) for rows in np.split(np.arange(32), 4)]
    joined = jax.tree.map(lambda *p: np.concatenate(p), *parts)
    jax.tree.map(np.testing.assert_array_equal, whole, joined)
    other = sample(8, np.arange(32))
    assert np.all(np.asarray(whole["sigma"]) != np.asarray(other["sigma"]))


def test_normalised_by_source(make_config):
    config = make_config(TWO, normalization="bounds", normalize_per="source")
    mixture = mixtures.open_mixture(config, AMBIENT)
    data = device.load_device_data(mixture)
    for k in (0, 1):
        rows = slice(data.offset[k], data.offset[k] + data.size[k])
        for values in data.steps.values():
            np.testing.assert_allclose(values[rows].min(0), -1)
            np.testing.assert_allclose(values[rows].max(0), 1)


def test_empty_episodes_are_never_drawn(make_config):
    mixture = mixtures.open_mixture(
        make_config({"demos": ([4, 3, 5], "clean", {})}), AMBIENT, transforms={"demos": drop_second}
    )
    data = device.load_device_data(mixture)
    batch = sampler(mixture)(data, jax.random.key(0), 0, np.arange(200))
    assert set(batch["id"][:, 1].tolist()) == {0, 2}


def drop_second(episode):
    steps = episode["steps"]
    keep = slice(0, 0 if steps["action"][0, 0] == 1.25 else None)
    observation = {n: v[keep] for n, v in steps["observation"].items()}
    return {"steps": {"observation": observation, "action": steps["action"][keep]}}


def test_laws_that_ignore_bounds_say_so_in_the_batch(make_config):
    """Otherwise the loss would mask what the law has drawn."""
    law = mixing.CoTraining()
    mixture = mixtures.open_mixture(make_config(TWO), law)
    batch = sampler(mixture, law)(
        device.load_device_data(mixture), jax.random.key(0), 0, np.arange(100)
    )
    assert set(batch["source"].tolist()) == {0, 1}
    assert np.all(batch["sigma_min"] == 0) and np.all(batch["sigma_max"] == 1)


def test_data_first_has_weights_that_restore_the_law(make_config):
    config = make_config(TWO, order="data_first")
    mixture = mixtures.open_mixture(config, AMBIENT)
    data = device.load_device_data(mixture)
    batch = sampler(mixture)(data, jax.random.key(0), 0, np.arange(40_000))
    source, sigma, weight = (np.asarray(batch[n]) for n in ("source", "sigma", "weight"))
    assert abs(np.mean(source == 0) - 12 / 38) < 0.01
    # Noise first: p(sigma) is uniform, and the clean share is 1 in the middle, 12/38 outside.
    middle = (sigma > 0.2) & (sigma <= 0.4)
    for where, source_share, mass in ((middle, 1.0, 0.2), (~middle, 12 / 38, 0.8)):
        total = np.sum(weight * where)
        assert abs(total / len(sigma) - mass) < 0.02
        assert abs(np.sum(weight * where * (source == 0)) / total - source_share) < 0.02


def test_noise_first_has_no_weight(make_config):
    mixture = mixtures.open_mixture(make_config(TWO), AMBIENT)
    batch = sampler(mixture)(device.load_device_data(mixture), jax.random.key(0), 0, np.arange(2))
    assert "weight" not in batch
