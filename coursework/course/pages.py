"""Executed lessons as pages that read without internet: pictures and styles are inside, MathJax is one file beside."""

from __future__ import annotations

import copy
import re
from pathlib import Path

from jinja2 import DictLoader
from nbconvert import HTMLExporter
from nbformat import NotebookNode

from coursework._files import write_atomically
from coursework.course.notebooks import without_widget

TEMPLATE = r"""
{% extends "lab/index.html.j2" %}
{% block html_head_js %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block html_head_js_mathjax %}
<script>
MathJax = {
  tex: {inlineMath: [["$", "$"], ["\\(", "\\)"]], processEscapes: true, tags: "ams"},
  options: {enableMenu: false, ignoreHtmlClass: "jp-CodeCell|jp-OutputArea", processHtmlClass: "jp-RenderedMarkdown"}
};
</script>
<script src="../tex-svg.js" defer></script>
{% endblock %}
{% block data_png scoped %}
<div class="jp-RenderedImage jp-OutputArea-output" data-mime-type="image/png">
<img src="data:image/png;base64,{{ output.data["image/png"] | replace("\n", "") }}"
alt="{{ (output | get_metadata("alt", "image/png") or "") | escape_html }}">
</div>
{% endblock %}
"""
LINK = re.compile(r"\]\(([\w.-]+)\.ipynb(#[^)]*)?\)")


def write(path: Path, executed: NotebookNode) -> None:
    """Writes an executed lesson as a page, whole or not at all. Raises OSError naming the file."""
    write_atomically(path, page(executed, path.stem).encode("utf-8", "backslashreplace"))


def page(executed: NotebookNode, name: str) -> str:
    """Returns an executed lesson as a page; a widget is shown as its picture, a link to a lesson leads to its page."""
    notebook = copy.deepcopy(executed)
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = LINK.sub(r"](\1.html\2)", cell.source)
        else:
            cell.outputs = [still for output in cell.get("outputs", []) if (still := without_widget(output))]
    exporter = HTMLExporter(extra_loaders=[DictLoader({"lesson.html.j2": TEMPLATE})], template_file="lesson.html.j2")
    return exporter.from_notebook_node(notebook, {"metadata": {"name": name}})[0]
