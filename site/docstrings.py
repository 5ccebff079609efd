"""A Sphinx extension: the package's docstrings, which are plain text with formulas, as reStructuredText.

Nothing in them is markup except `code` in backticks and the sections Args, Returns and Raises. Without this, x* or p_t
or |x|^2 would be read as markup.
"""

import re
import textwrap
from typing import Any

SECTION = re.compile(r"(Args|Returns|Raises):$")
ENTRY = re.compile(r"(\w+): (.*)", re.DOTALL)
LEAD = re.compile(r"(?:(?<=[.;:)] )|^)(Shapes?|Sources?|Raises)\b(?=:| [A-Z]\w+Error)")
FUNCTION = re.compile(r"<function ([\w.]+)[^>]*>")
NAME = re.compile(r"[A-Za-z_][\w.]*")


def setup(app: Any) -> dict[str, bool]:
    """Registers the extension."""
    app.connect("autodoc-process-docstring", process)
    app.connect("autodoc-process-signature", shorten)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Replaces the lines of a docstring."""
    lines[:] = to_rst("\n".join(lines)).splitlines()


def shorten(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Returns a signature that Sphinx can read: none for a protocol, and functions by name where they are defaults."""
    if getattr(obj, "_is_protocol", False):
        return "", None
    return FUNCTION.sub(r"\1", signature) if signature else signature, returns


def to_rst(docstring: str) -> str:
    """Returns a docstring as reStructuredText."""
    paragraphs = re.split(r"\n\s*\n", docstring.strip("\n"))
    return "\n\n".join(text for paragraph in paragraphs for text in paragraph_rst(paragraph)) + "\n"


def paragraph_rst(paragraph: str) -> list[str]:
    """Returns a paragraph, cut before "Shapes:", "Source:" and "Raises ...", which stand out on the page."""
    head, _, body = paragraph.partition("\n")
    if SECTION.match(head):
        return [section(head[:-1], textwrap.dedent(body))]
    if re.search(r"^ +", paragraph, re.MULTILINE):  # laid out by hand
        return ["::\n\n" + textwrap.indent(paragraph, "   ")]
    text = " ".join(paragraph.split())
    starts = [0, *(m.start() for m in LEAD.finditer(text) if m.start())]
    return [sentence(text[a:b].strip()) for a, b in zip(starts, [*starts[1:], None], strict=True)]


def sentence(text: str) -> str:
    """Returns text as reStructuredText, its lead word in bold."""
    lead = LEAD.match(text)
    return f"**{lead[1]}**\\ {escape(text[lead.end() :])}" if lead else escape(text)


def section(title: str, body: str) -> str:
    """Returns a section as a field list."""
    if title == "Returns":
        return f":returns: {escape(' '.join(body.split()))}"
    entries = [" ".join(entry.split()) for entry in re.split(r"\n(?! )", body)]
    field = {"Args": "param", "Raises": "raises"}[title]
    found = [ENTRY.fullmatch(entry) for entry in entries]
    return "\n".join(f":{field} {m[1]}: {escape(m[2])}" for m in found if m)


def escape(text: str) -> str:
    """Returns plain text with code in backticks as reStructuredText; code that names something links to it."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        parts = [text]
    return "".join(code(part) if i % 2 else re.sub(r"([^\w\s]|_)", r"\\\1", part) for i, part in enumerate(parts))


def code(text: str) -> str:
    """Returns code as a literal, or as a reference where it is a name: one that leads nowhere looks like a literal."""
    return f"\\ :py:obj:`{text}`\\ " if NAME.fullmatch(text) else f"\\ ``{text}``\\ "
