"""Configure Sphinx. Build the pages with ``sphinx-build -W -b html docs docs/_build``; it needs no network."""

from __future__ import annotations

import runpy
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

from pfstorage.cli.flags import build_parser

_VERSION_FILE = Path(__file__).parent.parent / "pfstorage" / "_version.py"

project = "pfstorage"
copyright = "the authors of pfstorage, under the MIT licence"
version = release = runpy.run_path(str(_VERSION_FILE))["__version__"]

extensions = ["sphinx.ext.autodoc"]
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
default_role = "py:obj"  # docstrings write `name` for a name of Python

html_theme = "alabaster"
html_theme_options = {"description": "One regular JSON interface to object storage"}
html_copy_source = False
man_pages = [("man", "pfstorage", "send JSON messages to an object store", "", 1)]
exclude_patterns = ["_build"]
smartquotes = False  # quotation marks stay as readers type them


class Flags(Directive):
    """Make a definition list of all flags, for the man page, from the help texts of the parser."""

    def run(self) -> list[nodes.Node]:
        found = nodes.definition_list()
        for flag in build_parser()._actions:
            words = [*flag.option_strings, str(flag.metavar or "|".join(flag.choices or ()))]
            text = nodes.paragraph("", (flag.help or "").replace("%%", "%"))
            found += nodes.definition_list_item(
                "", nodes.term("", " ".join(words)), nodes.definition("", text)
            )
        return [found]


def setup(app: Sphinx) -> None:
    app.add_directive("flags", Flags)
