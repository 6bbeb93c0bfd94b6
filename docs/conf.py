"""Builds the site: sphinx-build -W -b html -c docs . build/site

The sources are the repository's own Markdown files, so that a link between them holds on GitHub and
on the site. Docstrings become the API reference.
"""

import importlib.util
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import ambient_jax  # noqa: E402
from docs import plain_docstrings  # noqa: E402

project, release = "ambient_jax", ambient_jax.__version__
author = "the ambient_jax authors"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
root_doc = "docs/index"
include_patterns = [
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**.md", "docs/**.ipynb"),
    *("docs/api/generated/*.rst", "experiments/*/results/**.md"),
]
exclude_patterns = ["build", "dist", "runs", "tests", "**.egg-info", ".*"]
templates_path = ["_templates"]
highlight_language = "none"  # of blocks that name no language
smartquotes = False  # "--flag" keeps its dashes
suppress_warnings = ["ref.python"]  # fields of many classes share names such as "name"

myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]
nb_execution_mode = "off"  # the stored outputs are shown; tests/docs executes the notebooks
copybutton_prompt_text = ">>> "

autosummary_generate = True
# Optional packages that some commands import at their top.
_OPTIONAL = ("gymnasium", "huggingface_hub", "msgpack", "onnx", "safetensors", "websockets")
autodoc_mock_imports = [name for name in _OPTIONAL if importlib.util.find_spec(name) is None]
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "undoc-members": True, "show-inheritance": True}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "ambient_jax"
html_additional_pages = {"index": "redirect.html"}  # the site's root leads to docs/index
html_copy_source = False
html_show_sphinx = html_show_copyright = False


def _adapt(app, docname, source):
    """A link to a module's file leads to its page of the reference; a bare table gets a title."""
    source[0] = re.sub(
        r"\]\((?:\.\./)*(ambient_jax/[\w/]+)\.py\)",
        lambda m: f"](/docs/api/generated/{m[1].replace('/', '.')}.rst)",
        source[0],
    )
    if docname.startswith("experiments/") and not docname.endswith("README"):
        title = "" if source[0].startswith("# ") else f"# {docname}\n\n"
        source[0] = f"---\norphan: true\n---\n\n{title}{source[0]}"


def setup(app):
    app.connect("source-read", _adapt)
    app.connect("autodoc-process-docstring", plain_docstrings.process, priority=100)
