"""Pictures in a written answer: PNG and JPEG, as attachments of its cell. All others are left out."""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote

LARGEST = 5 << 20  # bytes of a picture
MOST = 10  # pictures in an answer
KINDS = {b"\x89PNG\r\n\x1a\n": ("image/png", "png"), b"\xff\xd8\xff": ("image/jpeg", "jpg")}
TAG = re.compile(r"<img\b[^>]*+(?:>|\Z)", re.IGNORECASE)  # to the end where it is not closed: read once
SOURCE = re.compile(r"\bsrc\s*+=\s*+[\"']?((?:attachment|data):[^\"'\s>]++)", re.IGNORECASE)
INLINE = re.compile(r"data:image/[\w.+-]+;base64,([A-Za-z0-9+/=\s]+?)(?=[\s\"')>]|$)")


class Album:
    """The pictures of one answer, under names of their own, each as nbformat's {type: base64}."""

    def __init__(self) -> None:
        self.pictures: dict[str, dict[str, str]] = {}
        self.refused: list[str] = []

    def take(self, text: str, attachments: object) -> str:
        """The text of a cell with the pictures that it has, in their places or at its end; what is refused is named."""
        text = TAG.sub(_as_markdown, text)
        text = INLINE.sub(lambda found: self._put("a picture in the text", found[1]) or "attachment:", text)
        for name, data in _attached(attachments):
            put = self._put(name, data)
            places = {f"attachment:{one}" for one in (name, quote(name), quote(name, safe=""))}
            for place in sorted(places, key=len, reverse=True) if put else ():
                if place in text:
                    text = text.replace(place, put)
            if put and put not in text:
                text += f"\n\n![]({put})"
        known = "|".join(map(re.escape, self.pictures)) or r"(?!)"
        return re.sub(rf"attachment:(?!(?:{known})\b)", "(a picture that was left out) ", text)

    def _put(self, name: str, data: str) -> str:
        """Where a picture is from now on; "" where it is refused."""
        try:
            content = base64.b64decode("".join(data.split()), validate=True)
        except (binascii.Error, ValueError):
            content = b""
        kind = next((kind for magic, kind in KINDS.items() if content.startswith(magic)), None)
        if kind is None:
            self.refused.append(f"{name[:80]} is neither PNG nor JPEG")
        elif len(content) > LARGEST:
            self.refused.append(f"{name[:80]} is larger than {LARGEST >> 20} MB")
        elif len(self.pictures) == MOST:
            self.refused.append(f"{name[:80]} is one more than {MOST} pictures")
        else:
            own = f"picture-{len(self.pictures) + 1}.{kind[1]}"
            self.pictures[own] = {kind[0]: base64.b64encode(content).decode()}
            return f"attachment:{own}"
        return ""


def _as_markdown(tag: re.Match[str]) -> str:
    """A picture's HTML as Markdown; unchanged where it is not closed or shows what lies elsewhere."""
    source = SOURCE.search(tag[0]) if tag[0].endswith(">") else None
    return f"![]({source[1]})" if source else tag[0]


def _attached(attachments: object) -> Iterator[tuple[str, str]]:
    """The attachments of a cell that somebody wrote: name and base64 text."""
    for name, bundle in attachments.items() if isinstance(attachments, Mapping) else ():
        for data in list(bundle.values())[:1] if isinstance(bundle, Mapping) else ():
            text = "".join(map(str, data)) if isinstance(data, list) else data
            yield str(name), text if isinstance(text, str) else ""
