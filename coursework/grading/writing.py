"""Written derivations: what of a notebook may be an answer, found by its cell's mark, else by place and text."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from coursework.grading.pictures import Album

LONGEST = 20_000  # characters of a written derivation; rendering brackets takes their number squared
STUB = "*Write your answer here.*"


class Part(NamedTuple):
    """A cell as far as written answers go.

    `kind` is "markdown", "code" or "raw"; `name` nbgrader's name of the cell; `lesson` says that it is the lesson's own
    or an exercise's; `edited` that it calls itself the lesson's and is not.
    """

    kind: str
    text: str
    name: str
    lesson: bool
    edited: bool = False
    attachments: object = None


@dataclass(frozen=True)
class Written:
    """An answer: Markdown that is not yet made harmless, and the attachments that it shows."""

    text: str
    pictures: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def written(parts: Sequence[Part], prompts: Mapping[str, str]) -> tuple[dict[str, Written], list[str]]:
    """The answers to derivations, by their ids, and remarks.

    prompts: what each asks for. Where nothing is written the text is empty, or there is no answer if nothing was asked.
    """
    answers, remarks = {}, []
    for number, prompt in prompts.items():
        answer, notes = _answer(parts, Asked(number, prompt))
        remarks += [f"derivation {number}: {note}" for note in notes]
        if answer is not None:
            answers[number] = answer
    return answers, remarks


class Asked(NamedTuple):
    """A derivation: its id, and what it asks for."""

    id: str
    prompt: str

    @property
    def name(self) -> str:
        """The name of its cell for nbgrader."""
        return cell_name(self.id)


def cell_name(derivation: str) -> str:
    """The name of a derivation's cell for nbgrader: "derivation-3-3"."""
    return f"derivation-{derivation.replace('.', '-')}"


def _answer(parts: Sequence[Part], asked: Asked) -> tuple[Written | None, list[str]]:
    """The answer to one derivation, None where none was asked for or given, and remarks."""
    marked = [i for i, part in enumerate(parts) if part.name == asked.name and part.kind != "code"]
    prompt = next((i for i, part in enumerate(parts) if _is_prompt(part, asked)), None)
    near = _near(parts, prompt if prompt is not None else marked[0] if marked else None, prompt)
    answer, refused = _joined(parts, sorted({*marked, *near}), asked)
    if answer.text:
        return answer, refused + ([] if marked else ["its cell has lost its mark; what stands in its place counts"])
    others = [
        i for i, part in enumerate(parts) if part.kind != "code" and not part.lesson and i not in (*marked, prompt)
    ]
    answer, refused = _joined(parts, others, asked)
    if prompt is None and not marked:
        return (answer if answer.text else None), []
    if answer.text:
        return answer, [*refused, "its place is empty; all text of the learner's own is shown"]
    return answer, [*refused, *([] if marked else ["its cell is not in the notebook"])]


def _is_prompt(part: Part, asked: Asked) -> bool:
    if part.kind == "code":
        return False
    words = rf"Written derivation {re.escape(asked.id)}\b"
    return part.name == f"{asked.name}-prompt" or re.search(words, part.text) is not None


def _near(parts: Sequence[Part], place: int | None, prompt: int | None) -> list[int]:
    """The prompt, what follows a place up to the lesson's next cell, and the text just above it."""
    if place is None:
        return []
    found = [] if prompt is None else [prompt]
    for step in (1, -1):
        number = place + step
        while 0 <= number < len(parts) and not (parts[number].lesson or parts[number].edited):
            if step == -1 and parts[number].kind == "code":
                break
            found.append(number)
            number += step
    return found


def _joined(parts: Sequence[Part], chosen: Sequence[int], asked: Asked) -> tuple[Written, list[str]]:
    """One text of several cells, with their pictures, and what of these is refused."""
    album = Album()
    texts = [_text(parts[number], asked, album) for number in chosen]
    text = "\n\n".join(filter(None, texts))
    cut = f"\n\n(Cut off here, after {LONGEST:,} characters.)" if len(text) > LONGEST else ""
    return Written(text[:LONGEST] + cut, album.pictures), [f"{what}, so it is left out" for what in album.refused]


def _text(part: Part, asked: Asked, album: Album) -> str:
    """What a learner wrote into a cell, as Markdown."""
    if part.kind == "code":
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", part.text)), default=0))
        return f"{fence}python\n{part.text}\n{fence}" if part.text.strip() else ""
    text = part.text.replace(STUB, "")
    if _is_prompt(part, asked):
        text = _beside_prompt(text, asked)
    return album.take(text, part.attachments).strip()


def _beside_prompt(text: str, asked: Asked) -> str:
    """What was typed into the prompt's cell beside the prompt; all of it, where the prompt itself was changed."""
    words = r"\s++".join(re.escape(word) for word in asked.prompt.split())
    title = rf"(?<!\*)\**+Written derivation {re.escape(asked.id)}\**+\s*+"  # read once each, however long
    return re.sub(rf"{title}(?:\([^()]*+\))?\.?\s*+{words}", "", text)
