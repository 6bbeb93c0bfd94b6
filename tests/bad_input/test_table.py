"""Every row of the table: what is refused, and what is taken with a warning."""

import importlib.util
import pathlib

import pytest


def _rows(table):
    """Parameters (what is done, what is told) of all modules beside this one, by area and name."""
    for path in sorted(pathlib.Path(__file__).parent.glob("*.py")):
        if path.stem in ("conftest", pathlib.Path(__file__).stem):
            continue
        spec = importlib.util.spec_from_file_location(f"bad_input_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        area = path.stem.removeprefix("test_")
        for name, (act, told) in getattr(module, table, {}).items():
            yield pytest.param(act, told, id=f"{area}: {name}")


REFUSED, WARNED = list(_rows("CASES")), list(_rows("WARNED"))


@pytest.mark.parametrize(("act", "told"), REFUSED)
def test_one_line(act, told, refused):
    refused(act, told)


@pytest.mark.parametrize(("act", "told"), WARNED)
def test_one_warning(act, told, warned):
    warned(act, told)


def test_the_table_has_two_hundred_rows_and_more():
    names = [row.id for row in (*REFUSED, *WARNED)]
    assert len(names) == len(set(names)) >= 200
