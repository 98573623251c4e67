"""Settings of the documentation site: ``make docs`` builds it into ``site/``, with every warning an error.

Sphinx, MyST and Furo, because the docstrings are reStructuredText, and the three are maintained. The source folder is the
checkout itself, so that links between README.md, docs/, model_cards/ and the cards in registry/ are those of the forge.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "docs" / "extensions"), str(ROOT)]

import lesion_hub  # noqa: E402 - from the checkout, whatever is installed

project = "lesion-hub"
author = "The lesion-hub authors"
copyright = author
version = release = lesion_hub.__version__
language = "en"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "command_reference",
    "linked_names",
]

# ------------------------------------------------------------------------------------------------ pages

root_doc = "README"
include_patterns = [
    "*.md",
    "docs/*.md",
    "docs/reference/*",
    "model_cards/README.md",
    "registry/README.md",
    "registry/*/v*/README.md",
]
exclude_patterns = [".*", "node_modules", "site", "build", "dist", "runs", "demo", "*.egg-info"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}

# README.md stays plain Markdown, which a forge shows; what the site's sidebar lists is added to it here.
NAVIGATION = {
    "Guides": [
        "docs/explain",
        "docs/trust",
        "docs/data",
        "docs/train",
        "docs/models",
        "docs/evaluate",
        "docs/publish",
        "docs/deploy",
        "docs/speed",
        "docs/scale-out",
    ],
    "Reference": [
        "docs/reference/commands",
        "docs/reference/predict",
        "docs/reference/explain",
        "docs/reference/ensembles",
        "docs/reference/evaluate",
        "docs/reference/data",
        "docs/reference/models",
        "docs/reference/train",
        "docs/reference/hub",
        "docs/reference/app",
        "docs/reference/export",
        "docs/reference/labels",
    ],
    "Models": ["model_cards/README", "docs/five-projects", "docs/compared"],
    "Project": ["docs/architecture", "CONTRIBUTING", "SECURITY", "CHANGELOG"],
}


def add_navigation(app: Sphinx, docname: str, source: list[str]) -> None:
    if docname == root_doc:
        for caption, pages in NAVIGATION.items():
            source[0] += "\n".join(["\n```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```", ""])


def add_index(app: Sphinx, error: Exception | None) -> None:
    """Give README's page the name that a server looks for."""
    if error is None and app.builder.name == "html":
        shutil.copyfile(app.outdir / f"{root_doc}.html", app.outdir / "index.html")


# ------------------------------------------------------------------------------------------------ Markdown

myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]
# The registry's index and the cards of shipped models are reached from model_cards/README.md.
suppress_warnings = ["toc.not_included"]

# ------------------------------------------------------------------------------------------------ docstrings

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
default_role = "code"
add_module_names = False
toc_object_entries_show_parents = "hide"
napoleon_numpy_docstring = False
nitpicky = True
# Names of other libraries, whose pages no build fetches.
nitpick_ignore_regex = [(r"py:.*", r"(?!lesion_hub\.).*")]
# Type variables, and types that nobody but us makes.
nitpick_ignore = [
    ("py:class", f"lesion_hub.{name}")
    for name in (
        "config.Model",
        "data.cache.reading.ShardRecord",
        "data.sources.assemble.LabelWord",
        "data.sources.proposals.Proposal",
        "data.synthetic.plan.Clinic",
        "data.splits.manifest.PartRecord",
        "evaluation.plots.PlotFile",
        "training.claims.T",
        "training.components.Section",
        "training.run_folder.R",
    )
]

# ------------------------------------------------------------------------------------------------ looks

html_theme = "furo"
html_title = f"lesion-hub {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
templates_path: list[str] = []
pygments_style = "friendly"
copybutton_exclude = ".linenos, .gp, .go"
html_theme_options: dict[str, object] = {}
# On a forge's runner, which says where the sources are, every page links to its own.
if repository := os.environ.get("GITHUB_REPOSITORY"):
    html_theme_options = {
        "source_repository": f"{os.environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{repository}/",
        "source_branch": os.environ.get("GITHUB_REF_NAME", "main"),
        "source_directory": "",
    }


def setup(app: Sphinx) -> None:
    app.connect("source-read", add_navigation)
    app.connect("build-finished", add_index)
