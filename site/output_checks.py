"""What the built site must satisfy: every link leads somewhere, and nothing is fetched from elsewhere."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

REMOTE = re.compile(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//")


class _Reader(HTMLParser):
    """Collects the anchors and the references of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.references: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value is None:
                continue
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value)
            elif name in ("href", "src", "data", "poster"):
                self.references.append((tag, value))
            elif name == "srcset":
                self.references += [(tag, part.split()[0]) for part in value.split(",") if part.strip()]


@dataclass
class Page:
    """A page's anchors, and its references as (tag, address)."""

    anchors: set[str] = field(default_factory=set)
    references: list[tuple[str, str]] = field(default_factory=list)


def read_page(path: Path) -> Page:
    """Reads a page."""
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return Page(reader.anchors, reader.references)


def problems(site: Path) -> list[str]:
    """Returns what is wrong with a built site, a line each."""
    pages = {path: read_page(path) for path in sorted(site.rglob("*.html")) if "_static" not in path.parts}
    found = [f"{p.relative_to(site)}: {text}" for p, page in pages.items() for text in broken(p, page, pages)]
    styles = [p for p in sorted(site.rglob("*.css")) if REMOTE.search(p.read_text(encoding="utf-8"))]
    return [*dict.fromkeys(found), *(f"{p.relative_to(site)}: fetches something from elsewhere" for p in styles)]


def broken(path: Path, page: Page, pages: dict[Path, Page]) -> Iterator[str]:
    """Yields the references of a page that lead nowhere, and what it would fetch from elsewhere."""
    for tag, address in page.references:
        parts = urlsplit(address)
        if parts.scheme in ("data", "mailto", "javascript"):
            continue
        if parts.scheme or parts.netloc:
            if tag != "a":
                yield f"<{tag}> fetches {address}"
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if not target.is_file():
            yield f"{address} leads nowhere"
        elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
            yield f"{address} leads to a page without that anchor"
