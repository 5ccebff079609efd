"""Texts on one line: of errors, and of strangers, in which nothing is obeyed."""


def shown(text: str, keep: str = "") -> str:
    """A text on one line in which nothing is obeyed.

    Control characters, halves of characters and marks that turn the direction of writing are written out, such as
    \\x1b or \\u202e, except those in `keep`.
    """
    return "".join(c if c.isprintable() or c in keep else escaped(c) for c in text)


def escaped(character: str) -> str:
    """Returns a character written out, as Python writes it in a string."""
    if "\udc80" <= character <= "\udcff":  # a byte that is no UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or its type's name."""
    return begin(str(error)) or type(error).__name__


def begin(text: str, most: int = 300) -> str:
    """Returns a text's first line, or the beginning of a long one."""
    line = text.strip().partition("\n")[0].rstrip()
    return line if len(line) <= most else f"{line[:most]}..."
