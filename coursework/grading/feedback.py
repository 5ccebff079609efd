"""A feedback page: a submission as it was graded, with its points on top. It asks nothing of the internet.

This runs in a process of its own (`pages`): what a learner wrote can keep a highlighter busy for ever.
"""

import re
import secrets
from functools import cache
from html import escape

import nbformat
from jinja2 import DictLoader
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter

from coursework.grading.standing import Standing
from coursework.grading.tables import number, written

LONGEST_PLAIN = 20_000  # characters of a cell in a plain page
TEMPLATE = r"""
{%- extends "classic/base.html.j2" -%}
{%- set about = resources.feedback -%}
{%- block header -%}
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="coursework" content="{{ about.origin }}">
<meta http-equiv="Content-Security-Policy" content="{{ about.policy }}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ about.title }}</title>
<style>{{ about.style }}</style>
{%- if about.mathjax %}
<script nonce="{{ about.nonce }}">
MathJax = {
  tex: {inlineMath: [["$", "$"], ["\\(", "\\)"]], processEscapes: true, tags: "ams"},
  options: {enableMenu: false, enableExplorer: false, ignoreHtmlClass: "input|output_wrapper"}
};
</script>
<script nonce="{{ about.nonce }}" src="{{ about.mathjax }}" defer></script>
{%- endif %}
</head>
{%- endblock header -%}
{%- macro points(name) -%}
{%- set grade = about.grades.get(name) -%}
{%- if grade.waits and not grade.by_hand %}not yet graded, {{ grade.most }} points
{%- else %}{{ grade.score }} of {{ grade.most }}{% if grade.waits %}, to be looked at again{% endif %}{% endif -%}
{%- endmacro -%}
{%- block body -%}
<body>
<h1 id="top">Feedback</h1>
<p>Score: <strong>{{ about.total }} of {{ about.most }}</strong>
{%- if about.waiting %}; not yet graded: {{ about.waiting }}{% endif %}.</p>
<ul>
{%- for name in about.grades %}
<li><a href="#{{ name }}">{{ about.names[name] }}</a>: {{ points(name) }}</li>
{%- endfor %}
{%- if about.penalty %}
<li>Late: -{{ about.penalty }}</li>
{%- endif %}
{%- for name in about.comments %}
<li><a href="#comment-{{ name }}">Comment on {{ about.names.get(name, name) }}</a></li>
{%- endfor %}
</ul>
{{ super() }}
</body>
{%- endblock body -%}
{%- block any_cell -%}
{%- set name = cell.metadata.get("nbgrader", {}).get("grade_id", "") -%}
{%- if name in about.grades %}
<div class="grade" id="{{ name }}"><strong>{{ about.names[name] }}</strong>: {{ points(name) }}
 <a href="#top">(to the top)</a></div>
{%- endif %}
{{ super() }}
{%- if name in about.comments %}
<div class="comment" id="comment-{{ name }}"><strong>Comment</strong>: {{ about.comments[name] }}</div>
{%- endif %}
{%- endblock any_cell -%}
{%- block footer -%}
</html>
{%- endblock footer -%}
"""
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 1rem auto; padding: 0 1rem; color: #111; }
.input_prompt, .prompt { display: none; }
.input_area, pre { overflow-x: auto; background: #f4f4f4; }
pre { padding: 0.4rem; margin: 0; white-space: pre-wrap; }
.output_subarea { border-left: 4px solid #bbb; margin: 0.3rem 0; }
.output_error { border-color: #d55e00; }
.grade { border-top: 1px solid #888; margin-top: 1rem; padding-top: 0.3rem; }
.comment { border-left: 4px solid #009e73; padding-left: 0.5rem; white-space: pre-wrap; }
img, svg { max-width: 100%; }
table { border-collapse: collapse; } td, th { border: 1px solid #bbb; padding: 0.2rem 0.5rem; }
"""
POLICY = "default-src 'none'; img-src data:; font-src data:; style-src 'unsafe-inline'"  # nothing from elsewhere
ORIGIN = re.compile(r'<meta content="([^"]*)" name="coursework"')  # as nbconvert's exporter writes it


def page(notebook: str, standing: Standing, origin: str, mathjax: str = "", *, plain: bool = False) -> str:
    """A rebuilt submission (JSON) as a page.

    origin: what the page says it was made from; mathjax: where it finds MathJax; plain: text and code as they are.
    """
    found = nbformat.reads(notebook, as_version=4)
    own = [cell.metadata.nbgrader.grade_id for cell in found.cells if "nbgrader" in cell.metadata]
    grades = {name: standing.grades[name] for name in own if name in standing.grades}
    title = next((cell.source for cell in found.cells if cell.cell_type == "markdown"), "").partition("\n")[0]
    nonce = secrets.token_urlsafe(16)
    about = {
        "origin": origin,
        "nonce": nonce,
        "policy": f"{POLICY}; script-src 'nonce-{nonce}'",
        "title": escape(title.lstrip("# ") or "Feedback"),
        "style": STYLE + HtmlFormatter().get_style_defs(".highlight"),
        "mathjax": mathjax,
        "grades": {
            name: {
                "score": number(g.score),
                "most": number(g.most),
                "waits": g.waits,
                "by_hand": g.by_hand,
            }
            for name, g in grades.items()
        },
        "names": {name: _shown(name) for name in own},
        "comments": {name: escape(text) for name, text in standing.comments.items() if name in own},
        "total": number(standing.total),
        "most": number(standing.most),
        "waiting": standing.waiting,
        "penalty": number(standing.penalty),
    }
    return _exporter(plain).from_notebook_node(found, {"feedback": about, "metadata": {"name": title, "path": ""}})[0]


@cache
def _exporter(plain: bool) -> HTMLExporter:
    names = ("highlight_code", "markdown2html", "ansi2html", "clean_html")
    filters = dict(zip(names, (_as_it_is, _as_it_is, escape, _unchanged), strict=True)) if plain else {}
    loader = DictLoader({"feedback.html.j2": TEMPLATE})
    return HTMLExporter(extra_loaders=[loader], template_file="feedback.html.j2", filters=filters)


def _as_it_is(source: str, *_: object, **__: object) -> str:
    cut = f"\n(Cut off here, after {LONGEST_PLAIN:,} characters.)" if len(source) > LONGEST_PLAIN else ""
    return f"<pre>{escape(source[:LONGEST_PLAIN] + cut)}</pre>"


def _unchanged(text: str) -> str:
    return text


def _shown(name: str) -> str:
    """A cell's name for a reader: "Exercise 3.3", "Derivation 3.3"."""
    return written(name.replace("check-", "exercise-", 1)).capitalize()
