"""The documentation site: `sphinx-build -W -c docs . site`, from the top level.

Sphinx, as Flax and Optax have it, because the reference is made from the docstrings, which
mkdocs leaves to plugins. The sources are the Markdown files where they lie, so that a link leads to
the same place here and where the repository is looked at. Nothing is executed by the build and
nothing is fetched: the code of the pages is run by tests/test_docs.py.
"""

import dataclasses
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pygments.lexers.special import TextLexer  # noqa: E402

import zoo  # noqa: E402

project = "jax-cnn-zoo"
author = "The contributors of jax-cnn-zoo"
project_copyright = f"2026, {author}"
version = release = zoo.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = [
    *("docs/*.md", "docs/tricks/README.md", "benchmarks/*.md"),
    *("MODELS.md", "CHANGELOG.md", "CONTRIBUTING.md"),
]
exclude_patterns = [".*", "site", "runs", "dist", "build", "**/.venv*"]
suppress_warnings = ["config.cache"]

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

default_role = "literal"  # docstrings have code in single backticks
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 80
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"{project} {release}"
html_extra_path = ["index.html"]  # at the top: it leads to docs/index.html
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False


def sentence(_app, what, _name, _object, _options, lines):
    """Napoleon takes what stands before a colon in a property's first line for its type."""
    if what == "property":
        lines.insert(0, "")


def settings(_app, _what, name, _object, _options, lines):
    """The fields of `TrainConfig`, each with its default and the sentence of `zoo train --help`."""
    if name == "zoo.TrainConfig":
        lines += ["", ":Settings:", ""]
        for field in dataclasses.fields(zoo.TrainConfig):
            if "help" in field.metadata:
                text = field.metadata["help"].replace("*", r"\*").replace("|", r"\|")
                lines += [f"   - ``{field.name}`` (``{field.default!r}``): {text}"]
        lines.append("")


def setup(app):
    """Connect what is above, and show CSV as it is."""
    app.add_lexer("csv", TextLexer)
    app.connect("autodoc-process-docstring", settings)
    app.connect("autodoc-process-docstring", sentence, priority=400)  # before Napoleon
