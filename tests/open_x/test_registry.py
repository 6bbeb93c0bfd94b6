"""The tables: complete, consistent, mixtures of known size, doubts told once."""

import csv
import importlib.metadata
import pathlib
import subprocess
import sys

import pytest
from absl import logging as absl_logging

import ambient_jax
from ambient_jax.open_x import fixtures, registry


def test_all_rows():
    found = registry.data_sets()
    assert len(found) == 75
    for name, data_set in found.items():
        assert data_set.name == name == data_set.spec.name
        assert data_set.hz is None or 1 <= data_set.hz <= 50
        assert data_set.robot and data_set.lines["language"]
        assert set(data_set.spec.cameras), f"{name} has no camera"
    unknown = {n for n, d in found.items() if d.hz is None}
    assert unknown == {
        *("stanford_mask_vit_converted_externally_to_rlds", "gnm_dataset", "mujoco_manip")
    }
    assert all("rate" in found[n].doubts for n in unknown)


def test_tables_have_the_columns_of_their_first_line():
    """A comma in a remark that nobody quoted makes one more."""
    for table in pathlib.Path(registry.__file__).parent.glob("*.csv"):
        with table.open(encoding="utf-8", newline="") as file:
            width, *widths = (len(row) for row in csv.reader(file))
        assert set(widths) == {width}, table.name


def test_every_field_of_a_spec_is_in_the_schema():
    for name, data_set in registry.data_sets().items():
        fields = fixtures.schema(name)
        kinds = {"camera": {"jpeg"}, "language": {"text", "codepoints"}}
        for what, field in data_set.spec.fields():
            if field.key != "steps/reward":
                assert field.key in fields, (name, field.key)
                assert fields[field.key][0] in kinds.get(what, {fields[field.key][0]})


def test_shapes_that_no_source_tells_are_marked():
    for name, data_set in registry.data_sets().items():
        if "?" in data_set.schema:
            assert data_set.doubts, name


@pytest.mark.parametrize(
    "name, count, weights",
    [
        ("rtx", 11, {"fractal20220817_data": 0.54087122203, "bridge_dataset": 1, "viola": 2}),
        (
            "magic_soup",
            25,
            {
                "bc_z": 0.2,
                "furniture_bench_dataset_converted_externally_to_rlds": 0.1,
                "kuka": 0.8341046294,
            },
        ),
        ("magic_soup_plus", 27, {"bridge_orig": 1, "droid": 0.06, "dobbe": 0.2, "fmb_dataset": 1}),
        ("wide", 50, {"gnm_dataset": 1, "kuka": 1}),
    ],
)
def test_mixtures(name, count, weights):
    mixture = registry.mixture(name)
    assert len(mixture) == count
    assert {n: mixture[n] for n in weights} == weights
    assert all(w > 0 for w in mixture.values())


def test_a_mixture_of_ones_own():
    own = {"viola": 2, "toto": 0.5}
    assert registry.mixture(own) == {"viola": 2.0, "toto": 0.5}
    assert registry.mixture({"mine": 1, "toto": 3}, own=("mine",)) == {"mine": 1.0, "toto": 3.0}


@pytest.mark.parametrize(
    "mixture, match",
    [
        ("magic_soop", "mixture is 'magic_soop', expected .*did you mean 'magic_soup'"),
        ({"violla": 1}, "no data set 'violla'; did you mean 'viola'"),
        ({"viola": 0}, "weight of viola is 0, expected a positive number"),
        ({"viola": float("nan")}, "weight of viola is nan"),
        ({"viola": "1"}, "weight of viola is '1'"),
        ({}, "the mixture is empty"),
    ],
)
def test_bad_mixtures(mixture, match):
    with pytest.raises(ValueError, match=match):
        registry.mixture(mixture)


def test_unknown_name():
    with pytest.raises(ValueError, match="'bridge_origg'; did you mean 'bridge_orig'.*spec"):
        registry.get("bridge_origg")


def test_doubts_are_told_once(monkeypatch):
    told = []
    monkeypatch.setattr(registry, "_warned", set())
    monkeypatch.setattr(absl_logging, "warning", lambda text, *a: told.append(text % a))
    name = "iamlab_cmu_pickup_insert_converted_externally_to_rlds"
    doubts = registry.warn_doubts(["viola", name, name])
    assert list(doubts) == [name]
    (line,) = told
    assert line.startswith(f"{name} is doubtful: reads as an ABSOLUTE pose")
    assert "the other reading: xyz action[0:3] | diff" in line
    assert registry.warn_doubts([name]) == doubts and len(told) == 1
    registry.warn_doubts(registry.mixture("wide"))
    assert len(told) == 1 + len(
        [n for n in registry.mixture("wide") if n != name and registry.get(n).doubts]
    )
    with pytest.raises(ValueError, match="no data set 'nobody'"):
        registry.warn_doubts(["nobody"])


def test_a_row_cannot_be_changed():
    data_set = registry.get("viola")
    with pytest.raises(AttributeError):
        data_set.hz = 3
    with pytest.raises(TypeError):
        data_set.weights["rtx"] = 3


def test_an_installed_package_has_the_tables(tmp_path):
    """A wheel's content, as setup.py builds it."""
    root = pathlib.Path(ambient_jax.__file__).parent.parent
    if not (root / "setup.py").exists():
        assert importlib.metadata.files("ambient_jax")  # installed: the tests above read them
        return
    pytest.importorskip("setuptools")
    command = [sys.executable, "setup.py", "-q", "build_py", "-d", str(tmp_path / "lib")]
    command += ["egg_info", "-e", str(tmp_path)]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    built = {p.name for p in (tmp_path / "lib/ambient_jax/open_x").iterdir()}
    assert {"registry.csv", "standardization.csv", "schema.csv", "registry.py"} <= built
