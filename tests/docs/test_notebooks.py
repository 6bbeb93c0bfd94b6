"""The notebooks run from their first cell to the last, and hold small outputs of such a run."""

import pathlib
import shutil

import nbformat
import pytest

from docs import execute

NOTEBOOKS = sorted(execute.FOLDER.glob("*.ipynb"))
# What a test runs is small, as is what these make of a notebook's numbers.
_TRAINS = {
    **{"steps=600": "steps=20", "checkpoint_every=300": "checkpoint_every=20"},
    **{"warmup=20": "warmup=2", '"features": (32,)': '"features": (16,)'},
}
SMALL = {
    "bounds": {"good=100, jagged=100": "good=20, jagged=20", "steps=400": "steps=20"},
    "deploy": {**_TRAINS, "plans=12, robots=50": "plans=2, robots=9", "(2, 5, 20)": "(2,)"},
    "losses": {"steps=3000": "steps=100", "steps=40": "steps=4"},
    "own_data": {**_TRAINS, "samples=400, sampled=100": "samples=40, sampled=10"},
}


def name(path):
    return path.stem


def test_every_notebook_is_here():
    assert [path.stem for path in NOTEBOOKS] == ["bounds", "deploy", "losses", "own_data"]


@pytest.fixture
def copied(tmp_path):
    """A folder of its own, as the notebooks and what they import lie in."""
    return pathlib.Path(shutil.copytree(execute.FOLDER, tmp_path / "notebooks"))


def make_small(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for old, new in SMALL[path.stem].items():
        assert any(old in cell.source for cell in code), f"{path.name} has no {old}"
        for cell in code:
            cell.source = cell.source.replace(old, new)
    nbformat.write(notebook, path)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_it_runs(path, copied):
    make_small(copied / path.name)
    done = execute.execute(copied / path.name)
    figures = [o for cell in done.cells for o in cell.get("outputs", ()) if "data" in o]
    assert any("image/png" in output["data"] for output in figures)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_its_stored_outputs_are_whole_and_small(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < 200_000
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not any(o.output_type == "error" for cell in code for o in cell.outputs)


def test_a_broken_cell_fails(tmp_path):
    cell = nbformat.v4.new_code_cell("from ambient_jax import no_such_name")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "broken.ipynb")
    with pytest.raises(Exception, match="no_such_name"):
        execute.execute(tmp_path / "broken.ipynb")
