import json
import types

import numpy as np
import pytest

from ambient_jax.train import config as config_lib
from ambient_jax.train import runs
from ambient_jax.transforms import instructions


@pytest.fixture
def config():
    config = config_lib.default()
    config.data.sources.good = config_lib.source("here", "clean")
    return config


def test_the_config_is_written_whole_and_reads_back(config, tmp_path):
    runs.write_config(config, tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["config.json"]
    saved = json.loads((tmp_path / "new" / "config.json").read_text())
    assert runs.differences(saved, config.to_dict()) == {}


def test_only_what_touches_the_training_differs(config):
    other = config_lib.default()
    other.data.sources.good = config_lib.source("there", "clean", sigma_min=0.1)
    other.name, other.policy.steps, other.train.steps = "other", 7, 9
    assert runs.differences(config.to_dict(), other.to_dict()) == {
        "data.sources.good.sigma_min": (0.0, 0.1),
        "train.steps": (20_000, 9),
    }


def test_an_option_that_an_older_run_did_not_have_differs_only_when_it_is_used(config):
    old = config.to_dict()
    del old["data"]["sources"]["good"]["bounds"]
    assert runs.differences(old, config.to_dict()) == {}
    config.data.sources.good.bounds = "file.parquet"
    assert runs.differences(old, config.to_dict()) == {
        "data.sources.good.bounds": (None, "file.parquet")
    }
    # Zero is a value like any other.
    del old["data"]["sources"]["good"]["sigma_min"]
    assert "data.sources.good.sigma_min" in runs.differences(old, config.to_dict())


def test_a_field_has_the_value_of_its_old_name(config):
    config.data.placement, config.data.shards = "stream", 2
    old = config.to_dict()
    old["data"]["lanes"] = old["data"].pop("shards")
    assert runs.differences(old, config.to_dict()) == {}
    config.data.shards = 4
    assert runs.differences(old, config.to_dict()) == {"data.shards": (2, 4)}


def test_runs_of_versions_that_never_dropped_a_last_step(config):
    """They trained on it, whatever it was: to go on, a config has to say so."""
    old = config.to_dict()
    del old["data"]["sources"]["good"]["last_step"], old["data"]["delta"]
    assert runs.differences(old, config.to_dict()) == {"data.sources.good.last_step": ("keep", "")}
    config.data.sources.good.last_step = "keep"
    config.data.delta = ()  # none: as all that was held then
    assert runs.differences(old, config.to_dict()) == {}
    config.data.delta = (0,)
    assert set(runs.differences(old, config.to_dict())) == {"data.delta"}


# Of every field that a run has: whether it may be another one when the run resumes, and such a
# value. "stream": only where the data are not streamed, "plain" and "common": only where sources
# are read as they are, or have a common form; "raise": from and to "raise" alone.
RESUMES = {
    **{name: (True, "x") for name in ("name", "data.root", "data.open_x.embeddings")},
    **{name: (True, "x") for name in ("train.init_from", "train.wandb", "task.name")},
    "train.fsdp": (True, True),
    **{f"rollouts.{name}": (True, "x") for name in ("env", "env_kwargs", "observation", "success")},
    **{name: (True, 7) for name in ("rollouts.episodes", "rollouts.seed", "train.pictures")},
    "train.pictures_split": (True, "x"),
    **{name: (True, 7) for name in ("data.prefetch", "data.open_x.workers", "policy.steps")},
    "data.assemblers": (True, 7),
    **{name: (True, 7) for name in ("train.keep", "train.keep_every", "train.log_every")},
    **{name: (True, 7) for name in ("train.checkpoint_every", "policy.execute")},
    **{name: (True, v) for name, v in (("policy.solver", "heun"), ("policy.clip", 1.0))},
    "data.open_x.quality": (True, ("smooth",)),
    "train.extend": (True, True),
    "data.sources.good.path": (True, "x"),
    "data.sources.good.bounds": (False, "x"),  # from none; see below
    "data.bounds": (False, "x"),
    **{f"data.sources.good.{n}": (False, 0.5) for n in ("weight", "sigma_min", "sigma_max")},
    **{f"data.sources.good.{n}": (False, "x") for n in ("role", "split", "open_x", "format")},
    "seed": (False, 1),
    **{f"data.{n}": (False, 9) for n in ("history", "horizon")},
    **{f"data.{n}": (False, "x") for n in ("padding", "normalization", "normalize_per")},
    **{f"data.{n}": (False, "x") for n in ("placement", "order")},
    **{f"data.{n}": ("stream", 9) for n in ("shuffle_window", "shuffle_memory")},
    "data.shards": ("stream", 9),
    "data.observation": ("plain", ("x",)),
    "data.action": ("plain", "x"),
    "data.delta": ("plain", (0,)),
    "data.least_range": (False, 0.5),
    "data.outliers": (False, "keep"),
    "train.init_maps": (True, "data"),
    "data.sources.good.last_step": (False, "keep"),
    **{f"data.open_x.{n}": ("common", 9) for n in ("hz", "instruction_bytes", "action_width")},
    "data.open_x.state_width": ("common", 9),
    "data.open_x.rotation": ("common", "quat"),
    "data.open_x.cameras": ("common", ("wrist",)),
    "data.open_x.image_size": ("common", (9, 9)),
    **{f"data.open_x.on_problem.{n}": ("raise", "skip") for n in ("version", "rate", "shard")},
    **{f"data.open_x.on_problem.{n}": ("raise", "skip") for n in ("episode", "image", "camera")},
    **{f"data.open_x.on_problem.{n}": ("raise", "skip") for n in ("flag", "last_step")},
    "data.open_x.on_problem.instruction": ("raise", "skip"),
    "augmentation.crop": (False, (9, 9)),
    "augmentation.resized_crop": (False, 0.5),
    **{f"augmentation.{n}": (False, 0.5) for n in ("brightness", "contrast", "saturation", "hue")},
    **{f"{section}.name": (False, "x") for section in ("law", "schedule", "model")},
    **{f"objective.{n}": (False, "x") for n in ("loss", "prediction", "weighting")},
    "objective.buffer": (False, 9.0),
    **{f"observation_noise.{n}": (False, 0.25) for n in ("clean", "dropped")},
    **{f"train.{n}": (False, 9) for n in ("steps", "batch_size", "accumulation", "warmup")},
    **{f"train.{n}": (False, 0.5) for n in ("learning_rate", "weight_decay", "b1", "b2", "ema")},
    "train.clip_norm": (False, 0.5),
    **{f"train.lora.{n}": (False, 9) for n in ("rank", "alpha")},
    **{f"train.lora.{n}": (False, ("x",)) for n in ("kernels", "whole")},
}


def _with(config, name, value):
    other = runs.flat(config.to_dict()) | {name: value}
    tree = {}
    for field, each in other.items():
        *parents, last = field.split(".")
        section = tree
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = each
    return tree


def test_every_field_says_whether_it_may_change(config):
    assert set(runs.flat(config.to_dict())) == set(RESUMES)


@pytest.mark.parametrize("name", RESUMES)
def test_a_field_may_change_or_not(config, name):
    rule, value = RESUMES[name]
    config.data.sources.good.role = "corrupt"  # else a bounds file would be none of its
    for placement in ("device", "stream"):
        for open_x in ("", "bridge"):
            config.data.placement, config.data.sources.good.open_x = placement, open_x
            free = {
                "stream": placement == "device",
                "plain": open_x != "",
                "common": open_x == "",
                "raise": True,
            }.get(rule, rule)
            old = config.to_dict()
            if rule == "raise":
                kept = _with(config, name, "keep")
                assert not runs.differences(kept, _with(config, name, "raise"))
                differs = name in runs.differences(kept, _with(config, name, "skip"))
                assert differs == bool(open_x)
                old = _with(config, name, "raise")
            changed = runs.differences(old, _with(config, name, value))
            # The number of shards that None stands for is known to the stream alone.
            if name == "data.shards" and placement == "stream":
                assert not changed
                changed = runs.differences(_with(config, name, 3), _with(config, name, value))
            if name == "data.placement" and placement == value:
                continue
            assert set(changed) == (set() if free else {name}), (placement, open_x)


def test_bounds_files_may_move_but_not_come_or_go(config):
    config.data.sources.good.role = "corrupt"
    old = _with(config, "data.sources.good.bounds", "a")
    assert not runs.differences(old, _with(config, "data.sources.good.bounds", "b"))
    assert set(runs.differences(old, config.to_dict())) == {"data.sources.good.bounds"}
    config.data.bounds = "a"  # of all corrupt sources, in place of each one's
    assert not runs.differences(old, config.to_dict())
    config.data.sources.good.role = "clean"
    assert "data.bounds" in runs.differences(old, config.to_dict())


def _assets(config):
    return {"config": json.loads(json.dumps(config.to_dict())), "data": {"good": "data/bounds"}}


def test_a_difference_is_told_with_the_field_both_values_and_the_ways_out(config):
    old = _assets(config)["config"]
    config.train.learning_rate, config.seed = 0.5, 3
    with pytest.raises(ValueError) as caught:
        runs.check_config(old, config, "folder")
    line = str(caught.value)
    for told in ("workdir folder holds", "seed = 0, this one has 3", "train.learning_rate differs"):
        assert told in line
    for told in ("another --workdir", "same config to resume", "free to change are", "train.keep"):
        assert told in line


def test_other_bounds_data_and_embeddings_are_told_apart(config, tmp_path):
    def mixture(mark, table=None):
        marks = {runs._EMBEDDINGS: table.digest} if table else {}
        data = {"good": types.SimpleNamespace(directory="there")}
        return types.SimpleNamespace(
            fingerprints={"good": mark}, format=types.SimpleNamespace(marks=marks), datasets=data
        )

    config.data.sources.good.bounds = "file"
    assets = _assets(config)
    runs.check_same(assets, config, mixture("data/bounds"), tmp_path)
    for mark, told in (
        ("other/bounds", "on other data of source 'good' than lie at there"),
        ("data/new", "with other bounds of source 'good' than those of 'file'"),
        ("data", "with other bounds of source 'good' than none"),
    ):
        with pytest.raises(ValueError, match=told):
            runs.check_same(assets, config, mixture(mark), tmp_path)
    tables = [
        instructions.InstructionTable(("go",), np.full((1, 2), x, np.float32)) for x in (1, 1, 2)
    ]
    config.data.sources.good.open_x = "bridge"
    config.data.open_x.embeddings = "a"
    assets = _assets(config) | {"data": runs.marks(mixture("data/bounds", tables[0]))}
    config.data.open_x.embeddings = "b"
    runs.check_same(assets, config, mixture("data/bounds", tables[1]), tmp_path)
    with pytest.raises(ValueError, match="other embeddings than those of .* = 'b'"):
        runs.check_same(assets, config, mixture("data/bounds", tables[2]), tmp_path)
    # A run of a version that kept no mark of them: the path decides.
    del assets["data"][runs._EMBEDDINGS]
    with pytest.raises(ValueError, match="other embeddings"):
        runs.check_same(assets, config, mixture("data/bounds", tables[1]), tmp_path)
    config.data.open_x.embeddings = "a"
    runs.check_same(assets, config, mixture("data/bounds", tables[1]), tmp_path)


def test_what_has_changed_is_told_in_one_line(config, caplog):
    assets = _assets(config)
    data = types.SimpleNamespace(
        fingerprints={"good": "data/bounds"}, format=types.SimpleNamespace(marks={})
    )
    config.data.root, config.train.keep = "elsewhere", 5
    with caplog.at_level("INFO", logger="absl"):
        runs.check_same(assets, config, data, "folder", 10)
    [line] = [r.getMessage() for r in caplog.records]
    assert line == (
        "folder goes on with other fields: data.root from '' to 'elsewhere', train.keep from 2 to 5"
    )
