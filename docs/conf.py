"""The guide, built by Sphinx: strictly (`make docs`), and without a network."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "extension")]

project = "diffatlas"
author = "the diffatlas authors"
project_copyright = author
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "guide_docstrings",
    "guide_links",
    "guide_reference",
]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
exclude_patterns: list[str] = ["extension"]
nitpicky = True
nitpick_ignore_regex = [("py:class", ".*")]  # types: most have no page of their own

html_theme = "furo"
html_title = "diffatlas"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_show_search_summary = False  # a page opened from a file may not read others
html_static_path = ["static"]
html_css_files = ["guide.css"]
html_js_files = ["guide.js"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # notebooks keep what they showed; the tests run them

smartquotes_action = "D"  # dashes alone
default_role = "literal"  # `name` in a docstring
autodoc_typehints = "none"  # what is accepted is said in words, with shapes and units
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 90
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True
