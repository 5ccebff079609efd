"""Texts on one line."""


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or its type's name."""
    return begin(str(error)) or type(error).__name__


def begin(text: str, most: int = 300) -> str:
    """Returns a text's first line, or the beginning of a long one."""
    line = text.strip().partition("\n")[0].rstrip()
    return line if len(line) <= most else f"{line[:most]}..."
