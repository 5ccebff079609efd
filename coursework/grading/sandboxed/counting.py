"""Calls that are counted where a learner's code does not reach.

Where an exercise counts the calls of its first argument (`Exercise.counts`), that argument is not in the learner's
process: a process next door holds it, answers each call over a socket, and counts.
"""

import inspect
import json
import os
import socket
import struct
from contextlib import suppress
from typing import Any

from coursework.exercises.attempt import plain_tensors
from coursework.grading.sandboxed import cases, wire

LENGTH = struct.Struct("<I")
MOST = 4 << 20  # bytes of a question or an answer
MOST_CALLS = 1_000  # of one answer, all cases together


class NextDoor:
    """Stands in the learner's process for a case's first argument, and is called like it."""

    def __init__(self, line: socket.socket, case: int, parameters: list[str]) -> None:
        kinds = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in parameters]
        self._line, self._case, self._signature = line, case, inspect.Signature(kinds)
        self.n_calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The argument's value. Raises ValueError with the message of what it raised, TypeError for other arguments."""
        question = self._signature.bind(*args, **kwargs).arguments
        plain_tensors(**question)
        _send(self._line, wire.pack("done", [{"case": self._case, **question}]))
        answer = wire.unpack(_receive(self._line), [["result"]])
        if not answer.cases:
            raise ValueError(answer.error)
        return answer.cases[0]["result"]


class Counter:
    """The watcher's side: it starts the process next door, which tells it of each call."""

    def __init__(self, source: int) -> None:
        ours, self.line = socket.socketpair()
        self._calls, told = os.pipe()
        self._process = os.fork()
        if self._process == 0:
            try:
                self.line.close()
                os.close(self._calls)
                answer_calls(ours, told, source)
            finally:
                os._exit(0)
        ours.close()
        os.close(told)

    def hang_up(self) -> None:
        """Leave the line to the learner's process alone."""
        self.line.close()

    def calls(self) -> list[int]:
        """The number of the case of each call, once the learner's process has ended."""
        with os.fdopen(self._calls, "rb") as told:
            numbers = list(told.read())
        with suppress(ChildProcessError):  # it may have been ended with all others
            os.waitpid(self._process, 0)
        return numbers


def answer_calls(line: socket.socket, told: int, source: int) -> None:
    """Answer calls until nobody is left to ask; for each, the number of its case goes to `told`."""
    from coursework.exercises.exercise import find

    request = json.loads(os.pread(source, os.fstat(source).st_size, 0))
    draw = find(request["exercise"]).draw
    held = [cases.play(draw, recorded)[0] for recorded in request["cases"]]
    for _ in range(MOST_CALLS):
        question = _receive(line)
        if not question:
            return
        try:
            (asked,) = wire.unpack(question, [["case", *request["parameters"]]]).cases
            number = int(asked.pop("case"))
            os.write(told, bytes([number]))
            answer = wire.pack("done", [{"result": held[number](**asked)}])
        except Exception as error:  # the learner's, who is told
            answer = wire.pack("error", [], error=str(error)[:1000])
        _send(line, answer)


def _send(line: socket.socket, data: bytes) -> None:
    line.sendall(LENGTH.pack(len(data)) + data)


def _receive(line: socket.socket) -> bytes:
    """A message; nothing where the other side has gone or sends too much."""
    head = _exactly(line, LENGTH.size)
    (length,) = LENGTH.unpack(head) if head else (0,)
    return _exactly(line, length) if length <= MOST else b""


def _exactly(line: socket.socket, n: int) -> bytes:
    data = b""
    while len(data) < n:
        part = line.recv(n - len(data))
        if not part:
            return b""
        data += part
    return data
