"""The package's layers: what each module may import, and what `import ambient_jax` must not."""

import ast
import pathlib
import subprocess
import sys

import pytest

import ambient_jax

ROOT = pathlib.Path(ambient_jax.__file__).parent

# Low to high. A module imports only modules of lower rank; inside a package (data, models, ...)
# modules may import each other, without cycles. A package's command, its __main__, may import all.
RANKS = {
    "_checks": 0,
    "schedules": 1,
    "admission": 2,
    "targets": 3,
    "corruption": 4,
    "mixing": 5,
    "losses": 6,
    "optim": 6.5,
    "data": 7,
    "open_x": 7,
    "models": 8,
    "annotate": 9,
    "analysis": 10,
    "train": 11,
    "policy": 12,
    "cli": 13,
    "evaluate": 14,
    "compile": 14,
}
MATHS = [name for name, rank in RANKS.items() if rank <= RANKS["losses"]]
# No Flax, and nothing that reads or writes.
MATHS_MAY_IMPORT = {
    *("__future__", "collections", "dataclasses", "difflib", "functools", "inspect", "math"),
    "numbers",
    *("typing", "jax", "numpy", "ambient_jax"),
}
HEAVY = {
    *("tensorflow", "pydrake", "ompl", "matplotlib", "flax", "optax", "orbax", "grain", "torch"),
    *("tensorflow_datasets", "gymnasium", "tensorboardX", "ml_collections", "pandas", "pyarrow"),
}


def modules():
    """{dotted name below the package: file}, '' for the package itself."""
    names = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports(name, path):
    """Every absolute module name that a file imports, anywhere in it, lazily or not."""
    package = ["ambient_jax", *name.split(".")] if name else ["ambient_jax"]
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            # `from a.b import c`: c may be a module or a name in a.b
            yield from (f"{base}.{alias.name}" for alias in node.names)


def internal(name, path):
    """Names of the package's own modules that a file imports."""
    known = modules()
    for full in imports(name, path):
        if full.split(".")[0] != "ambient_jax":
            continue
        inner = full.removeprefix("ambient_jax").removeprefix(".")
        while inner and inner not in known:
            inner = inner.rpartition(".")[0]
        yield inner


def test_every_module_has_a_rank():
    for name in modules():
        top = name.split(".")[0]
        assert not top or top in RANKS, (
            f"ambient_jax.{top} has no rank: add it to RANKS in tests/test_import.py, above "
            "everything that it imports and below everything that imports it"
        )


@pytest.mark.parametrize("name", [n for n in modules() if n and not n.endswith("__main__")])
def test_imports_point_down(name):
    top = name.split(".")[0]
    for other in internal(name, modules()[name]):
        if not other:
            continue  # the package: its __init__ holds re-exports of the maths, and the version
        below = other.split(".")[0]
        assert below == top or RANKS[below] < RANKS[top], (
            f"ambient_jax.{name} imports ambient_jax.{other}: {top} has rank {RANKS[top]} and may "
            f"import lower ranks only, {below} has {RANKS[below]}"
        )


def test_no_cycles_inside_packages():
    graph = {n: set(internal(n, p)) - {n, ""} for n, p in modules().items() if n}
    done, path = set(), []

    def visit(name):
        assert name not in path, f"import cycle: {' -> '.join([*path, name])}"
        if name not in done:
            path.append(name)
            for other in graph[name]:
                visit(other)
            path.pop()
            done.add(name)

    for name in graph:
        visit(name)


def test_the_walk_sees_what_it_should():
    """The checks above could pass by seeing nothing: known edges of the maths."""
    known = modules()
    assert set(internal("corruption", known["corruption"])) == {"schedules", "targets"}
    assert {"admission", "corruption", "schedules", "targets", "_checks"} == set(
        internal("losses", known["losses"])
    )
    assert "losses" in set(internal("", known[""]))


@pytest.mark.parametrize("name", MATHS)
def test_maths_imports_neither_flax_nor_io(name):
    found = {full.split(".")[0] for full in imports(name, modules()[name])}
    assert found <= MATHS_MAY_IMPORT, f"ambient_jax.{name} imports {found - MATHS_MAY_IMPORT}"


def loaded_by(code):
    """Top-level modules that a fresh interpreter holds after running the code."""
    script = f"{code}\nimport sys\nprint(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


def test_importing_the_package_is_light():
    before = loaded_by("import jax, jax.numpy, jax.scipy.special")
    after = loaded_by(
        "import ambient_jax\nfrom ambient_jax import " + ", ".join(m for m in MATHS if m[0] != "_")
    )
    assert "ambient_jax" in after
    assert not (after & HEAVY) - before, f"import ambient_jax loads {sorted(after & HEAVY)}"


PACKAGES = [n for n, p in modules().items() if n and p.name == "__init__.py"]


@pytest.mark.parametrize("name", PACKAGES)
def test_package_inits_are_light(name):
    """A subpackage's __init__ imports nothing heavy, so its light modules stay light."""
    found = {full.split(".")[0] for full in imports(name, modules()[name])}
    assert not found & HEAVY


def test_tensorflow_is_never_imported():
    for name, path in modules().items():
        assert "tensorflow" not in {full.split(".")[0] for full in imports(name, path)}, (
            f"ambient_jax.{name} imports tensorflow: read and write through the TF-free modules"
        )
