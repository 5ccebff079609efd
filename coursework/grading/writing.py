"""Written derivations: what of a notebook may be an answer, found by its cell's mark, else by place and text."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from coursework.grading.derivations import Derivation, of_lesson
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


def written(parts: Sequence[Part], lesson: int) -> tuple[dict[str, Written], list[str]]:
    """The answers to a lesson's derivations by their cells' names, none where nothing is written, and remarks."""
    answers, remarks = {}, []
    for derivation in of_lesson(lesson):
        found, remark = _of(parts, derivation)
        remarks += [remark] if remark else []
        if found is None:
            continue
        answer, refused = found
        remarks += [f"derivation {derivation.id}: {text}, so it is left out" for text in refused]
        if answer.text:
            answers[derivation.grade_id] = answer
    return answers, remarks


def _of(parts: Sequence[Part], derivation: Derivation) -> tuple[tuple[Written, list[str]] | None, str]:
    marked = [i for i, part in enumerate(parts) if part.name == derivation.grade_id and part.kind != "code"]
    prompt = next((i for i, part in enumerate(parts) if _is_prompt(part, derivation)), None)
    near = _near(parts, prompt if prompt is not None else marked[0] if marked else None, prompt)
    answer = _joined(parts, sorted({*marked, *near}), derivation)
    if answer[0].text:
        lost = (
            "" if marked else f"derivation {derivation.id}: its cell has lost its mark; what stands in its place counts"
        )
        return answer, lost
    others = [i for i, part in enumerate(parts) if part.kind != "code" and not part.lesson and i not in marked]
    answer = _joined(parts, [i for i in others if i != prompt], derivation)
    if answer[0].text:
        return (
            answer,
            f"derivation {derivation.id}: its place is empty; all text of the learner's own is shown",
        )
    missing = prompt is not None and not marked
    return None, f"derivation {derivation.id}: its cell is not in the notebook" if missing else ""


def _is_prompt(part: Part, derivation: Derivation) -> bool:
    if part.kind == "code":
        return False
    return part.name == f"{derivation.grade_id}-prompt" or bool(
        re.search(rf"Written derivation {re.escape(derivation.id)}\b", part.text)
    )


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


def _joined(parts: Sequence[Part], chosen: Sequence[int], derivation: Derivation) -> tuple[Written, list[str]]:
    """One text of several cells, with their pictures; what of these is refused."""
    album = Album()
    texts = [_text(parts[number], derivation, album) for number in chosen]
    text = "\n\n".join(filter(None, texts))
    cut = f"\n\n(Cut off here, after {LONGEST:,} characters.)" if len(text) > LONGEST else ""
    return Written(text[:LONGEST] + cut, album.pictures), album.refused


def _text(part: Part, derivation: Derivation, album: Album) -> str:
    """What a learner wrote into a cell, as Markdown."""
    if part.kind == "code":
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", part.text)), default=0))
        return f"{fence}python\n{part.text}\n{fence}" if part.text.strip() else ""
    text = part.text.replace(STUB, "")
    if _is_prompt(part, derivation):
        text = _beside_prompt(text, derivation)
    return album.take(text, part.attachments).strip()


def _beside_prompt(text: str, derivation: Derivation) -> str:
    """What was typed into the prompt's cell beside the prompt; all of it, where the prompt itself was changed."""
    words = r"\s+".join(re.escape(word) for word in derivation.prompt.split())
    return re.sub(rf"\**Written derivation {re.escape(derivation.id)}\**\s*(?:\([^)]*\))?\.?\s*{words}", "", text)
