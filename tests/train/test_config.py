import ml_collections
import pytest

from ambient_jax.train import config as config_lib


def _valid():
    return config_lib.default()


def _set(path, value):
    def change(config):
        *parents, name = path.split(".")
        for parent in parents:
            config = config[parent]
        with config.unlocked(), config.ignore_type():
            config[name] = value

    return change


def _delete(section, name):
    return lambda config: delattr(config[section], name)


def test_the_default_is_valid_and_integers_serve_as_floats():
    config = _valid()
    with config.unlocked():
        config.train.clip_norm = 1
    config_lib.check(config)


BAD = [
    (_set("train.keep_every", 1500), r"keep_every is 1500, expected a multiple .*1000"),
    (_set("train.learning_rat", 1.0), r"config.train.learning_rat .*did you mean 'learning_rate'"),
    (_set("data.lanes", 4), r"config.data.lanes has a new name: set config.data.shards"),
    (_set("trian", 3), r"config.trian .*did you mean 'train'"),
    (_set("data.horizn", 8), r"config.data.horizn .*did you mean 'horizon'"),
    (_set("objective.los", "x"), r"config.objective.los .*did you mean 'loss'"),
    (_set("policy.stpes", 3), r"config.policy.stpes .*did you mean 'steps'"),
    (_delete("train", "ema"), r"config.train.ema is missing"),
    (_set("train.steps", "many"), r"config.train.steps is 'many' \(str\), expected int"),
    (_set("train.steps", 0), r"config.train.steps is 0, expected at least 1"),
    (_set("train.batch_size", -4), r"config.train.batch_size is -4"),
    (_set("train.accumulation", 0), r"config.train.accumulation is 0"),
    (_set("train.checkpoint_every", 0), r"config.train.checkpoint_every is 0"),
    (_set("train.learning_rate", -1.0), r"learning_rate is -1.0, expected in \(0, 1\)"),
    (_set("train.ema", 1.0), r"config.train.ema is 1.0, expected in \[0, 1\)"),
    (_set("data.history", 0), r"config.data.history is 0"),
    (_set("data.horizon", 0), r"config.data.horizon is 0"),
    (_set("data.placement", "devcie"), r"placement is 'devcie'.*did you mean 'device'"),
    (_set("data.order", "noise"), r"order is 'noise'.*did you mean 'noise_first'"),
    (_set("policy.execute", 99), r"execute is 99, expected at most the 16 actions"),
    (
        _set("model.prefix", 16),
        r"config.model.prefix is 16, expected fewer .* than the 16 of a chunk",
    ),
    (_set("augmentation.hu", 0.1), r"config.augmentation.hu .*did you mean 'hue'"),
    (_set("augmentation.hue", "much"), r"augmentation.hue is 'much' \(str\), expected float"),
    (_delete("augmentation", "crop"), r"config.augmentation.crop is missing"),
    (_set("law", ml_collections.ConfigDict({"alpha": 1.0})), r"config.law.name is missing"),
    (_set("observation_noise.clean", 1.5), r"config.observation_noise.clean is 1.5"),
    (_set("observation_noise.drop", 0.1), r"observation_noise.drop .*did you mean 'dropped'"),
    (_set("schedule", ml_collections.ConfigDict({"name": "vp", "colour": 9.0})), r"colour is 9.0"),
    (_set("model", "unet"), r"config.model is 'unet', expected a section"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[m for _, m in BAD])
def test_bad_configs_say_what_is_wrong_in_one_line(change, message):
    config = _valid()
    change(config)
    with pytest.raises(ValueError, match=message) as error:
        config_lib.check(config)
    assert "\n" not in str(error.value)


def test_source_takes_an_optional_upper_bound():
    assert config_lib.source("a", "clean").sigma_max is None
    assert config_lib.source("a", "corrupt", sigma_max=0.2).sigma_max == 0.2


def test_levels_of_observations_need_noised_ones_and_a_corrupt_source():
    def check(role, noised, minimum=0.5):
        config = _valid()
        config.model.noised = noised
        options = {"observation_min": minimum}
        config.data.sources.a = config_lib.source("a", role, **options)
        config_lib.check(config)

    check("corrupt", ("state",))
    check("corrupt", ("state",), ((0.2, 1.0), (0.2, 0.0)))
    with pytest.raises(ValueError, match="set config.model.noised"):
        check("corrupt", ())
    with pytest.raises(ValueError, match="is clean and has an observation_min"):
        check("clean", ("state",))
    with pytest.raises(ValueError, match="config.data.sources.a: a level of observation_min"):
        check("corrupt", ("state",), 2.0)


def test_fields_that_training_does_not_have_are_found_in_every_section():
    config = _valid()
    assert config_lib.foreign(config) == []
    config.colour, config.data.open_x.colour, config.train.colour = 1, 1, 1
    config.law.colour = config.data.sources.colour = 1  # checked by others
    assert config_lib.foreign(config) == ["colour", "data.open_x.colour", "train.colour"]
