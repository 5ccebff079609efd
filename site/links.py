"""The links of a text of this repository, turned into links of the site."""

import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

# Code and formulas are passed over: a[0](x) in them is no link.
TOKEN = re.compile(
    r"(?P<code>^```.*?^```|`[^`\n]+`|\$\$.*?\$\$|\$[^$\n]+\$)"
    r"|(?P<image>!?)\[(?P<text>(?:[^\[\]`]|`[^`\n]*`)*)\]\((?P<target>[^()\s]+)\)",
    re.DOTALL | re.MULTILINE,
)


class LinkError(Exception):
    """Links that lead nowhere; a line each."""


@dataclass(frozen=True)
class Linker:
    """Rewrites links.

    `pages` says which file or folder of the repository, or "file#section", became which page: "README.md" ->
    "index.md". None stands for a page that this tree leaves out: links to it become plain text. Every other file that
    a text links to is handed to `attach`, which returns its path in the site's source.
    """

    root: Path
    pages: Mapping[str, str | None]
    attach: Callable[[str], str]

    def rewrite(self, text: str, origin: str, page: str) -> str:
        """Returns the text of the file `origin`, all paths relative to the root, with its links as on `page`.

        Raises:
            LinkError: naming each link that leads nowhere and each address that is none.
        """
        problems: list[str] = []

        def replacement(match: re.Match[str]) -> str:
            try:
                return match[0] if match["code"] else self._link(match, origin, page)
            except LinkError as error:
                problems.append(f"{origin}: {error}")
                return match[0]

        text = TOKEN.sub(replacement, text)
        if problems:
            raise LinkError("\n".join(problems))
        return text

    def _link(self, match: re.Match[str], origin: str, page: str) -> str:
        target, text = match["target"], match["text"]
        if urlsplit(target).scheme:
            check_address(target)
            return match[0]
        path, _, anchor = target.partition("#")
        anchor = f"#{slug(anchor)}" if anchor else ""
        if not path:
            return f"[{text}]({anchor})"
        there = posixpath.normpath(posixpath.join(posixpath.dirname(origin), path))
        for wanted, rest in ((f"{there}{anchor}", ""), (there, anchor)):
            if wanted in self.pages:
                known = self.pages[wanted]
                return text if known is None else f"[{text}]({relative(known, page)}{rest})"
        if not (self.root / there).is_file():
            raise LinkError(f"the link {target} leads nowhere")
        attached = relative(self.attach(there), page)
        return f"![{text}]({attached})" if match["image"] else f"{{download}}`{text.replace('`', '')} <{attached}>`"


def relative(target: str, page: str) -> str:
    """Returns the way from a page to a file, both as paths from the site's top."""
    return posixpath.relpath(target, posixpath.dirname(page) or ".")


def slug(anchor: str) -> str:
    """Returns a heading's anchor as the site spells it; JupyterLab keeps capitals."""
    return anchor.lower()


def check_address(address: str) -> None:
    """Makes sure that an external address is well-formed (nobody is asked whether it exists).

    Raises:
        LinkError: if it is not.
    """
    parts = urlsplit(address)
    if parts.scheme == "mailto":
        return
    if parts.scheme not in ("http", "https") or not re.fullmatch(r"([\w-]+\.)+[a-z]{2,}(:\d+)?", parts.netloc.lower()):
        raise LinkError(f"{address} is no address of a page")
