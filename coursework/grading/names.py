"""Names of strangers, made harmless: in a terminal, in paths, and in pages of HTML."""

import hashlib
import re
import unicodedata

from coursework.course.lines import escaped, shown

LONGEST = 120  # bytes of a name in a path: a file system takes 255, and what is put to it needs some
MARKED = re.compile(r"-[0-9a-f]{10}\Z")  # what `distinct` ends in


def student_name(folder: str) -> str:
    """A student's login or folder, as it is shown and stored; different ones have different names.

    It can be a file's name. Spaces at its ends are written out: "    Points Possible" is a row of Canvas' own tables.
    """
    name = shown(folder.replace("\\", "\\\\")).replace("/", "\\x2f")
    if name in (".", ".."):
        return name.replace(".", "\\x2e")
    start, end = len(name) - len(name.lstrip()), len(name.rstrip())
    name = "".join(c if start <= i < end else escaped(c) for i, c in enumerate(name))
    size = len(name.encode())
    looks_shortened = size > LONGEST - 4 and MARKED.search(name)  # shortening may drop 3 bytes of a letter that is cut
    return distinct(name, name) if size > LONGEST or looks_shortened else name


def is_name(text: str) -> bool:
    """Whether a text is what `student_name` can give."""
    return text.isprintable() and "/" not in text and text.strip(" ") == text and text not in ("", ".", "..")


def safe_id(name: str) -> str:
    """The name itself where it may stand in a path, a glob pattern and HTML; else letters of it and a digest.

    Different names have different ones: so a name that ends as a digest does is none that stands for itself.
    """
    plain = "".join(c if c.isalnum() or c in " ._@-" else "_" for c in unicodedata.normalize("NFC", name))
    may_stand = plain == name and len(name.encode()) <= LONGEST and name[0].isalnum() and name[-1] not in ". "
    if may_stand and not MARKED.search(name):
        return name
    return distinct(plain.strip(" ._@-") or "student", name)


def distinct(start: str, name: str) -> str:
    """A start, cut off where it is long, and a digest of the whole name."""
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:10]
    return f"{start.encode()[: LONGEST - 11].decode(errors='ignore')}-{digest}"


def same(name: str) -> str:
    """Equal for names that differ in case, spaces or the composition of their letters only."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())
