"""A mixture of formats: one batch from all, whose values are what the formats' libraries read."""

import itertools

import h5py
import jax
import numpy as np
import pytest
import zarr

from ambient_jax import mixing, schedules
from ambient_jax.data import pipeline
from tests.data.storage.written import (
    ENDS,
    h5_of,
    pictures,
    write_agibot,
    write_robomimic,
    write_zarr,
)

H, T, SIZE = 3, 2, 8  # horizon, history, side of the images
VP, LAW = schedules.vp(), mixing.Ambient()
SPECS = {
    "pusht": {"action": "joint action", "state": "observation/state"},
    "lift": {
        "action": "xyz action[0:3]; rpy action[3:6]; grip action[6] | clip",
        "state": "observation/robot0_eef_pos + observation/object[2:5]",
    },
    "agibot": {
        "action": "joint actions.joint.position[0:7]; grip actions.effector.position[0] | as_is",
        "state": "observation/states.joint.position[7:14]",
        "language": "language_instruction",
    },
}
CAMERAS = {"pusht": "img", "lift": "agentview_image", "agibot": "images.head"}


def rows(name, path):
    """{episode: (actions, states, images or None)} by the formats' own libraries."""
    if name == "pusht":
        data = zarr.open_group(zarr.storage.ZipStore(path, mode="r"), mode="r")["data"]
        spans = zip([0, *ENDS[:-1]], ENDS, strict=True)
        return {
            i: tuple(data[n][a:b] for n in ("action", "state", "img"))
            for i, (a, b) in enumerate(spans)
        }
    if name == "lift":
        with h5py.File(path) as file:
            found = {}
            for demo, group in file["data"].items():
                actions, obs = group["actions"][()], group["obs"]
                actions[:, 6] = np.clip(actions[:, 6], 0, 1)
                state = np.hstack([obs["robot0_eef_pos"], obs["object"][:, 2:5]])
                found[int(demo[5:])] = actions, state, obs["agentview_image"][()]
            return found
    found = {}
    for episode, length in {648642: 12, 648649: 9}.items():
        with h5py.File(h5_of(path, 327, episode)) as file:
            joints, hands = file["action/joint/position"], file["action/effector/position"]
            actions = np.hstack([joints[:, :7], hands[:, :1]])
            states = file["state/joint/position"][:, 7:]
        found[episode] = actions, states, pictures(episode, "head", length)
    return found


@pytest.fixture
def mixture(make_common, tmp_path):
    paths = {
        "pusht": write_zarr(tmp_path / "pusht.zarr.zip"),
        "lift": write_robomimic(tmp_path / "lift.hdf5"),
        "agibot": write_agibot(tmp_path / "agibot"),
    }
    options = {"pusht": {}, "lift": {"sigma_min": 0.3}, "agibot": {"split": "task_327"}}
    sources = {
        name: (path, SPECS[name] | {"primary": f"observation/{CAMERAS[name]}"}, options[name])
        for name, path in paths.items()
    }
    form = {"cameras": ("primary",), "image_size": (SIZE, SIZE), "instruction_bytes": 20}
    config = make_common(
        sources, form | {"on_problem": {"instruction": "keep"}}, history=T, horizon=H
    )
    return pipeline.open_mixture(config, LAW), {n: rows(n, paths[n]) for n in paths}


def test_batches_of_three_formats_are_what_their_ids_say(mixture):
    mixture, stored = mixture
    batches, seen = pipeline.stream_batches(mixture, LAW, VP, seed=0, batch_size=8), set()
    try:
        for batch in itertools.islice(batches, 40):
            for i, (k, episode, step) in enumerate(batch["id"].tolist()):
                name = mixture.names[k]
                actions, states, images = stored[name][episode]
                past = np.maximum(step - T + 1 + np.arange(T), 0)
                ahead = np.minimum(step + np.arange(H), len(actions) - 1)
                width = actions.shape[1]
                found = batch["action"][i]
                np.testing.assert_allclose(found[:, :width], actions[ahead], rtol=1e-6, atol=1e-7)
                observation = {n: v[i] for n, v in batch["observation"].items()}
                width = states.shape[1]
                np.testing.assert_allclose(observation["state"][:, :width], states[past], rtol=1e-6)
                assert observation["image_primary_mask"].all()
                if name == "agibot":  # flat pictures, which a video keeps but for a little
                    off = np.abs(observation["image_primary"] - images[past][:, :1, :1].astype(int))
                    assert off.mean() < 5
                    text = bytes(observation["instruction"]).rstrip(b"\0")
                    assert text in (b"Pick up the cup", b"Pour", b"Task 327")
                else:
                    means = observation["image_primary"].mean((1, 2)), images[past].mean((1, 2))
                    np.testing.assert_allclose(*means, atol=25)
                seen.add((name, episode))
    finally:
        batches.close()
    assert seen == {(name, e) for name, episodes in stored.items() for e in episodes}


def test_a_stream_of_three_formats_goes_on_where_it_was(mixture):
    mixture, _ = mixture
    batches = pipeline.stream_batches(mixture, LAW, VP, seed=1, batch_size=4)
    resumed = pipeline.stream_batches(mixture, LAW, VP, seed=1, batch_size=4)
    try:
        for _ in range(5):
            next(batches)
        resumed.set_state(batches.get_state())
        for _ in range(5):
            jax.tree.map(np.testing.assert_array_equal, next(batches), next(resumed))
    finally:
        batches.close()
        resumed.close()
