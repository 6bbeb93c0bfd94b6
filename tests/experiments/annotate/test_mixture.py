"""Bounds of several data sets of Open-X in one run, from their features to a batch of training."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ambient_jax import mixing, schedules
from ambient_jax.annotate import evidence, thresholds
from ambient_jax.data import bounds, device, pipeline, rlds
from ambient_jax.data import mixture as mixtures
from ambient_jax.train import config as config_lib
from experiments.annotate import __main__ as command
from experiments.annotate import config as annotate_config
from experiments.annotate import known
from experiments.open_x import config as open_x_config

# 7 dimensions, 16, 2, and one without rotations.
NAMES = ("bridge_orig", "aloha_mobile_dataset", "language_table", "jaco_play", "kuka", "viola")


def some(data, root):
    data.root = str(root)
    for name in set(data.sources) - set(NAMES):
        del data.sources[name]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = annotate_config.get_config("open_x_debug")
    some(config.data, tmp_path_factory.mktemp("fixtures"))
    config.task.update(dict(steps=20, judged=8, compared=4, features=(8,), draws=1))
    return config


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("annotation")
    command.run(config, str(folder))
    return folder


@pytest.mark.slow
def test_one_file_has_a_bound_for_every_step_of_every_corrupt_source(workdir):
    made = bounds.read(workdir / "bounds" / "dataset.parquet")
    results = json.loads((workdir / "report" / "results.json").read_text())
    assert sorted(made.names) == sorted(set(NAMES) - {"bridge_orig"})
    for name in made.names:
        (low,) = set(made.sigma_min[made.rows(name)].tolist())
        curve = thresholds.sigma_min(results["levels"], results["curves"][name], tau=0.05)
        assert low == pytest.approx(thresholds.round_up(curve, evidence.grid(64)), abs=1e-6)
    table = (workdir / "report" / "table.md").read_text().splitlines()
    cells = {line.split("|")[1].strip(): line.split("|") for line in table[2:7]}
    assert [int(cells[n][4]) for n in NAMES[1:]] == [7, 2, 4, 7, 7]
    assert [int(cells[n][2]) for n in NAMES[1:]] == [len(made.rows(n)) for n in NAMES[1:]]
    # In order of sigma_min, of a page of curves.
    low = [float(row[5]) for row in cells.values()]
    assert low == sorted(low)
    assert (workdir / "report" / "curves.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["stream", "device"])
def test_training_on_images_joins_the_file(config, workdir, placement):
    data = open_x_config.get_config("debug").data
    some(data, config.data.root)
    path = workdir / "bounds" / "dataset.parquet"
    data.bounds, data.placement = str(path), placement
    if placement == "device":
        data.open_x.cameras, data.open_x.instruction_bytes = (), 0
    mixture = mixtures.open_mixture(data, mixing.Ambient())
    law, schedule = mixing.Ambient(), schedules.vp()
    if placement == "stream":
        stream = pipeline.stream_batches(mixture, law, schedule, seed=0, batch_size=64)
        batch = next(stream)
    else:
        sampler = jax.jit(mixture.sampler(law, schedule))
        batch = sampler(device.load_device_data(mixture), jax.random.key(0), 0, jnp.arange(64))
    made = bounds.read(path)
    assert len(set(np.asarray(batch["source"]).tolist())) > 1
    for k, name in enumerate(mixture.names):
        rows = np.asarray(batch["source"]) == k
        want = 0 if name == "bridge_orig" else made.sigma_min[made.rows(name)[0]]
        np.testing.assert_array_equal(np.asarray(batch["sigma_min"])[rows], np.float32(want))
        assert np.all(np.asarray(batch["sigma"])[rows] >= want)


def test_bad_configs_are_named(config, tmp_path):
    other = config.copy_and_resolve_references()
    other.task.granularity = ("dataset", "random")
    with pytest.raises(
        ValueError, match="config.task.judged is 8 and granularity .'dataset', 'random'.: bounds"
    ):
        command.run(other, str(tmp_path))
    other = config.copy_and_resolve_references()
    other.data.bounds = "bounds.parquet"
    with pytest.raises(ValueError, match="has a bounds file, expected none: annotation makes"):
        command.run(other, str(tmp_path))
    other = config.copy_and_resolve_references()
    other.data.sources.kuka.split = "train[:1]"
    with pytest.raises(ValueError, match="corrupt source kuka has 1 episodes, expected at least 2"):
        command.run(other, str(tmp_path))
    for variant, message in {
        "open_x,mixture=wide": "clean= is missing, expected names of the mixture's data sets",
        "open_x,cleam=kuka": "option 'cleam', expected one of mixture=, clean=.*did you mean",
        "maze,clean=gcs": "option 'clean', expected one of none for this variant",
        "open_x,mixture=wide,clean=bridge": "clean is 'bridge', expected",
    }.items():
        with pytest.raises(ValueError, match=message):
            annotate_config.get_config(variant)


def test_every_variant_is_a_valid_config():
    for name in annotate_config.VARIANTS:
        option = ",clean=kuka" if name in ("open_x", "labels") else ""
        config_lib.check(annotate_config.get_config(f"{name}{option}"))


def test_options_choose_the_mixture_and_what_is_clean():
    config = annotate_config.get_config("open_x,mixture=rtx,clean=bridge_dataset+viola")
    roles = {name: source.role for name, source in config.data.sources.items()}
    assert len(roles) == 11
    assert sorted(n for n, role in roles.items() if role == "clean") == ["bridge_dataset", "viola"]
    # Data as training has them.
    training = open_x_config.get_config("rtx,clean=bridge_dataset+viola").data
    for field in ("horizon", "normalization", "normalize_per"):
        assert config.data[field] == training[field]
    for field in ("hz", "rotation", "action_width"):
        assert config.data.open_x[field] == training.open_x[field]


def test_known_laws_have_the_densities_of_what_is_drawn():
    """Of whole chunks and of those that hold their last action: E_q[p / q] = 1."""
    shift, scale = np.array([0.1, -0.2]), np.array([0.7, 1.2])
    law = known.Chunks(known.Law(), 4, 10, shift, scale)
    other = known.Chunks(known.Law(offset=0.3, length=5.0), 4, 10, shift, scale)
    rng = np.random.default_rng(0)
    x0 = other.draw(rng, 20_000)
    assert np.mean(np.all(x0[:, 2] == x0[:, 3], -1)) == pytest.approx(0.3, abs=0.02)
    np.testing.assert_allclose(x0.mean((0, 1)), (0.3 - shift) / scale, atol=0.03)
    for sigma in (0.3, 0.8):
        x_t = np.sqrt(1 - sigma**2) * x0 + sigma * rng.normal(size=x0.shape)
        ratio = np.exp(law.log_density(x_t, sigma) - other.log_density(x_t, sigma))
        assert ratio.mean() == pytest.approx(1, abs=4 * ratio.std() / np.sqrt(len(ratio)))
    curve = known.exact_curve(law, law, np.array([0.1, 0.9]), draws=100)
    np.testing.assert_allclose(curve, 0.5, atol=1e-9)


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("task", "sources", 9),
        ("task", "episodes", 3),
        ("task", "episode_steps", 7),
        ("", "seed", 1),
    ],
)
def test_known_data_are_drawn_anew_for_another_config(section, field, value, tmp_path):
    config = annotate_config.get_config("known_debug")
    config.data.root = str(tmp_path)
    config.task.update(dict(clean_episodes=2, episodes=2, episode_steps=6))

    def built():
        known.build(config)
        info = tmp_path / "jitter_01" / "1.0.0" / "dataset_info.json"
        return info.stat().st_ino, info.stat().st_mtime_ns

    before = built()
    assert built() == before
    (config[section] if section else config)[field] = value
    assert built() != before
    data = rlds.open_dataset(tmp_path / "jitter_01")
    assert len(data) == config.task.episodes
    assert len(data[0]["steps"]["action"]) == config.task.episode_steps
