"""The site of these pages: `make docs` builds it into build/docs. Sources are the Markdown files where they stand in the repository."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "hack"), str(ROOT / "operator")]

from whatsapp_operator import __version__ as release  # noqa: E402

project = "WhatsApp operator"
author = "the contributors"
extensions = ["myst_parser", "localkube.site"]

root_doc = "docs/index"
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "charts/*/README.md", "docs/**"]
exclude_patterns = [".venv", "build"]
nitpicky = True

myst_heading_anchors = 4
myst_links_external_new_tab = False

html_theme = "furo"
html_title = f"WhatsApp operator {release}"
html_copy_source = False
html_show_sourcelink = False
