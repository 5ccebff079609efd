"""A Sphinx extension: what stands on the page of a file of the repository.

A lesson's page is made from its worked notebook, a module's from its docstrings; README carries the table of contents,
and the texts in site/ go on with what is known elsewhere. Everything else is shown as it is.
"""

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from lesson_pages import lesson_page
from nbformat import NotebookNode

from coursework.course import publishing
from coursework.course.heads import heads
from coursework.course.tree import find_lessons

MODULE = "{name}\n{line}\n\n.. automodule:: {name}\n   :members:\n"
LESSON = re.compile(r"(?:^Lesson|\(lessons?) (\d\d)", re.MULTILINE)
TRAINED = re.compile(r"\]\(coursework/models/trained\)")


def setup(app: Any) -> dict[str, bool]:
    """Registers the extension; the setting `worked` shows solutions, checks and known mistakes."""
    app.add_config_value("worked", True, "env", bool)
    app.connect("source-read", read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def read(app: Any, page: str, content: list[str]) -> None:
    """Replaces what stands in a file by what its page shows. A page is named by its file, without the suffix."""
    root, pages = Path(app.srcdir), sorted(app.project.docnames)
    if page.startswith("notebooks/"):
        content[0] = nbformat.writes(lesson(app, root, Path(page).name))
    elif page.startswith("coursework/") and not is_card(page):
        content[0] = MODULE.format(name=module(page), line="=" * len(module(page)))
    elif page in ADDED:
        app.env.note_reread()
        content[0] = TRAINED.sub("](site/trained.md)", "\n\n".join([content[0], *ADDED[page](root, pages)]))


def lesson(app: Any, root: Path, name: str) -> NotebookNode:
    """Returns a lesson's page, with the lesson itself to download; notes what it is made from."""
    exercises = [path for path in root.glob("coursework/exercises/**/*") if f"lesson_{name[:2]}" in path.as_posix()]
    source = root / "solutions" / f"{name}.ipynb"
    for path in (source, root / "site" / "lesson_pages.py", *exercises):
        app.env.note_dependency(path)
    page = lesson_page(publishing.read(source), int(name[:2]), worked=app.config.worked)
    tree = "solutions" if app.config.worked else "notebooks"
    page.cells[0].source += f"\n\n{{download}}`This lesson as a notebook </{tree}/{name}.ipynb>`"
    return page


# -- what is added to a text, in paragraphs ----------------------------------------------------------------------------


def contents(root: Path, pages: list[str]) -> Iterator[str]:
    """Yields the site's table of contents."""
    yield toctree([f"{head.heading} <notebooks/{head.name}>" for head in heads(root)], "Lessons")
    yield toctree([page for page in pages if page.startswith("docs/")], "Guides")
    yield toctree(["site/glossary", "site/commands", "site/api", "site/trained"], "Reference")
    yield toctree([page for page in ("CONTRIBUTING", "CHANGELOG") if page in pages], "Project")


def glossary(root: Path, pages: list[str]) -> Iterator[str]:
    """Yields the sections Notation and Glossary of lesson 00."""
    start = publishing.read(find_lessons(root / "solutions")[0])
    text = "\n\n".join(cell.source for cell in start.cells if cell.cell_type == "markdown")
    _, *parts = re.split(r"^## (?:\d+\. )?(.+)$", text, flags=re.MULTILINE)
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    for heading in ("Notation", "Glossary"):
        yield f"## {heading}\n{sections[heading]}"


def commands(root: Path, pages: list[str]) -> Iterator[str]:
    """Yields what `coursework --help` says, for every command."""
    from typer.cli import get_docs_for_click
    from typer.main import get_command

    from coursework.cli import app

    command = get_command(app)
    context = command.context_class(command, info_name="coursework")
    yield get_docs_for_click(obj=command, ctx=context, name="coursework").partition("\n")[2]


def trained(root: Path, pages: list[str]) -> Iterator[str]:
    """Yields a line for each model card, with its first sentence."""
    cards = [page for page in pages if is_card(page)]
    for card in cards:
        about = (root / f"{card}.md").read_text(encoding="utf-8").split("\n\n")[1].partition(". ")[0]
        yield f"- [{Path(card).name}](/{card}.md): {about.rstrip('.')}."
    yield toctree([f"/{card}" for card in cards])


def api(root: Path, pages: list[str]) -> Iterator[str]:
    """Yields tables of the modules: what lessons are about, in their order; what else is flat; what has rooms."""
    modules = [page for page in pages if page.startswith("coursework/") and not is_card(page)]
    lessons = {page: LESSON.search(inspect.getdoc(importlib.import_module(module(page))) or "") for page in modules}
    flat = [page for page in modules if page.count("/") == 1]
    tables = {
        "The subject, lesson by lesson": sorted(filter(lessons.get, flat), key=lambda page: lessons[page][1]),
        "What lessons show and run with": [page for page in flat if not lessons[page]],
        "Rooms of several modules": [page for page in modules if page not in flat],
    }
    for heading, listed in tables.items():
        rows = "\n".join(f"   {module(page)}" for page in listed)
        yield f"## {heading}\n\n```{{eval-rst}}\n.. autosummary::\n\n{rows}\n```"
        yield toctree([f"/{page}" for page in listed])


ADDED = {
    "README": contents,
    "site/api": api,
    "site/commands": commands,
    "site/glossary": glossary,
    "site/trained": trained,
}


def toctree(pages: list[str], caption: str = "") -> str:
    """Returns pages, "name" or "title <name>", as a part of the table of contents."""
    options = [":hidden:", *([f":caption: {caption}"] if caption else [])]
    return "\n".join(["```{toctree}", *options, "", *pages, "```"]) if pages else ""


def is_card(page: str) -> bool:
    """Whether a page is a trained model's card."""
    return Path(page).parent.name == "trained"


def module(page: str) -> str:
    """Returns the module whose file a page is."""
    return page.removesuffix("/__init__").replace("/", ".")
