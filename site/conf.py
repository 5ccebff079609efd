"""Sphinx's configuration. Pages are the repository's own files: a link between them on GitHub is one on the site."""

import sys
from importlib.metadata import distribution
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "Score-based generative models"
author = ""
html_show_copyright = False
html_title = project
language = "en"
smartquotes = False

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "docstrings",
    "pages",
]
worked = tags.has("solutions")  # noqa: F821
not_for_learners = [] if worked else ["docs/instructors", "CONTRIBUTING"]  # they say what learners should find out
nitpick_ignore = [("myst", page) for page in not_for_learners]  # links to them become plain text
nitpick_ignore_regex = [("py:(?!obj).*", r"(?!coursework\.).*")]  # other packages' pages are not looked up
root_doc = "README"
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb", ".py": "restructuredtext"}
include_patterns = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/*.md",
    "site/*.md",
    "notebooks/[0-9][0-9]_*.ipynb",
    "coursework/models/trained/*.md",
    "coursework/*.py",
    "coursework/*/__init__.py",
    "coursework/exercises/*.py",
    "coursework/models/*.py",
]
exclude_patterns = [
    ".*",
    "build",
    "notebooks/*.mine-*",
    "coursework/__*",
    "coursework/_*",
    "coursework/**/_[!_]*",
    "coursework/cli*",
    "coursework/exercises/lesson_*",
    *(f"{page}.md" for page in not_for_learners),
]

# Lessons and texts
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # explorers are stored as pictures; nothing is fetched for them
nb_merge_streams = True
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_dmath_double_inline = True
myst_heading_anchors = 4
copybutton_selector = "div.highlight-ipython3 pre, div.cell_input pre, details.solution pre"

# Formulas: MathJax with its glyphs in the file itself, so that pages opened from a disk need no font files.
MATHJAX = distribution("sphinx-mathjax-offline").locate_file("sphinx-mathjax-offline/static/mathjax/tex-svg.js")
mathjax_path = "tex-svg.js"
mathjax3_config = {"options": {"enableMenu": False}}

# API
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
autosummary_generate = False
add_module_names = False
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"
python_maximum_signature_line_length = 80

# Pages
html_theme = "sphinx_book_theme"
html_context = {"default_mode": "auto"}
html_static_path = ["_static", str(MATHJAX)]
html_css_files = ["site.css"]
html_js_files = ["from_disk.js"]
html_favicon = "_static/favicon.svg"
html_copy_source = False
html_use_index = False
html_domain_indices = False
html_theme_options = {
    "back_to_top_button": False,
    "navbar_persistent": [],
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
}
