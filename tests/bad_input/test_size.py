"""The table's size, and that no case stands in it twice."""

import importlib.util
import pathlib


def test_the_table_has_two_hundred_rows_and_more():
    found = []
    for path in sorted(pathlib.Path(__file__).parent.glob("test_*.py")):
        if path.name == pathlib.Path(__file__).name:
            continue
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found += [(path.stem, name) for name in module.CASES]
    assert len(found) == len(set(found)) >= 200
