"""Judging an answer that came out of the sandbox, in the grader's own process, against values that never went in."""

import hashlib
import inspect
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from coursework.exercises import judging
from coursework.exercises.exercise import Exercise
from coursework.grading.sandboxed import cases
from coursework.grading.sandboxed.wire import Answer, BadAnswer, unpack

OUTCOMES = ("passed", "not attempted", "wrong")
PUBLIC = ""  # in the place of a secret: the cases that `check` tries at home


@dataclass(frozen=True)
class Mark:
    """What an exercise of one learner earned, and why.

    `flag` is what the instructor should look at, "" if nothing; `message` and `misconception` are for the learner, and
    `printed` where the exercise passed; `seconds` is how long it took.
    """

    exercise: str
    outcome: str
    message: str = ""
    misconception: str = ""
    flag: str = ""
    printed: str = ""
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The mark as plain data."""
        return asdict(self)


class Exam:
    """The cases of one exercise for one submission, with exact answers, from a seed that learners do not have.

    secret: of the grading, or PUBLIC; salt: what tells the submission from others. `recorded` are the random numbers
    that the cases take, `noise` a number that those of the answer itself may start from, and `expected` the reference's
    values for each case, by name. Where calls are counted, `recorded` are the other arguments, and `next_door` has the
    random numbers.
    """

    def __init__(self, exercise: Exercise, secret: str, salt: str = "") -> None:
        self.exercise = exercise
        digest = hashlib.sha256(f"{secret}/{exercise.id}/{salt}".encode(errors="surrogateescape")).digest()
        self.seed, self.noise = (int.from_bytes(part, "big") for part in (digest[:6], digest[6:12]))
        if secret == PUBLIC:
            self.seed = exercise.seed
        self.seeds = judging.seeds(self.seed)
        drawn = [cases.record(exercise.draw, seed) for seed in self.seeds]
        self.recorded = [numbers for _, numbers in drawn]
        self.next_door: dict[str, Any] = {}
        if exercise.counts:
            parameters = list(inspect.signature(drawn[0][0][0]).parameters)
            self.next_door = {"exercise": exercise.id, "parameters": parameters, "cases": self.recorded}
            self.recorded = [cases.plain(case[1:]) for case, _ in drawn]
        self.arguments = [judging.leaves(case) for case, _ in drawn]
        self.expected = [judging.observe_right(exercise, case) for case, _ in drawn]

    def judge(self, data: bytes, ended: str, seconds_allowed: float, calls: Sequence[int] = ()) -> Mark:
        """The mark for an answer's bytes and how the process that gave them ended ("exit", "time", "memory", ...).

        calls: the number of the case of each call that was counted.
        """
        try:
            names = zip(self.expected, self.arguments, strict=True)
            answer = unpack(data, [[*values, *arguments] for values, arguments in names])
        except BadAnswer as error:
            return self._without_answer(ended, str(error), seconds_allowed)
        if answer.state == "not attempted":
            return Mark(self.exercise.id, "not attempted", printed=answer.printed)
        if answer.state == "refused":
            return self._refused(answer)
        if answer.state == "no function":
            return Mark(self.exercise.id, "wrong", "the exercise's name stands for no function", printed=answer.printed)
        if self.exercise.counts:
            for number, case in enumerate(answer.cases):
                case[self.exercise.counts] = torch.tensor(calls.count(number))
        return self._compared(answer)

    def _refused(self, answer: Answer) -> Mark:
        """The mark of an answer that called what it may not; the name comes from a process that nobody trusts."""
        name = next(filter(DOTTED.fullmatch, answer.touched), "coursework.exercises.")
        message, flag = REFERENCE, "calls the reference"
        if not name.startswith("coursework.exercises."):
            message = f"this calls {name}; the exercise asks for code of your own, so it counts as not attempted"
            flag = f"calls {name}"
        return Mark(self.exercise.id, "not attempted", message, flag=flag, printed=answer.printed)

    def _without_answer(self, ended: str, why: str, seconds_allowed: float) -> Mark:
        flag = ""
        if ended == "time":
            message = f"stopped after {seconds_allowed:.0f} s. Is there a loop that never ends?"
        elif ended == "memory":
            message = "stopped: it uses too much memory"
        else:
            message, flag = f"no answer came back ({ended}; {why})", "no answer came back"
        return Mark(self.exercise.id, "wrong", message, flag=flag)

    def _compared(self, answer: Answer) -> Mark:
        printed = "\n".join(filter(None, (answer.printed, *answer.remarks)))
        error = answer.error or ("" if answer.state == "done" else "it ended without a result")
        if error.startswith("the cell"):
            return Mark(self.exercise.id, "wrong", error, printed=printed)
        pairs = zip(answer.cases, self.arguments, strict=False)
        in_place = [judging.changed(got, drawn) for got, drawn in pairs]
        message, named = judging.compare(self.exercise, self.seeds, answer.cases, self.expected, in_place, error)
        return Mark(self.exercise.id, "wrong" if message else "passed", message, named, printed=printed)


REFERENCE = "this calls the course's own solution, so it counts as not attempted"
DOTTED = re.compile(r"coursework(\.[\w<>]{1,60}){1,8}")
