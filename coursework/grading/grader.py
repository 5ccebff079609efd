"""Grading one submission: each exercise in a process of its own, within one budget of time."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from coursework.exercises.exercise import Exercise, lesson_exercises
from coursework.grading import answers, stage
from coursework.grading.handin import HandIn, Lesson
from coursework.grading.marking import Exam, Mark
from coursework.grading.service import Reply, Sandbox

BUDGET = 15.0  # CPU seconds for all exercises of a submission
LONGEST = 8.0  # for one of them
RESERVED = 1.0  # kept for each exercise that is still to come
WALL = 30.0  # seconds on the clock for all exercises of a submission, whatever they do meanwhile
WALL_RESERVED = 3.0


@dataclass(frozen=True)
class Time:
    """CPU seconds, and seconds on the clock."""

    cpu: float = 0.0
    wall: float = 0.0

    def __sub__(self, used: "Time") -> "Time":
        return Time(self.cpu - used.cpu, self.wall - used.wall)


@dataclass(frozen=True)
class Rules:
    """A whole grading's rules: the secret that cases are drawn from, and exercises whose reference may be called.

    hidden: folders that no learner's code may read: the submissions, the records and the course, wherever they lie.
    """

    secret: str
    allowed: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()

    def fingerprint(self, lesson: Lesson) -> str:
        """Changes whenever a lesson would have to be graded again: other cases, rules, exercises, or way of judging."""
        folder, own = stage.PACKAGE / "exercises", f"lesson_{lesson.number:02d}"
        shared = (path for path in sorted(folder.glob("*.py")) if not path.stem.startswith("lesson_"))
        files = [*shared, *sorted(folder.glob(f"{own}*")), *sorted(folder.glob(f"{own}/*.*"))]
        sources = [path.read_bytes() for path in files if path.is_file()]
        here = Path(__file__).parent
        judges = [
            path.read_bytes() for path in sorted(here.rglob("*.py")) if path.parent != here or path.stem in JUDGING
        ]
        allowed = sorted(set(self.allowed) & set(lesson.functions))
        rules = repr((self.secret, allowed, sorted(lesson.functions.items()), sorted(lesson.known))).encode()
        return hashlib.sha256(b"\0".join([rules, *sources, *judges])).hexdigest()[:24]


JUDGING = ("answers", "grader", "handin", "marking", "stage", "stripping")  # beside all of `sandboxed`


class Grader:
    """Grades submissions one after another; a context manager, because it holds a sandbox.

    `missing` lists what this system does not allow to protect.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._sandbox = Sandbox(rules.hidden)
        self.missing = self._sandbox.missing

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the sandbox."""
        self._sandbox.close()

    def grade(self, handed_in: HandIn, lesson: Lesson, salt: str = "") -> tuple[list[Mark], list[str]]:
        """The marks of a submission, one for each exercise of the lesson, and remarks for the instructor.

        salt: what tells the submission from others, such as its student and its digest; each has cases of its own.
        """
        exercises = [e for e in lesson_exercises(lesson.number) if e.id in lesson.functions]
        if handed_in.problem:
            text = f"the notebook cannot be graded: {handed_in.problem}"
            return [Mark(e.id, "not attempted", text, flag="unreadable") for e in exercises], [text]
        marks: list[Mark] = []
        left, given = Time(BUDGET, WALL), list[dict[str, str]]()
        for number, exercise in enumerate(exercises):
            still_to_come = len(exercises) - number - 1
            cpu = max(RESERVED, min(LONGEST, left.cpu - RESERVED * still_to_come))
            most = Time(cpu, max(WALL_RESERVED, left.wall - WALL_RESERVED * still_to_come))
            mark, used = self._grade_exercise(exercise, lesson, handed_in, given, most, salt)
            left -= used
            marks.append(mark)
            if mark.outcome != "passed":
                name = lesson.functions[exercise.id]
                given.append({"exercise": exercise.id, "name": name, "source": stage.source_of(exercise)})
        return marks, [*handed_in.remarks, *answers.remarks(handed_in.cells, lesson)]

    def _grade_exercise(
        self,
        exercise: Exercise,
        lesson: Lesson,
        handed_in: HandIn,
        given: list[dict[str, str]],
        most: Time,
        salt: str = "",
    ) -> tuple[Mark, Time]:
        """The mark of one exercise and the time that it used: that of the first try that passes, if any.

        given: earlier exercises that did not pass, with their references, as the learner's own checks gave them. Where
        no answer comes back a learner's cells may be to blame that the answer does not need: it is tried without them.
        """
        exam, first, left = Exam(exercise, self.rules.secret, salt), None, most
        tries = [(place, True) for place in answers.places(handed_in.cells, exercise.id, lesson.functions[exercise.id])]
        while tries and (first is None or (left.cpu > RESERVED / 4 and left.wall > WALL_RESERVED / 4)):
            (place, whole), *tries = tries
            mark, used, answered = self._grade_place(place, whole, exam, lesson, handed_in, given, left)
            left -= used
            if mark.outcome == "passed":
                return mark, most - left
            first = first or mark
            if whole and not answered:
                tries.insert(0, (place, False))
        if first is None:
            return Mark(exercise.id, "not attempted", "its cell is not in the notebook", flag="cell missing"), Time()
        return first, most - left

    def _grade_place(
        self,
        place: answers.Place,
        whole: bool,
        exam: Exam,
        lesson: Lesson,
        handed_in: HandIn,
        given: list[dict[str, str]],
        most: Time,
    ) -> tuple[Mark, Time, bool]:
        """The mark of what stands in one place, the time that it used, and whether an answer came back.

        whole: run all cells of the learner's own, not only what the answer needs.
        """
        exercise, name = exam.exercise, lesson.functions[exam.exercise.id]
        request: dict[str, Any] = {
            "exercise": exercise.id,
            "cases": exam.recorded,
            "next door": exam.next_door,
            "parameters": exam.next_door.get("parameters", []),
            "noise": exam.noise,
            "cells": [{"source": cell.source, "role": cell.role} for cell in handed_in.cells],
            "wanted": {"exercise": exercise.id, "name": name, "whole": whole, **place._asdict()},
            "given": [entry for entry in given if entry["name"] != name],
            "reference": {},
            "cpu": most.cpu,
            "wall": min(most.wall, 2 * most.cpu + WALL_RESERVED),
        }
        if exercise.id in self.rules.allowed:
            request["reference"] = {
                "module": exercise.reference.__module__,
                "name": exercise.reference.__name__,
                "source": stage.source_of(exercise),
            }
        reply = self._sandbox.ask(request)
        if reply.ended.startswith("lost"):  # the sandbox itself went down: once more
            reply = self._sandbox.ask(request)
        mark = judged(exam, reply, min(most.cpu, most.wall))
        mark = replace(mark, seconds=round(reply.seconds, 3))
        return mark, Time(reply.cpu, reply.seconds), not mark.message.startswith(("no answer", "stopped: "))


def judged(exam: Exam, reply: Reply, seconds: float) -> Mark:
    """The mark of an answer. One that the judge cannot deal with is wrong, and flagged: the others are graded."""
    try:
        return exam.judge(reply.data, reply.ended, seconds, reply.calls)
    except Exception as error:
        text = f"the answer could not be judged ({type(error).__name__})"
        return Mark(exam.exercise.id, "wrong", text, flag="could not be judged")
