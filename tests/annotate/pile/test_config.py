"""From folders to a config: names, fields that agree, and one line about those that do not."""

import numpy as np
import pytest

from ambient_jax.annotate.pile import config as pile_config
from ambient_jax.train import config as train_config
from tests.annotate.pile import piles


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return piles.write(tmp_path_factory.mktemp("piles"), 4)


def test_flags():
    given = "--clean=a --pile b --pile=c --observation=state,goal --delta=0,2 --horizon 8 --quick"
    request = pile_config.parse(given.split())
    assert request.clean == ("a",) and request.pile == ("b", "c") and request.quick
    assert request.observation == ("state", "goal") and request.delta == (0, 2)
    assert request.horizon == 8 and request.split == "train"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--clean=a", "--pile"),
        ("--clean=a --pile=b --hurry", "--hurry"),
        ("--clean=a --pile=b --steps=-1", "--steps is -1"),
        ("--clean=a --pile=b --delta=x", "--delta has 'x'"),
        ("--clean=a --pile=b --width=9", "multiple of 8"),
        ("--clean=a --pile=b --steps=many", "invalid int"),
    ],
)
def test_wrong_flags_are_one_line(flags, message):
    with pytest.raises(ValueError, match=message) as error:
        pile_config.parse(flags.split())
    assert "\n" not in str(error.value)


def test_formats_meet_in_one_config(data):
    request = pile_config.Request((data["good"],), (data["shaky"], data["turned"]), horizon=8)
    found, clean = pile_config.open_all(request)
    assert list(found) == ["good", "shaky", "turned"] and clean == ("good",)
    assert [pile_config.is_lerobot(d) for d in found.values()] == [True, True, False]
    config = pile_config.make(request, found, clean)
    train_config.check(config)
    roles = {n: s.role for n, s in config.data.sources.items()}
    assert roles == {"good": "clean", "shaky": "corrupt", "turned": "corrupt"}
    assert config.data.action == "action" and config.data.observation == ("state",)
    assert config.data.sources.good.path == data["good"]


def test_the_same_data_twice(data):
    request = pile_config.Request((data["good"],), (data["good"],))
    with pytest.raises(ValueError, match="given before"):
        pile_config.open_all(request)
    part = data["good"] + ":train[1:3]"
    with pytest.raises(ValueError, match="given before"):
        pile_config.open_all(pile_config.Request((data["good"] + ":train[:2]",), (part,)))


def test_parts_of_one_folder(data):
    folder = data["good"]
    request = pile_config.Request((f"{folder}:train[:2]",), (f"{folder}:train[2:]",), horizon=8)
    found, clean = pile_config.open_all(request)
    config = pile_config.make(request, found, clean)
    assert [(n, s.split, s.role) for n, s in config.data.sources.items()] == [
        ("good", "train[:2]", "clean"),
        ("good_no2", "train[2:]", "corrupt"),
    ]
    with pytest.raises(ValueError, match="9:4"):
        pile_config.open_all(pile_config.Request((f"{folder}:train[9:]",), (folder,)))


def test_names_are_plain_and_differ_from_those_of_folds():
    names: dict = {}
    for name in ("good", "good", "good_0", "7 days!", "items", "__"):
        names[pile_config._name(name, names)] = None
    assert list(names) == ["good", "good_no2", "good0", "set_7_days", "set_items", "data"]


def test_fields_that_do_not_agree(data, write_source):
    odd = write_source("odd", [6])  # state and action of two numbers, goal of one
    request = pile_config.Request((data["good"],), (odd,))
    found, _ = pile_config.open_all(request)
    with pytest.raises(ValueError, match=r"steps/action has 3 numbers in .*'good' and 2 in 'odd'"):
        pile_config.fields(found)
    with pytest.raises(ValueError, match=r"'odd' has no numbers steps/timestamp"):
        pile_config.fields(found, "timestamp")
    only = {"odd": found["odd"]}
    assert pile_config.fields(only) == ("action", ("goal", "state"))
    with pytest.raises(ValueError, match="--observation="):
        pile_config.fields(only, "action", ("hand",))


def test_a_field_called_action_is_found(tmp_path):
    from ambient_jax.data import write

    step = {"joints": np.zeros(3, np.float32), "grip": np.zeros(1, np.float32)}
    features = write.rlds_features({"state": np.zeros(2, np.float32)}, step)
    length = np.zeros(4, bool)
    flags = {n: length for n in ("is_first", "is_last", "is_terminal")}
    flags |= {n: length.astype(np.float32) for n in ("reward", "discount")}
    action = {n: np.zeros((4, len(v)), np.float32) for n, v in step.items()}
    one = {"observation": {"state": np.zeros((4, 2), np.float32)}, "action": action, **flags}
    how = dict(name="parts", version="1.0.0", features=features, episodes=[{"steps": one}])
    path = str(write.write_dataset(tmp_path, **how))
    found, _ = pile_config.open_all(pile_config.Request((path,), ()))
    with pytest.raises(ValueError, match="action/grip, action/joints: name it by --action="):
        pile_config.fields(found)
    assert pile_config.fields(found, "action/joints")[0] == "action/joints"
