"""Recorded mistakes: edits of the right answer, with the sentence that names each, read from a lesson's mistakes.md.

CONTRIBUTING.md shows the form of that file.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, takewhile
from pathlib import Path
from types import ModuleType
from typing import Any

Edit = tuple[str, str]  # what stands in the right answer, in one place, and what stands there instead
Span = tuple[int, int, str]  # the same by position: from, to, and the new text

EDIT = r"`([^`]+)` → (?:`([^`]*)`|nothing)"
EDITS = re.compile(rf"{EDIT}(?:, {EDIT})*(?=: )")
FENCE = re.compile(r"^ *```python\n(.*?)^ *```\n?", re.MULTILINE | re.DOTALL)
ITEM = re.compile(r"^(?:-|\d+\.) ", re.MULTILINE)


# -- the right answer as text ------------------------------------------------------------------------------------------


class Answer:
    """An exercise's right answer as text: its function, below the helpers that it uses, without docstrings and types.

    `imports` are those of the module of answers.
    """

    def __init__(self, module: ModuleType, name: str) -> None:
        self.name = name
        self._space = vars(module)
        source = inspect.getsource(module)
        body = ast.parse(source).body
        needed = _needed(body, name)
        (own,) = (node for node in needed if isinstance(node, ast.FunctionDef) and node.name == name)
        self.imports = "\n".join(ast.unparse(node) for node in body if isinstance(node, ast.Import | ast.ImportFrom))
        self.helpers = "".join(f"{_plain(node, source)}\n\n\n" for node in needed if node is not own)
        self.text = f"{self.helpers}{_plain(own, source)}\n"

    def function(self, text: str) -> Callable[..., Any]:
        """The function that such a text defines. Raises SyntaxError."""
        space = dict(self._space)
        exec(compile(text, f"<{self.name}>", "exec", dont_inherit=True), space)
        return space[self.name]

    def spans(self, edits: Iterable[Edit]) -> list[Span]:
        """Where edits change the bodies of the functions, without what an old and its new text share at both ends.

        Raises ValueError for an edit that does not fit exactly one place.
        """
        found = []
        bodies = re.sub(r"^def .*", lambda line: " " * len(line[0]), self.text, flags=re.MULTILINE)
        for old, new in edits:
            if bodies.count(old) != 1:
                raise ValueError(f"{self.name}: `{old}` stands in {bodies.count(old)} places, not in one")
            start, end = bodies.index(old), bodies.index(old) + len(old)
            head = _shared(old, new)
            tail = _shared(old[head:][::-1], new[head:][::-1])
            found.append((start + head, end - tail, new[head : len(new) - tail]))
        return found

    def with_spans(self, spans: Iterable[Span]) -> str:
        """The text with other text in these places."""
        text = self.text
        for start, end, new in sorted(spans, reverse=True):
            text = text[:start] + new + text[end:]
        return text


def _shared(a: str, b: str) -> int:
    """How many characters two texts share at the beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


def _needed(body: Sequence[ast.stmt], name: str) -> list[ast.stmt]:
    """The definitions of a module that a name stands for or uses, and theirs in turn, in order."""
    wanted, waiting = set[ast.stmt](), [name]
    while waiting:
        one = waiting.pop()
        for node in body:
            if one in _binds(node) and node not in wanted:
                wanted.add(node)
                waiting += [part.id for part in ast.walk(node) if isinstance(part, ast.Name)]
    return [node for node in body if node in wanted]


def _binds(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    return [target.id for target in getattr(node, "targets", ()) if isinstance(target, ast.Name)]


def _plain(node: ast.stmt, source: str) -> str:
    """A definition's text; a function's without its docstring and types."""
    if not isinstance(node, ast.FunctionDef):
        return ast.get_source_segment(source, node) or ""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    lines = source.splitlines()[body[0].lineno - 1 : node.end_lineno]
    arguments = node.args
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg):
        if argument:
            argument.annotation = None
    return "\n".join([f"def {node.name}({ast.unparse(arguments)}):", *lines])


# -- mistakes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mistake:
    """A known mistake: the sentence that names it, and edits of the right answer or another algorithm in its place."""

    name: str
    answer: Answer
    edits: tuple[Edit, ...] = ()
    algorithm: str = ""

    @cached_property
    def spans(self) -> list[Span]:
        """Where it changes the right answer. Raises ValueError for edits that do not fit."""
        return self.answer.spans(self.edits)

    @cached_property
    def text(self) -> str:
        """The answer with the mistake in it."""
        return self.answer.helpers + self.algorithm if self.algorithm else self.answer.with_spans(self.spans)

    @cached_property
    def wrong(self) -> Callable[..., Any]:
        """A function that makes the mistake."""
        return self.answer.function(self.text)

    def and_also(self, other: "Mistake") -> Callable[..., Any] | None:
        """A function that makes both mistakes; None where they touch the same place, or make no sense together."""
        spans = sorted([*self.spans, *other.spans])
        if not (self.edits and other.edits) or any(_touch(a, b) for a, b in pairwise(spans)):
            return None
        try:
            return self.answer.function(self.answer.with_spans(spans))
        except SyntaxError:
            return None


def _touch(a: Span, b: Span) -> bool:
    """Whether two places overlap, or something is inserted where the other one begins or ends."""
    return b[0] < a[1] or (b[0] == a[1] and (a[0] == a[1] or b[0] == b[1]))


# -- the file ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Derivation:
    """A written derivation that a person grades: what to write, and what each share of the points is for.

    It goes with the exercise of the same id. The shares add up to 1.
    """

    id: str
    prompt: str
    rubric: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Record:
    """What is written of an exercise."""

    title: str
    mistakes: tuple[Any, ...] = ()
    hints: tuple[str, ...] = ()
    derivation: Derivation | None = None


def read(path: Path, answers: Mapping[str, Answer]) -> dict[str, Record]:
    """The records in a mistakes.md, by exercise; answers: the right answers that its edits are made in."""
    records = {}
    for section in re.split(r"^## ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        head, _, body = section.partition("\n")
        exercise, _, title = head.partition(" ")
        mistakes, *others = re.split(r"^### ", body, flags=re.MULTILINE)
        parts = {name: text for name, _, text in (other.partition("\n") for other in others)}
        records[exercise] = Record(
            title,
            tuple(_mistake(item, answers[exercise]) for item in _items(mistakes)),
            tuple(_line(item) for item in _items(parts.get("Hints", ""))),
            _derivation(exercise, parts["Derivation"]) if "Derivation" in parts else None,
        )
    return records


def _mistake(item: str, answer: Answer) -> Mistake:
    line, fence = _line(FENCE.sub("", item)), FENCE.search(item)
    if fence:
        return Mistake(line, answer, algorithm=textwrap.dedent(fence[1]))
    found = EDITS.match(line)
    if found is None:
        raise ValueError(f"{answer.name}: neither `old` → `new`: nor a function: {line}")
    edits = tuple((old, new) for old, new in re.findall(EDIT, found[0]))
    return Mistake(line[found.end() + 2 :], answer, edits)


def _derivation(exercise: str, text: str) -> Derivation:
    rubric = [_line(item).partition("%: ") for item in _items(text)]
    return Derivation(
        exercise, _line(ITEM.split(text)[0]), tuple((int(share) / 100, what) for share, _, what in rubric)
    )


def _items(text: str) -> Iterator[str]:
    """The items of a list."""
    yield from ITEM.split(text)[1:]


def _line(text: str) -> str:
    """Text on one line."""
    return " ".join(text.split())
