"""The site's pages that are not lessons: landing page, glossary, guides, model cards, commands and API."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterable
from pathlib import Path

from nbformat import NotebookNode

import coursework

# The rest of the package's public modules is the course's machinery.
GROUPS = {
    "Methods": (
        "distributions score_matching predictions langevin ncsn sdes reverse_sde probability_flow likelihood "
        "guidance ddpm"
    ),
    "Networks, data, training": "nn data models metrics",
}
MACHINERY = "The course's machinery"


def toctree(caption: str, entries: Iterable[str]) -> str:
    """Returns a part of the table of contents; an entry is a page's name, or "title <name>"."""
    lines = [":hidden:", f":caption: {caption}", "", *entries]
    return "\n".join(["```{toctree}", *lines, "```"])


def lesson_entry(page: NotebookNode, name: str) -> str:
    """Returns a lesson's entry in the table of contents: "04 Denoising score matching <lessons/04_...>"."""
    title = re.match(r"# Lesson (\d+): (.+)", page.cells[0].source)
    if not title:
        raise ValueError(f'{name}: the first line is not "# Lesson NN: title"')
    return f"{title[1]} {title[2][0].upper()}{title[2][1:]} <lessons/{name}>"


def glossary_page(start: NotebookNode) -> str:
    """Returns notation and glossary of the course, which stand in lesson 00."""
    text = "\n\n".join(cell.source for cell in start.cells if cell.cell_type == "markdown")
    parts = re.split(r"^## ", text, flags=re.MULTILINE)
    wanted = [re.sub(r"^[\d. ]+", "", p) for p in parts if re.match(r"(\d+\. )?(Notation|Glossary)\n", p)]
    if len(wanted) != 2:
        raise ValueError("00_start_here: expected a section Notation and a section Glossary")
    return "\n\n".join(["# Notation and glossary", *(f"## {part.strip()}" for part in wanted)])


def cards_page(cards: Iterable[Path]) -> str:
    """Returns the page that lists the model cards."""
    rows = [f"- [{card.stem}]({card.name}): {first_sentence(card)}" for card in cards]
    about = "Models that come with the package. Each card says how the model was made and how good it is."
    hidden = "\n".join(["```{toctree}", ":hidden:", "", *(card.stem for card in cards), "```"])
    return "\n\n".join(["# Trained models", about, "\n".join(rows), hidden])


def first_sentence(card: Path) -> str:
    """Returns the first sentence below a card's title."""
    return card.read_text(encoding="utf-8").split("\n\n")[1].partition(". ")[0].rstrip(".") + "."


def commands_page() -> str:
    """Returns what `coursework --help` says, for every command."""
    from typer.cli import get_docs_for_click
    from typer.main import get_command

    from coursework.cli import app

    command = get_command(app)
    context = command.context_class(command, info_name="coursework")
    text = get_docs_for_click(obj=command, ctx=context, name="coursework")
    return text.replace("# `coursework`", "# The command coursework", 1)


def api_modules() -> dict[str, list[str]]:
    """Returns the package's public modules, by the group in which the site lists them."""
    modules = [module.name for module in pkgutil.iter_modules(coursework.__path__)]
    public = [name for name in modules if not name.startswith(("_", "cli"))]  # commands have a page of their own
    groups = {title: [name for name in names.split() if name in public] for title, names in GROUPS.items()}
    rest = {*public} - {name for names in groups.values() for name in names}
    return {**groups, MACHINERY: sorted([*rest, "exercises.exercise", "exercises.judging"])}


def api_page(module: str) -> str:
    """Returns the page of a module, written by autodoc from its docstrings."""
    directive = f".. automodule:: coursework.{module}\n   :members:"
    return f"# coursework.{module}\n\n```{{eval-rst}}\n{directive}\n```"


def api_index(groups: dict[str, list[str]]) -> str:
    """Returns the page that lists the modules."""
    parts = ["# API reference", "The modules of the package, and what each is for."]
    for title, names in groups.items():
        rows = [f"- [coursework.{name}](coursework.{name}.md): {summary(name)}" for name in names]
        parts += [f"## {title}", "\n".join(rows)]
    names = [f"coursework.{name}" for group in groups.values() for name in group]
    return "\n\n".join([*parts, "\n".join(["```{toctree}", ":hidden:", "", *names, "```"])])


def summary(module: str) -> str:
    """Returns the first sentence of a module's docstring, as Markdown."""
    text = " ".join((inspect.getdoc(importlib.import_module(f"coursework.{module}")) or "").split("\n\n")[0].split())
    return re.sub(r"([*_|<>\[\]])", r"\\\1", text)
