"""The site: `sphinx-build -W --keep-going -c docs . build/site`, without internet.

Its source is the whole repository, so that every link that works in the repository works on the site, and one that leads
nowhere is an error. A new page in docs/ is found by itself; docs/api/ is written here, a page a package with public names.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import monai_thyroid

ROOT = Path(__file__).resolve().parents[1]
API = ROOT / "docs" / "api"

project = "monai_thyroid"
copyright = "monai_thyroid authors, Apache-2.0"  # noqa: A001, the name is Sphinx's
version = release = monai_thyroid.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
source_suffix = {".md": "markdown"}
include_patterns = ["*.md", "docs/**.md", "bundles/**.md"]
exclude_patterns = [".*", "**/.*", "build", "dist", "runs", "monai_thyroid", "tests", "tutorials"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # a bundle's README may begin below a first heading

# Names in docstrings stand in single backticks, as in Markdown.
default_role = "code"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_preprocess_types = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100

html_theme = "furo"
html_title = f"monai_thyroid {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["extra"]
html_copy_source = False
html_show_sphinx = False


def packages() -> list[str]:
    """Dotted names of the packages with public names."""
    found = []
    for path in sorted((ROOT / "monai_thyroid").rglob("__init__.py")):
        if path.parent != ROOT / "monai_thyroid" and re.search(r"^__all__ = ", path.read_text("utf-8"), re.MULTILINE):
            found.append(".".join(path.parent.relative_to(ROOT).parts))
    return found


def write_api(*_: Any) -> None:
    """Write a page for each package; what is as it should be is left alone, so that it need not be read again."""
    API.mkdir(exist_ok=True)
    options = "   :members:\n   :imported-members:\n"
    wanted = {
        f"{name.removeprefix('monai_thyroid.')}.md": f"# {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n{options}```\n"
        for name in packages()
    }
    for path in API.glob("*.md"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        if not (API / name).is_file() or (API / name).read_text("utf-8") != text:
            (API / name).write_text(text, encoding="utf-8")


def setup(app: Any) -> None:
    """Sphinx's entry."""
    app.connect("config-inited", write_api)
