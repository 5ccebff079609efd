"""A Sphinx extension: the package's docstrings, which are plain text with formulas, as reStructuredText.

Nothing in them is markup except `code` in backticks. Without this, x* or p_t or |x|^2 would be read as markup.
"""

import inspect
import pydoc
import re
import sys
import textwrap
from typing import Any, TypeVar

LEAD = re.compile(r"(?:(?<=[.;:)] )|^)(Shapes?|Sources?|Raises)\b(?=\\:| [A-Z]\w+Error)")
NAME = re.compile(r"[A-Za-z_][\w.]*")


def setup(app: Any) -> dict[str, bool]:
    """Registers the extension."""
    app.connect("autodoc-process-docstring", process)
    app.connect("missing-reference", link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Replaces the lines of a docstring."""
    lines[:] = to_rst("\n".join(lines)).splitlines()


def link(app: Any, env: Any, node: Any, literal: Any) -> Any:
    """Returns code of a docstring as a link, where its module knows it as something of ours that the site shows.

    Otherwise it stays code. What no class or module of ours has, `VPSDE.bta`, is None: Sphinx complains.
    """
    if node["reftype"] != "obj":  # a type, of which only a variable has no place
        return literal if isinstance(pydoc.locate(node["reftarget"]), TypeVar) else None
    first, *rest = node["reftarget"].split(".")
    owner = getattr(sys.modules.get(node.get("py:module")), first, None) or sys.modules.get(f"coursework.{first}")
    if not (inspect.ismodule(owner) or inspect.isclass(owner) or inspect.isfunction(owner)):
        return literal
    name = owner.__name__ if inspect.ismodule(owner) else f"{owner.__module__}.{owner.__qualname__}"
    place = env.get_domain("py").resolve_xref(
        env, node["refdoc"], app.builder, "obj", ".".join([name, *rest]), node, literal
    )
    has_it = not rest or hasattr(owner, rest[0]) or rest[0] in getattr(owner, "__annotations__", ())
    return place or (literal if has_it else None)


def to_rst(docstring: str) -> str:
    """Returns a docstring as reStructuredText."""
    return "\n\n".join(paragraph(text) for text in re.split(r"\n\s*\n", docstring.strip("\n"))) + "\n"


def paragraph(text: str) -> str:
    """Returns a paragraph, cut before "Shapes:", "Source:" and "Raises ...", which stand out on the page."""
    if re.search(r"^ +", text, re.MULTILINE):  # laid out by hand
        return "::\n\n" + textwrap.indent(text, "   ")
    parts = " ".join(text.split()).split("`")
    if len(parts) % 2 == 0:  # a lone tick
        parts = ["`".join(parts)]
    return "".join(code(part) if i % 2 else plain(part) for i, part in enumerate(parts)).strip()


def plain(text: str) -> str:
    """Returns text in which nothing is markup but the words that begin a paragraph."""
    return LEAD.sub(r"\n\n**\1**\\ ", re.sub(r"([^\w\s]|_)", r"\\\1", text))


def code(text: str) -> str:
    """Returns code, as a reference where it is a name: `link` says whether it leads somewhere."""
    return f"\\ :py:obj:`{text}`\\ " if NAME.fullmatch(text) else f"\\ ``{text}``\\ "
