"""Builds the documentation: ``make docs``. What can be read from the code is written from it, before each build."""

import sys
from pathlib import Path

import mlflow.pyfunc  # noqa: F401 - before autodoc does, as if for a type checker, which its models do not survive
from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import generated  # noqa: E402

from lightning_cells import __version__  # noqa: E402

project = "lightning_cells"
author = "the lightning_cells developers"
copyright = "2026, the lightning_cells developers"
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
default_role = "code"
html_theme = "furo"
html_title = "lightning_cells"
templates_path: list[str] = []
suppress_warnings = ["ref.python"]  # a name of the "Returns" section is taken for a type

nb_execution_mode = "off"  # the tests run the notebooks
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]
copybutton_prompt_text = "$ "

apidoc_modules = [
    {
        "path": "../lightning_cells",
        "destination": "reference/api",
        "exclude_patterns": ["../lightning_cells/cli", "../lightning_cells/__main__.py"],
        "separate_modules": True,
        "module_first": True,
        "automodule_options": {"members", "show-inheritance"},
    }
]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True


def setup(app: Sphinx) -> None:
    """Writes the generated pages before Sphinx looks for its sources."""
    generated.write(HERE / "reference", root=HERE.parent)
    generated.copy_notebooks(HERE.parent / "notebooks", HERE / "getting-started" / "notebooks")
