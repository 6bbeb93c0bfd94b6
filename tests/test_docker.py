"""The Dockerfiles name only files, extras, modules and flags that exist, and keep the rules."""

import importlib.util
import json
import pathlib
import re
import runpy

import pytest
import setuptools

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
KNOWN = {
    *("ARG", "FROM", "RUN", "ENV", "WORKDIR", "COPY", "LABEL", "USER", "EXPOSE"),
    *("STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"),
}


def instructions(path):
    """[(instruction, its arguments)], continued lines joined and comments dropped."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    whole = re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines()
    return [tuple(line.split(maxsplit=1)) for line in whole if line.strip()]


def of(path, name):
    return [arguments for found, arguments in instructions(path) if found == name]


@pytest.fixture(params=FILES, ids=lambda path: path.name)
def file(request):
    served = "ambient_jax.serve" in request.param.read_text()
    if served and importlib.util.find_spec("ambient_jax.serve") is None:
        pytest.skip("this version has no ambient_jax.serve")
    return request.param


@pytest.fixture(scope="module")
def extras():
    told = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **options: told.update(options))
        patch.chdir(ROOT)
        runpy.run_path(str(ROOT / "setup.py"))
    return told["extras_require"]


def test_there_is_one_for_training_and_one_for_serving():
    assert [path.name for path in FILES] == ["serve.Dockerfile", "train.Dockerfile"]


def test_every_line_is_an_instruction(file):
    assert {name for name, _ in instructions(file)} <= KNOWN  # no ADD, MAINTAINER, misspelling
    for stage in ("ENTRYPOINT", "CMD"):
        [arguments] = of(file, stage)
        assert all(isinstance(part, str) for part in json.loads(arguments))  # no shell


def test_the_base_is_pinned_and_fits_the_package(file):
    [base] = of(file, "ARG")
    version = re.fullmatch(r"PYTHON=python:(\d+\.\d+)\.\d+-slim-[a-z]+", base)[1]
    assert version in ("3.11", "3.12", "3.13")  # setup.py: python_requires
    stages = of(file, "FROM")
    assert stages == ["${PYTHON} AS build", "${PYTHON}"]


def ignored(path):
    """Whether .dockerignore leaves a path at the root out of the build; the last match decides."""
    out = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!")
            if pattern == "*" or pattern == path:
                out = not line.startswith("!")
    return out


def test_what_is_copied_exists_and_reaches_the_build(file):
    copied = [a.split() for a in of(file, "COPY")]
    sources = [path for *paths, _ in copied if not paths[0].startswith("--") for path in paths]
    assert {"setup.py", "README.md", "ambient_jax"} <= set(sources)  # setup.py reads the README
    for path in sources:
        assert (ROOT / path).exists() and not ignored(path), path
    for path in (".git", ".venv", "runs", "tests", "experiments"):
        assert ignored(path), path
    assert [paths[0] for *paths, _ in copied if paths[0].startswith("--")] == ["--from=build"]


def test_the_extras_exist(file, extras):
    [install] = [run for run in of(file, "RUN") if "pip install" in run]
    named = re.search(r"'\.\[([\w,]+)\]'", install)[1].split(",")
    assert set(named) <= set(extras), named
    assert "--no-cache-dir" in install


def test_the_module_and_its_flags_exist(file):
    program, dash, module = json.loads(of(file, "ENTRYPOINT")[0])
    assert (program, dash) == ("python", "-m")
    spec = importlib.util.find_spec(module)
    sources = [pathlib.Path(spec.origin)]
    if spec.submodule_search_locations:
        sources = list(pathlib.Path(spec.origin).parent.glob("*.py"))
        assert importlib.util.find_spec(f"{module}.__main__")
    text = "".join(source.read_text() for source in sources)
    for flag in json.loads(of(file, "CMD")[0]):
        name = flag.removeprefix("--").split("=")[0]
        assert name == "help" or f'"{name}"' in text or f"--{name}" in text, flag
    for named in re.findall(r"-m (ambient_jax[\w.]+\w)", file.read_text()):
        assert importlib.util.find_spec(f"{named}.__main__"), named


def test_it_runs_as_a_user_without_secrets_or_packages_of_the_system(file):
    steps = instructions(file)
    after = [name for name, _ in steps[[n for n, _ in steps].index("USER") :]]
    assert of(file, "USER") == ["ambient"] and "RUN" not in after and "COPY" not in after
    assert any("useradd" in run and "--uid 1000" in run for run in of(file, "RUN"))
    assert not re.search(r"sudo|apt-get|curl|wget|(TOKEN|SECRET|PASSWORD|KEY)=", file.read_text())


def test_its_own_commands_name_it(file):
    assert f"docker build -f docker/{file.name} -t " in file.read_text()


def test_the_health_check_asks_the_port_that_the_server_opens():
    [file] = [path for path in FILES if path.name == "serve.Dockerfile"]
    [port] = of(file, "EXPOSE")
    [check] = of(file, "HEALTHCHECK")
    assert f"http://127.0.0.1:{port}/healthz" in check
    command = json.loads(check.split("CMD", 1)[1])
    compile(command[2], "health check", "exec")
    asked = json.loads(of(file, "CMD")[0])
    assert f"--port={port}" in asked and "--host=0.0.0.0" in asked
