"""Config files: what they return, and one line with the place for what is wrong in them."""

import ml_collections
import pytest

from ambient_jax.cli import config_file

GOOD = """
import ml_collections


def get_config({parameter}):
    return ml_collections.ConfigDict({{"size": 3, "variant": {value}}})
"""


@pytest.fixture
def write(tmp_path):
    def write_one(text, name="config.py"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write_one


def test_a_variant_has_a_name_and_options_of_its_own():
    variants, options = {"small": 1, "large": 2}, {"large": ("seed", "task")}
    choose = lambda text: config_file.choose(text, variants, options)  # noqa: E731
    assert choose("small") == ("small", {})
    assert choose("large,task=a=b,seed=3") == ("large", {"task": "a=b", "seed": "3"})
    for text, message in (
        ("smal", "config variant is 'smal', expected one of small, large; did you mean 'small'"),
        ("small,seed=3", "option 'seed', expected one of none for this variant"),
        ("large,sede=3", "option 'sede', expected one of seed=, task=; did you mean 'seed'"),
        ("large,seed=", "option 'seed', expected one of seed=, task=, and its value"),
        ("large,seed", "and its value"),
        ("large,seed=1,seed=2", "option 'seed', expected one of seed=, task=, each once"),
    ):
        with pytest.raises(ValueError, match=message):
            choose(text)


def test_a_file_is_loaded_with_or_without_a_variant(write):
    plain = write(GOOD.format(parameter="", value="None"), "plain.py")
    chosen = write(GOOD.format(parameter="variant", value="variant"), "chosen.py")
    either = write(GOOD.format(parameter="variant='a'", value="variant"), "either.py")
    assert config_file.load(plain).to_dict() == {"size": 3, "variant": None}
    assert config_file.load(f"{chosen}:large,seed=3").variant == "large,seed=3"
    assert [config_file.load(either + v).variant for v in ("", ":b", ":")] == ["a", "b", ""]
    with pytest.raises(ValueError, match=f"takes no variant, and 'b' was .*--config={plain}$"):
        config_file.load(f"{plain}:b")
    with pytest.raises(ValueError, match=f"needs a variant, expected --config={chosen}:<variant>"):
        config_file.load(chosen)


def test_a_path_without_a_config_is_said(write, tmp_path):
    path = write("x = 1\n")
    with pytest.raises(ValueError, match="names a folder, expected a file, such as .*config.py"):
        config_file.load(f"{tmp_path}:a")
    with pytest.raises(FileNotFoundError, match="no file .*cofnig.py.*did you mean 'config.py'"):
        config_file.load(f"{tmp_path}/cofnig.py:a")
    with pytest.raises(ValueError, match="has no function get_config"):
        config_file.load(path)
    path = write("def get_config():\n    return {'size': 3}\n")
    with pytest.raises(ValueError, match="returned dict, expected an ml_collections.ConfigDict"):
        config_file.load(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ny = (\n", "config.py, line 2: '.' was never closed"),
        ("x = 1\ny = z\n", r"NameError: name 'z' is not defined \(.*config.py, line 2\)"),
        ("import no_such_one\n", r"ModuleNotFoundError: .*\(.*config.py, line 1\)"),
        ("def get_config():\n\n    raise ValueError('a\\nb')\n", r"^a b \(.*config.py, line 3\)"),
        ("def get_config():\n    import sys; sys.exit(3)\n", r"SystemExit: 3 \(.*, line 2\)"),
        (
            "import json\ndef get_config():\n    json.loads('{')\n",
            r"JSONDecodeError|Expecting property name.* \(.*config.py, line 3\)",
        ),
    ],
)
def test_an_error_in_a_file_is_one_line_with_its_place(write, text, message):
    path = write(text)
    with pytest.raises(ValueError, match=message) as caught:
        config_file.load(path)
    assert "\n" not in str(caught.value)


def test_overrides_name_fields_and_have_their_type():
    config = ml_collections.ConfigDict(
        {"seed": 3, "rate": 0.5, "name": "a", "data": {"widths": (1, 2), "on": True}}
    )
    good = ["--config=x.py", "--config.seed=4", "--config.rate=1e-3", "-config.name=b"]
    good += ["--config.data.widths[1]=5", "--noconfig.data.on", "--other=1"]
    config_file.check_overrides(config, good)
    for argument, message in (
        ("--config.sede=4", "config has no field 'sede', expected one of .*did you mean 'seed'"),
        ("--config.data.width=4", "config.data has no field 'width'"),
        ("--config.seed.x=4", "config.seed is 3, which has no fields"),
        ("--config.seed=a", "--config.seed=a: expected int such as 3"),
        ("--config.seed=1.5", "expected int such as 3"),
        ("--config.rate=fast", "expected float such as 0.5"),
    ):
        with pytest.raises(ValueError, match=message):
            config_file.check_overrides(config, [*good, argument])
