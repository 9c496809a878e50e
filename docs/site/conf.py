"""Sphinx's settings of the site; docs/site.py copies this file beside the pages and calls Sphinx."""

import re

import himac_lite

project, author = "himac-lite", "himac-lite contributors"
version = release = himac_lite.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
nb_execution_mode = "off"
myst_heading_anchors = 4
myst_enable_extensions = ["html_image"]
default_role = "code"
html_theme = "furo"
html_title = "himac-lite"
html_static_path = ["_static"]
html_css_files = ["live.css"]
html_js_files = ["live.js", "modules.js"]
html_show_search_summary = False  # a page in a folder may not fetch other pages
html_copy_source = html_show_sourcelink = False
html_theme_options = {"source_repository": "", "light_css_variables": {"color-brand-content": "#0072b2"}}
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
suppress_warnings = ["myst.xref_missing", "myst.header", "mystnb.unknown_mime_type", "docutils"]
exclude_patterns = ["_build"]

SECTION = re.compile(r"^(Returns|Raises|References?|Source|Exits): (.*)$")


def formulas(app, what, name, obj, options, lines):
    """Docstrings of ours as reStructuredText: an indented block is a formula, `Returns: x` on one line is a section."""
    out, arguments = [], False
    for line in lines:
        found = SECTION.match(line)
        arguments = line == "Args:" or (arguments and (not line or line.startswith(" ")))
        if found:
            out += ["", f"**{found[1]}:** {found[2]}"]
        elif line.startswith("    ") and not arguments and out and not out[-1]:
            out += ["::", "", line]
        else:
            out.append(line)
    lines[:] = out


def setup(app):
    app.connect("autodoc-process-docstring", formulas, priority=100)
