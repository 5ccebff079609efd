"""A built website as a visitor's browser sees it: what stands on a page, where its links lead, what it would fetch."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

REMOTE = re.compile(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//")


class Page(HTMLParser):
    """A page's anchors, its references as (tag, address), and the text of its article without any space.

    `open_text` is what can be read before anybody has opened a box.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.references: list[tuple[str, str]] = []
        self.open_text = ""
        self._in_article = False
        self._boxes = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_article |= tag == "article"
        self._boxes += tag == "details"
        for name, value in attrs:
            if value is None:
                continue
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value)
            elif name in ("href", "src", "data", "poster"):
                self.references.append((tag, value))
            elif name == "srcset":
                self.references += [(tag, part.split()[0]) for part in value.split(",") if part.strip()]

    def handle_endtag(self, tag: str) -> None:
        self._in_article &= tag != "article"
        self._boxes -= tag == "details"

    def handle_data(self, data: str) -> None:
        if self._in_article and not self._boxes:
            self.open_text += re.sub(r"\s", "", data)


def problems(site: Path) -> list[str]:
    """What is wrong with a built site, a line each: links that lead nowhere, and what is fetched from elsewhere."""
    pages = {path: Page(path) for path in sorted(site.rglob("*.html")) if "_static" not in path.parts}
    found = [f"{p.relative_to(site)}: {text}" for p, page in pages.items() for text in _broken(p, page, pages)]
    styles = [p for p in sorted(site.rglob("*.css")) if REMOTE.search(p.read_text(encoding="utf-8"))]
    return [*dict.fromkeys(found), *(f"{p.relative_to(site)}: fetches something from elsewhere" for p in styles)]


def _broken(path: Path, page: Page, pages: dict[Path, Page]) -> Iterator[str]:
    for tag, address in page.references:
        parts = urlsplit(address)
        if parts.scheme in ("data", "mailto", "javascript"):
            continue
        if parts.scheme or parts.netloc:
            if tag != "a":
                yield f"<{tag}> fetches {address}"
            elif parts.scheme not in ("http", "https") or not re.fullmatch(r"([\w-]+\.)+[a-z]{2,}", parts.netloc):
                yield f"{address} is no address of a page"
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if not target.is_file():
            yield f"{address} leads nowhere"
        elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
            yield f"{address} leads to a page without that anchor"
