import numpy as np
import pytest

from ambient_jax import mixing
from ambient_jax.data import mixture as mixtures
from ambient_jax.train import config as train_config
from tests.data.storage import lerobot_folders

AMBIENT = mixing.Ambient()
TWO = {
    "demos": ([5, 6], "clean", {}),
    "rrt": ([7, 8, 9], "corrupt", {"sigma_min": 0.3, "weight": 2.0}),
}


def test_prepared_sources(make_config):
    mixture = mixtures.open_mixture(make_config(TWO, normalization="bounds"), AMBIENT)
    assert mixture.names == ("demos", "rrt")
    assert mixture.chunks.tolist() == [11, 24]
    assert mixture.action_dim == 2
    assert mixture.chain.dims == {"state": 2, "goal": 1}
    np.testing.assert_allclose(mixture.sources.weight, np.array([11, 48]) / 59, rtol=1e-6)
    assert mixture.sources.clean.tolist() == [True, False]
    np.testing.assert_allclose(mixture.sources.sigma_min, [0, 0.3])
    np.testing.assert_allclose(mixture.sources.sigma_max, [1, 0])
    # Pooled bounds: episodes 0 to 2, steps 0 to 8.
    unit = mixture.normalizer.normalize("observation/state", np.array([[0, 0], [2, 8], [1, 4]]))
    np.testing.assert_array_equal(unit, [[-1, -1], [1, 1], [0, 0]])


def test_reading_normalises(make_config):
    config = make_config(TWO, normalization="bounds", normalize_per="source")
    mixture = mixtures.open_mixture(config, AMBIENT)
    arrays = mixture.read(1, 2, mixture.datasets["rrt"][2])
    assert set(arrays) == {"action", "observation/state", "observation/goal"}
    np.testing.assert_allclose(arrays["action"][:, 1], np.linspace(-1, 1, 9), atol=1e-6)
    shorter = mixture.read(0, 0, mixture.datasets["demos"][0])
    np.testing.assert_allclose(shorter["action"][:, 1], np.linspace(-1, 0.6, 5), atol=1e-6)


def double(episode):
    steps = episode["steps"]
    return {"steps": {"observation": {"pose": steps["observation"]["state"]},
                      "action": 2 * steps["action"]}}  # fmt: skip


def test_transforms_come_first(make_config):
    config = make_config({"demos": TWO["demos"]}, observation=("pose",))
    mixture = mixtures.open_mixture(config, AMBIENT, transforms={"demos": double})
    assert mixture.statistics["demos"].fields["action"].max.tolist() == [2.5, 10.5]
    assert mixture.read(0, 1, mixture.datasets["demos"][1])["action"][0].tolist() == [2.5, 0.5]
    with pytest.raises(ValueError, match="source of a transform is 'demo'.*did you mean 'demos'"):
        mixtures.open_mixture(config, AMBIENT, transforms={"demo": double})


def test_slices_keep_their_ids(make_config):
    config = make_config({"demos": ([5, 6, 7, 8], "clean", {"split": "train[50%:]"})})
    mixture = mixtures.open_mixture(config, AMBIENT)
    assert mixture.statistics["demos"].lengths.tolist() == [7, 8]
    assert mixture.datasets["demos"].episode_ids.tolist() == [2, 3]


def test_absolute_paths_ignore_the_root(make_config, tmp_path):
    config = make_config(TWO)
    config.sources.demos.path = str(tmp_path / "data" / "demos")
    config.sources.rrt.path = "../data/rrt"
    assert mixtures.open_mixture(config, AMBIENT).chunks.tolist() == [11, 24]
    config.root = str(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="source 'rrt': .*elsewhere/../data/rrt does not"):
        mixtures.open_mixture(config, AMBIENT)


def with_source(name, **fields):
    def change(config):
        for field, value in fields.items():
            with config.unlocked():
                config.sources[name][field] = value

    return change


def with_fields(**fields):
    return lambda config: config.update(fields)


