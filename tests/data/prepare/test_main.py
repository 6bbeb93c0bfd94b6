"""What the command's flags ask for."""

import pytest
from absl import flags

from ambient_jax.data.prepare import __main__ as command
from ambient_jax.open_x import registry

CONFIG = """
from ambient_jax.train import config as train_config

def get_config():
    config = train_config.default()
    config.data.sources.mine = train_config.source("mine", "clean")
    return config
"""


def section(*arguments):
    values = flags.FlagValues()
    command.define(values, ["prepare", *arguments])
    values(["prepare", *arguments])
    return command.section(values)


def test_a_mixture():
    data = section("--root=/data/oxe", "--mixture=magic_soup_plus")
    assert data.root == "/data/oxe" and data.open_x.hz == 5.0
    assert set(data.sources) == set(registry.mixture("magic_soup_plus"))
    with pytest.raises(ValueError, match="mixture is 'magic_soap', .* did you mean"):
        section("--mixture=magic_soap")


def test_a_config(tmp_path):
    (tmp_path / "mine.py").write_text(CONFIG)
    data = section(f"--config={tmp_path / 'mine.py'}", "--config.data.history=5")
    assert data.sources.mine.path == "mine" and (data.root, data.history) == ("", 5)
    assert section(f"--config={tmp_path / 'mine.py'}", "--root=/other").root == "/other"


def test_folders():
    given = ("--folder=/data/a/1.0.0", "--folder=/data/b/1.0.0", "--split=train[:9]")
    data = section(*given, "--observation=state,goal", "--action=delta")
    assert list(data.sources) == ["data_a_1_0_0", "data_b_1_0_0"]
    assert data.sources.data_a_1_0_0.path == "/data/a/1.0.0"
    assert data.sources.data_a_1_0_0.split == "train[:9]"
    assert data.observation == ("state", "goal") and data.action == "delta"
    with pytest.raises(ValueError, match="--folder=a/ is given twice"):
        section("--folder=a", "--folder=a/")
    data = section("--folder=/d/a-b", "--folder=/d/a_b")
    assert {n: s.path for n, s in data.sources.items()} == {"d_a_b": "/d/a-b", "d_a_b_2": "/d/a_b"}


@pytest.mark.parametrize(
    ("arguments", "given"), [((), "nothing"), (("--mixture=rtx", "--folder=a"), "--mixture and")]
)
def test_one_of_three(arguments, given):
    with pytest.raises(ValueError, match=f"{given}.* is given, expected one of --config"):
        section(*arguments)
