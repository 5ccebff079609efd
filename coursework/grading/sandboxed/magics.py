"""What IPython adds to Python in a cell: magics that run their body or line in the notebook's names, or do not."""

import ast
import re
from typing import Any

RUN = ("time", "capture", "prun", "debug")  # %%timeit, %%writefile, %%bash and the like set no name of the notebook
CELL_MAGIC = re.compile(r"((?:[ \t]*\n)*)[ \t]*%%(\w+)[^\n]*")
LINE_MAGIC = re.compile(r"(^[ \t]*|=[ \t]*)%(?:time|prun)[ \t]+(?=[^-\s])", re.MULTILINE)


def plain(source: str) -> str:
    """A cell's source as Python, its lines where they were. Raises SyntaxError, ValueError."""
    lines = ""
    while found := CELL_MAGIC.match(source):
        if found[2] not in RUN:
            return ""
        lines += found[1] + "\n"
        source = source[found.end() + 1 :]
    return lines + _transformed(LINE_MAGIC.sub(r"\1", source))


def _transformed(source: str) -> str:
    from IPython.core.inputtransformer2 import TransformerManager

    try:
        ast.parse(source)
        return source
    except SyntaxError:
        return TransformerManager().transform_cell(source)


class Shell:
    """Stands for IPython's shell: every method of it does nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None

    @classmethod
    def names(cls) -> dict[str, Any]:
        """What every notebook has beside Python's own names."""
        from IPython.display import display

        shell = cls()
        return {"get_ipython": lambda: shell, "display": display, "In": [""], "Out": {}}
