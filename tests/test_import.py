"""The package's layers: what each module may import, and what `import ambient_jax` must not."""

import ast
import functools
import pathlib
import subprocess
import sys

import pytest

import ambient_jax

ROOT = pathlib.Path(ambient_jax.__file__).parent

# Low to high. A module imports only modules of lower rank; inside a package (data, models, ...)
# modules may import each other, without cycles. A package's command, __main__, may import all.
RANKS = {
    "_checks": 0,
    "_names": 1,
    "_packages": 0,
    "ben_david": 1,
    "schedules": 2,
    "admission": 3,
    "targets": 4,
    "corruption": 5,
    "observations": 5,
    "mixing": 6,
    "losses": 7,
    "estimates": 8,
    "optim": 8,
    "transforms": 9,
    "data": 10,
    "open_x": 11,
    "models": 12,
    "publish": 12,
    "train": 13,
    "policy": 14,
    "cli": 15,
    "analysis": 16,
    "evaluate": 17,
    "rollout": 18,
    "annotate": 18,
    "collectives": 18,
    "compile": 19,
    "export": 19,
    "serve": 19,
}
MATHS = [name for name, rank in RANKS.items() if rank <= RANKS["losses"]]
# No Flax, and nothing that reads or writes.
MATHS_MAY_IMPORT = {
    *("__future__", "collections", "dataclasses", "difflib", "functools", "hashlib", "importlib"),
    *("inspect", "math", "numbers"),
    *("typing", "jax", "numpy", "ambient_jax"),
}
HEAVY = {
    *("tensorflow", "pydrake", "ompl", "matplotlib", "flax", "optax", "orbax", "grain", "torch"),
    *("tensorflow_datasets", "gymnasium", "tensorboardX", "ml_collections", "pandas", "pyarrow"),
}


def modules(package="ambient_jax"):
    """{dotted name: file} of a top-level package's modules."""
    names = {}
    for path in sorted((ROOT.parent / package).rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


LIBRARY, EXPERIMENTS = modules(), modules("experiments")
EVERYTHING = LIBRARY | EXPERIMENTS


@functools.cache
def imports(name):
    """Every absolute module name that a module imports, anywhere in its file, lazily or not."""
    path = EVERYTHING[name]
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = []
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            # `from a.b import c`: c may be a module or a name in a.b
            found += [f"{base}.{alias.name}" for alias in node.names]
    return tuple(found)


def internal(name):
    """Names of the repository's own modules that a module imports."""
    found = set()
    for full in imports(name):
        while full and full not in EVERYTHING:
            full = full.rpartition(".")[0]
        found.add(full)
    return found - {"", name}


def layer(name):
    """The part of ``ambient_jax`` that a module belongs to; "" for the package itself."""
    return name.removeprefix("ambient_jax").removeprefix(".").split(".")[0]


def test_every_module_has_a_rank():
    for name in LIBRARY:
        assert not layer(name) or layer(name) in RANKS, (
            f"{name} has no rank: add {layer(name)!r} to RANKS in tests/test_import.py, above "
            "everything that it imports and below everything that imports it"
        )


@pytest.mark.parametrize("name", [n for n in LIBRARY if layer(n) and "__main__" not in n])
def test_imports_point_down(name):
    own = layer(name)
    for other in internal(name):
        assert other not in EXPERIMENTS, f"{name} imports {other}: the library knows no experiment"
        below = layer(other)
        assert below in ("", own) or RANKS[below] < RANKS[own], (
            f"{name} imports {other}: {own} has rank {RANKS[own]} and may import lower ranks only, "
            f"{below} has {RANKS[below]}"
        )


def test_no_cycles_in_the_repository():
    # The package's own __init__ is left out: it holds the maths, the version and lazy names.
    graph = {n: internal(n) - {"ambient_jax"} for n in EVERYTHING if n != "ambient_jax"}
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
    """The checks above could pass by seeing nothing: known edges of the maths and a task."""
    known = lambda *names: {f"ambient_jax.{name}" for name in names}  # noqa: E731
    corruption, losses = (internal(f"ambient_jax.{n}") for n in ("corruption", "losses"))
    assert known("schedules", "targets") <= corruption
    assert known("admission", "corruption", "schedules", "targets", "_checks") <= losses
    assert known("losses") <= internal("ambient_jax")
    assert "experiments.maze.env" in internal("experiments.maze.task")


@pytest.mark.parametrize("name", MATHS)
def test_maths_imports_neither_flax_nor_io(name):
    found = {full.split(".")[0] for full in imports(f"ambient_jax.{name}")}
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


PACKAGES = [n for n, path in LIBRARY.items() if path.name == "__init__.py"]


@pytest.mark.parametrize("name", PACKAGES)
def test_package_inits_are_light(name):
    """A subpackage's __init__ imports nothing heavy, so its light modules stay light."""
    found = {full.split(".")[0] for full in imports(name)}
    assert not found & HEAVY


def test_tensorflow_is_never_imported():
    for name in LIBRARY:
        assert "tensorflow" not in {full.split(".")[0] for full in imports(name)}, (
            f"{name} imports tensorflow: read and write through the TF-free modules"
        )
