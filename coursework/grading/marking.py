"""Judging an answer that came out of the sandbox, in the grader's own process, against values that never went in."""

import hashlib
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from coursework.exercises import engine
from coursework.exercises.engine import Exercise
from coursework.grading import cases
from coursework.grading.wire import Answer, BadAnswer, Thing, unpack

OUTCOMES = ("passed", "not attempted", "wrong")
N_CASES = engine.N_CASES
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
        drawn = [cases.record(exercise.draw, self.seed + i) for i in range(N_CASES)]
        self.recorded = [numbers for _, numbers in drawn]
        self.next_door: dict[str, Any] = {}
        if exercise.counts:
            parameters = list(inspect.signature(drawn[0][0][0]).parameters)
            self.next_door = {"exercise": exercise.id, "parameters": parameters, "cases": self.recorded}
            self.recorded = [cases.plain(case[1:]) for case, _ in drawn]
        self.arguments = [cases.leaves(case) for case, _ in drawn]
        self.expected = [exercise.observe(exercise.reference, case) for case, _ in drawn]

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
        message = complaint(answer, self.expected, self.arguments, self.exercise.rtol)
        printed = "\n".join(filter(None, (answer.printed, *answer.remarks)))
        if answer.state == "done" and not message and not answer.error:
            return Mark(self.exercise.id, "passed", printed=printed)
        where = f"Case {len(answer.cases) + 1}: " if answer.cases or not answer.error.startswith("the cell") else ""
        message = message or where + (answer.error or "it ended without a result")
        complete = answer.state == "done" and not answer.error
        misconception = engine._misconception(self.exercise, list(answer.cases), self.seed) if complete else None
        return Mark(self.exercise.id, "wrong", message, misconception or "", printed=printed)


REFERENCE = "this calls the course's own solution, so it counts as not attempted"
DOTTED = re.compile(r"coursework(\.[\w<>]{1,60}){1,8}")


def changed(got: Mapping[str, Any], drawn: Mapping[str, Any]) -> bool:
    """Whether an argument is not what it was when it was handed over.

    Up to rounding: the sandbox drew it with another environment, which may choose other instructions of the processor.
    """
    return not all(
        isinstance(got[name], Tensor | float) and not engine._difference(got[name], _tensor(value), _slack(value))
        for name, value in drawn.items()
    )


def _tensor(value: Tensor | float) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)


def _slack(value: Tensor | float) -> float:
    """What rounding may change in a drawn argument, relative to its largest number."""
    single = isinstance(value, Tensor) and value.dtype.is_floating_point and value.dtype != torch.float64
    return 1e-5 if single else 1e-9


def complaint(
    answer: Answer, expected: Sequence[Mapping[str, Any]], arguments: Sequence[Mapping[str, Any]], rtol: float
) -> str:
    """What is wrong with the first case that is, or ""."""
    for i, (got, wanted) in enumerate(zip(answer.cases, expected, strict=False)):
        if changed(got, arguments[i]):
            return f"Case {i + 1}: {engine._IN_PLACE}"
        for name, value in wanted.items():
            if isinstance(got[name], Thing):
                difference = f"expected a torch.Tensor, got {got[name].text}"
            else:
                difference = engine._difference(got[name], value, rtol)
            if difference:
                named = "" if name == "result" else f"the {name}: "
                plain = not any(isinstance(case[name], Thing) for case in answer.cases)
                remark = engine._common_factor(list(answer.cases), list(expected), name) if plain else ""
                if not remark and name != "result" and not isinstance(got[name], Thing | float | None):
                    remark = engine._cut_off(got[name], name)
                return f"Case {i + 1}: {named}{difference}{remark}"
    return ""
