"""Links hold on GitHub and on the site, docstrings keep their lines, the site has no warning."""

import pathlib
import re
import subprocess
import sys

import pytest

from docs import plain_docstrings

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs/notebooks").glob("*.ipynb")),
    *sorted(ROOT.glob("experiments/*/results/**/*.md")),
]
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page):
    """The names of a page's headings, as GitHub makes them."""
    text = re.sub(r"^(```+).*?^\1$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def broken(page):
    """The relative links of a page that lead nowhere."""
    found = []
    for link in _LINK.findall(page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = (page.parent / path).resolve() if path else page
        there = target.is_file() and ROOT in target.parents
        if not there or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page):
    assert not broken(page)


def test_a_broken_link_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "a.md").write_text("# One (two)\n[a](#one-two) [b](b.md) [c](a.md#three)")
    assert broken(tmp_path / "a.md") == ["b.md", "a.md#three"]


@pytest.mark.parametrize(
    ("docstring", "made"),
    [
        ("Takes *args and x_ with ``*code``.", "Takes \\*args and x\\_ with ``*code``."),
        ("python -m a --b\npython -m c", "| python -m a --b\n| python -m c"),
        ("Word  meaning\n  more", "| Word  meaning\n|   more"),
        ("* one\n  more\nText.", "* one\n  more\n\nText."),
        ("As in::\n\n    a | b", "As in::\n\n    a | b"),
        ("Args:\n  x: of [*shape].", "Args:\n  x: of [\\*shape]."),
        (">>> a = f(*b)", ">>> a = f(*b)"),
    ],
)
def test_docstrings_keep_their_lines(docstring, made):
    lines = docstring.split("\n")
    plain_docstrings.process(None, "module", "name", None, None, lines)
    assert "\n".join(lines).strip() == made


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("sphinx", reason="pip install -e '.[docs]'")
    pytest.importorskip("furo")
    command = [
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        "-c",
        "docs",
        ".",
        tmp_path,
    ]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {path.stem for path in (tmp_path / "docs/api/generated").glob("*.html")}
    for path in (ROOT / "ambient_jax").rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if not any(part.startswith("_") and part != "__init__" for part in parts):
            name = ".".join(parts).removesuffix(".__init__")
            assert name in pages
