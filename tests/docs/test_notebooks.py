"""The notebooks run from their first cell to the last, and hold small outputs of such a run."""

import pathlib
import shutil

import nbformat
import pytest

from docs import execute

NOTEBOOKS = sorted(execute.FOLDER.glob("*.ipynb"))


def name(path):
    return path.stem


def test_every_notebook_is_here():
    assert [path.stem for path in NOTEBOOKS] == ["bounds", "deploy", "losses", "own_data"]


@pytest.fixture
def copied(tmp_path):
    """A folder of its own, as the notebooks and what they import lie in."""
    return pathlib.Path(shutil.copytree(execute.FOLDER, tmp_path / "notebooks"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_it_runs(path, copied):
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
