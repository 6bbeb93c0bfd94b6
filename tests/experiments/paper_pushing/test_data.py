"""The demonstrations: read back as training does, and what pictures they have."""

import ml_collections
import numpy as np
import pytest

from ambient_jax.data.rlds import open_dataset
from experiments.paper_pushing import cameras, data
from experiments.paper_pushing.env import PaperScene

SCENE = PaperScene(position=0.04, angle=0.5, back=0.05)
SIZES = dict(target=2, source=2, held_out=1, images_target=1, images_source=1)
OPTIONS = dict(scene=SCENE, workers=1, progress=False)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("paper")
    return root, data.build(root, **SIZES, **OPTIONS)


@pytest.mark.parametrize("world", ["target", "source"])
def test_episodes_read_back(built, world):
    dataset = open_dataset(built[1][world])
    made = list(data.demonstrations(world, 2, **OPTIONS))
    assert len(dataset) == 2
    for number, (index, demo) in enumerate(made):
        steps = dataset[number]["steps"]
        np.testing.assert_array_equal(steps["observation"]["state"], demo.states)
        np.testing.assert_array_equal(steps["action"], demo.actions)
        assert dataset[number]["episode_metadata"]["index"] == index
        assert demo.success


@pytest.mark.parametrize("world", ["target", "source"])
def test_pictures_are_those_of_the_first_demonstrations(built, world):
    low, seen = (open_dataset(built[1][name])[0]["steps"] for name in (world, f"images_{world}"))
    np.testing.assert_array_equal(low["action"], seen["action"])
    states = low["observation"]["state"]
    np.testing.assert_array_equal(seen["observation"]["pusher"], states[:, :2])
    for at in (0, len(states) - 1):
        for name, image in cameras.draw(states[at], SCENE).items():
            stored = seen["observation"][name][at]
            if isinstance(stored, bytes):
                from ambient_jax.data import images

                stored = images.decode(stored)
            np.testing.assert_allclose(stored.astype(int), np.asarray(image, int), atol=1)


def test_the_loader_of_the_library_reads_the_pictures(built):
    from ambient_jax.data import mixture
    from experiments.paper_pushing import config as configs

    config = configs.get_config("pixels")
    config.data.root = str(built[0])
    config.data.sources.target.split = "train"
    config.data = ml_collections.ConfigDict(config.data.to_dict())
    source = mixture.open_source(config.data, "target")
    assert len(source) == 1 and config.data.placement == "stream"


def test_worlds_and_counts_are_checked(tmp_path):
    with pytest.raises(ValueError, match="world is 'moon'"):
        next(data.demonstrations("moon", 1))
    with pytest.raises(ValueError, match="no negative count"):
        data.build(tmp_path, target=-1)
