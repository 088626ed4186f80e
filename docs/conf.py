"""How Sphinx builds these pages: ``sphinx-build -W -b html docs docs/_build``. No network is needed."""

import runpy
from pathlib import Path

_VERSION_FILE = Path(__file__).parent.parent / "pfstorage" / "_version.py"

project = "pfstorage"
copyright = "the authors of pfstorage, under the MIT licence"
version = release = runpy.run_path(str(_VERSION_FILE))["__version__"]

html_theme = "alabaster"
html_theme_options = {"description": "One regular JSON interface to object storage"}
html_copy_source = False
exclude_patterns = ["_build"]
smartquotes = False  # what is quoted here is typed
