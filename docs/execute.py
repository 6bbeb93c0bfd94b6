"""Runs the notebooks and stores them with their outputs: python -m docs.execute [NAME ...]

What depends on the machine or the day (timings in the metadata, progress bars, warnings) is left
out, so that a difference in Git is one of content.
"""

import os
import pathlib
import sys

import nbclient
import nbformat

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / "docs/notebooks"


def execute(path: pathlib.Path, timeout: int = 3600) -> nbformat.NotebookNode:
    """Returns the notebook with new outputs. Raises nbclient's CellExecutionError where a cell
    does."""
    notebook = nbformat.read(path, as_version=4)
    above = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH")) if p)
    resources = {"metadata": {"path": str(path.parent)}}
    client = nbclient.NotebookClient(notebook, timeout=timeout, resources=resources)
    client.execute(env={**os.environ, "PYTHONPATH": above})
    return plain(notebook)


def plain(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Returns the notebook without what differs from run to run."""
    for cell in notebook.cells:
        cell.metadata.clear()
        if cell.cell_type == "code":
            outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
            for output in outputs:
                if "data" in output and "image/png" in output["data"]:
                    output["data"].pop("text/plain", None)
            cell.outputs = outputs
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    return notebook


def main(names: list[str]) -> None:
    """Executes the named notebooks, or all."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        if not names or path.stem in names:
            nbformat.write(execute(path), path)
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main(sys.argv[1:])