def without(name, field):
    def change(config):
        with config.unlocked():
            del config.sources[name][field]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            with_source("rrt", sigma_mn=0.1),
            "field of config.data.sources.rrt is 'sigma_mn'.*did you mean 'sigma_min'",
        ),
        (
            with_source("rrt", role="corupt"),
            "sources.rrt.role is 'corupt'.*did you mean 'corrupt'",
        ),
        (without("rrt", "role"), "config.data.sources.rrt.role is missing"),
        (with_source("demos", path=""), "config.data.sources.demos.path is missing"),
        (
            with_source("rrt", weight=-1.0),
            "sources.rrt.weight is -1.0, expected at least 0 and finite",
        ),
        (with_source("rrt", weight=float("nan")), "sources.rrt.weight is nan"),
        (with_source("rrt", sigma_min=1.5), r"sigma_min of 'rrt' is 1.5, expected .* in \[0, 1\]"),
        (with_source("rrt", sigma_max=-0.1), "sigma_max of 'rrt' is -0.1"),
        (
            with_source("rrt", sigma_max=0.4),
            "source 'rrt' has sigma_max 0.4 above sigma_min 0.3, which admits every",
        ),
        (
            with_source("demos", sigma_min=0.2),
            "source 'demos' is clean and has sigma_min 0.2, sigma_max None: clean data train every",
        ),
        (with_source("demos", sigma_max=0.2), "source 'demos' is clean and has sigma_min 0.0"),
        (
            with_source("rrt", split="test"),
            "source 'rrt': .* has no split 'test', it has train",
        ),
        (
            with_fields(observation=("state", "goals")),
            "source 'demos': .* no feature 'steps/observation/goals'.*did you mean",
        ),
        (with_fields(action="actoin"), "source 'demos': .*did you mean 'steps/action'"),
        (with_fields(observation=()), "config.data.observation is empty"),
        (with_fields(history=0), "config.data.history is 0, expected at least 1"),
        (with_fields(horizon=0), "config.data.horizon is 0"),
        (
            with_fields(horizon=10),
            r"horizon is 10, longer than every episode \(longest: demos 6, rrt 9 steps\)",
        ),
        (with_fields(normalization="bound"), "config.data.normalization .*did you mean 'bounds'"),
        (with_fields(normalize_per="all"), "config.data.normalize_per is 'all', expected one of"),
        (with_fields(order="data-first"), "config.data.order .*did you mean 'data_first'"),
        (with_fields(placement="devise"), "config.data.placement .*did you mean 'device'"),
        (
            with_fields(placement="stream", order="data_first"),
            "order is 'data_first' and placement 'stream': a stream is noise first",
        ),
    ],
)
def test_bad_configs(make_config, change, message):
    config = make_config(TWO)
    change(config)
    with pytest.raises(ValueError, match=message):
        mixtures.open_mixture(config, AMBIENT)


def test_no_sources(make_config):
    with pytest.raises(ValueError, match="config.data.sources is empty, expected at least one"):
        mixtures.open_mixture(make_config({}), AMBIENT)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (1.0, 0.3), (0.3, 0.3), (0.3, 0.0)])
def test_bounds_that_make_sense(make_config, low, high):
    config = make_config(TWO)
    config.sources.rrt.update(sigma_min=low, sigma_max=high)
    mixture = mixtures.open_mixture(config, AMBIENT)
    np.testing.assert_allclose(mixture.sources.sigma_max, [1, high], rtol=1e-6)


def test_a_law_that_admits_nothing(make_config):
    with pytest.raises(ValueError, match="Ambient has nothing to train sigma in .*rrt: corrupt"):
        mixtures.open_mixture(make_config({"rrt": TWO["rrt"]}), AMBIENT)
    with pytest.raises(ValueError, match="Filtering has nothing to train"):
        mixtures.open_mixture(make_config({"other": TWO["rrt"]}), mixing.Filtering())


def wide(number, length):
    flags = {n: np.zeros(length, bool) for n in ("is_first", "is_last", "is_terminal")}
    rewards = {n: np.zeros(length, np.float32) for n in ("reward", "discount")}
    observation = {"state": np.zeros((length, 5), np.float32), "goal": np.zeros((length, 1))}
    action = np.full((length, 3), number, np.float32)
    return {"steps": {"observation": observation, "action": action, **flags, **rewards}}


def test_sources_of_differing_shapes(make_config):
    config = make_config({"demos": TWO["demos"], "wide": ([wide(0, 5)], "corrupt", {})}, shards=1)
    with pytest.raises(
        ValueError, match="action has 2 numbers a step in source 'demos' and 3 in 'wide'"
    ):
        mixtures.open_mixture(config, mixing.CoTraining())


def test_data_that_are_not_finite(make_config):
    bad = wide(1, 6)
    bad["steps"]["action"][4, 1] = np.nan
    config = make_config({"wide": ([wide(0, 5), bad], "clean", {})})
    with pytest.raises(
        ValueError, match=r"source 'wide', episode 1, step 4: steps/action\[1\] is nan"
    ):
        mixtures.open_mixture(config, AMBIENT)


@pytest.mark.parametrize("written", ["[3]", "{", '{"observation.state": 3}', "sound"])
def test_statistics_that_a_data_set_states_in_no_known_way_are_a_doubt(
    make_config, tmp_path, written
):
    folder = lerobot_folders.write_v3(tmp_path / "v3")
    if written != "sound":
        (folder / "meta/stats.json").write_text(written)
    config = make_config({}, observation=("state",), horizon=3)
    config.sources.v3 = train_config.source(str(folder), "clean")
    problems = mixtures.open_mixture(config, AMBIENT).problems["v3"]
    if written == "sound":
        assert not problems
    else:
        ((_, text),) = problems["statistics"]["examples"]
        assert "data set states cannot be read" in text and "\n" not in text
