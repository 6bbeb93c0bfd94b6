"""Every block of code of the README and the pages: run, or checked against what is there."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from tests.docs import commands, folders, snippets

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PACKAGES = [path.parent for path in (ROOT / "ambient_jax").glob("*/__main__.py")]
# What runs is small: the networks of a page's own configs, and these commands.
SMALL = {
    "ambient_jax.train": "--config.train.steps=4",
    "ambient_jax.annotate --clean": "--steps=2 --batch_size=4 --width=8",
}
# A training config has no options of annotation, so flags cannot change them.
SMALL_TASK = """
import my_config

from ambient_jax.annotate import config as annotation


def get_config():
    config = annotation.completed(my_config.get_config())
    config.task.update(dict(steps=4, evaluate_every=4, folds=2, levels=3, features=(8,)))
    config.task.update(dict(analyses=(), crops=()))
    return config
"""
TINY = """

_whole = get_config


def get_config():
    config = _whole()
    config.model.update(dict(features=(8,), groups=2, blocks=1))
    config.train.update(dict(warmup=1, batch_size=8, log_every=2, checkpoint_every=2))
    return config
"""


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return folders.write_all(tmp_path_factory.mktemp("data"))


def name(page):
    return str(page.relative_to(ROOT))


def test_every_page_is_here():
    pages = {name(page) for page in PAGES}
    assert {"README.md", "docs/start.md", "docs/data.md", "docs/launch.md"} <= pages
    assert sum(len(snippets.collect(page)) for page in PAGES) > 40


def test_pending_commands_are_not_there_yet():
    """Else they are checked like all others: take them off the list."""
    assert not commands.PENDING & (commands.extras() | {commands.module_name(f) for f in PACKAGES})


def run_page(page, data, folder, monkeypatch, slow):
    """Does with each block what its marker says, in the page's order, in a folder of its own."""
    os.symlink(ROOT / "experiments", folder / "experiments")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    (folder / "small_task.py").write_text(SMALL_TASK)
    names: dict = {}
    for snippet in snippets.collect(page):
        code = localised(snippet.code, data)
        try:
            if snippet.kind == "file":
                tiny = TINY if "def get_config(" in code else ""
                (folder / snippet.extra).write_text(code + tiny)
            elif snippet.kind == "check":
                commands.check(snippet.code, folder)
            elif snippet.slow and not slow:
                continue
            elif snippet.python:
                names = names if snippet.kind == "continue" else {"__name__": "snippet"}
                exec(compile(snippet.extra, snippet.where, "exec"), names)
                exec(compile("\n" * (snippet.line - 1) + code, str(page), "exec"), names)
            else:
                commands.check(snippet.code, folder)
                run(small(code), folder)
        except Exception as error:
            pytest.fail(f"{snippet.where}: {type(error).__name__}: {error}", pytrace=False)


def localised(code, data):
    """The code with the folders of the documentation replaced by those that the tests wrote."""
    code = re.sub(r"(?<![\w.])/data/(?=\w)", f"{data}/", code)
    code = re.sub(r"\bGOOD\b", f"{data}/teleop", code)
    return re.sub(r"\bOTHER\b", f"{data}/play", code)


def small(code):
    """The commands with the arguments of SMALL after their own, of which the last one counts."""
    annotate = "ambient_jax.annotate --config="
    code = code.replace(f"{annotate}my_config.py", f"{annotate}small_task.py")
    for command, more in SMALL.items():
        ours = re.compile(rf"(python -m {command}(?:[^\n#&|>;\\]|\\\n)*)")
        code = ours.sub(lambda m, more=more: f"{m[1].rstrip()} {more} ", code)
    return code


def run(code, folder):
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{folder}", "JAX_PLATFORMS": "cpu"}
    env["AMBIENT_JAX_CACHE"] = str(folder / "cache")
    env["PATH"] = f"{pathlib.Path(sys.executable).parent}:{env['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
    )
    if done.returncode:
        raise ValueError(
            f"ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks(page, data, tmp_path, monkeypatch):
    run_page(page, data, tmp_path, monkeypatch, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [p for p in PAGES if any(s.slow for s in snippets.collect(p))], ids=name
)
def test_slow_blocks(page, data, tmp_path, monkeypatch):
    run_page(page, data, tmp_path, monkeypatch, slow=True)
