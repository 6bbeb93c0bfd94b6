"""Checks the commands of a shell block without running them: modules, flags, configs, extras."""

import pathlib
import re
import shlex
import subprocess

from ambient_jax.cli import config_file
from ambient_jax.train import config as train_config

ROOT = pathlib.Path(__file__).parents[2]
OURS = ("ambient_jax", "experiments", "docs")
# Commands and extras of pages that were written before them; a test fails once they are there.
PENDING: set[str] = set()
_COMMAND = re.compile(r"python[\d.]*\s+-m\s+([\w.]+)([^\n;&|>#]*)")
_EVERYWHERE = ("help", "verbosity")  # flags of every command
_ELIDED = "experiments/open_x/config.py:debug"  # in place of --config=...


def check(text: str, folder: pathlib.Path) -> None:
    """Raises ValueError for the first command of a block that cannot be right.

    Args:
      text: the block.
      folder: where the page's own files lie; other configs are the repository's.
    """
    syntax = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    if syntax.returncode:
        raise ValueError(f"bash cannot read it: {syntax.stderr.strip()}")
    for group in re.findall(r"\.\[([\w,]+)\]", text):
        if unknown := set(group.split(",")) - extras() - PENDING:
            raise ValueError(f"setup.py has no extra {', '.join(unknown)}")
    for module, arguments in commands(text):
        if module.split(".")[0] in OURS and module not in PENDING:
            _check(module, arguments, folder)


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Returns the modules that a block runs by ``python -m``, with their arguments."""
    found = []
    for module, rest in _COMMAND.findall(text.replace("\\\n", " ")):
        quoted = rest if rest.count("'") % 2 == 0 else rest.replace("'", "")
        found.append((module, shlex.split(quoted)))
    return found


def module_name(path: pathlib.Path) -> str:
    """Returns the dotted name of a module's file or package."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def extras() -> set[str]:
    """Returns the names of the package's extras."""
    listed = (ROOT / "setup.py").read_text().partition("extras_require")[2]
    return set(re.findall(r'^ +"(\w+)": ', listed, re.MULTILINE))


def sources(module: str) -> list[pathlib.Path]:
    """Returns the files in which a command may define its flags: its package, or its module."""
    path = ROOT / module.replace(".", "/")
    if path.is_dir() and (path / "__main__.py").is_file():
        return sorted(path.rglob("*.py"))
    if path.with_suffix(".py").is_file():
        return [path.with_suffix(".py")]
    raise ValueError(f"there is no command python -m {module}")


def _check(module, arguments, folder):
    texts = [path.read_text() for path in sources(module)]
    if any("launch" in text for text in texts):
        texts += [path.read_text() for path in (ROOT / "ambient_jax/cli").glob("*.py")]
    flags = [a for a in arguments if a.startswith("-")]
    for flag in flags:
        name = re.match(r"-+([\w.-]*)", flag)[1]
        if not name.startswith("config") and name not in _EVERYWHERE:
            defined = re.compile(rf'(--|\(\s*"){name}"')
            if not any(defined.search(text) for text in texts):
                raise ValueError(f"python -m {module} has no flag --{name}")
    for given in [f.partition("=")[2] for f in flags if f.startswith("--config=")]:
        own = folder / given.partition(":")[0]
        config = config_file.load(
            _ELIDED if given == "..." else str(own) if own.is_file() else given
        )
        config_file.check_overrides(config, flags)
        train_config.check(config)
