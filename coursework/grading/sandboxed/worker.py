"""The sandboxed side: a fork server that has torch ready, and the process that asks a function for its answers.

The grader starts `serve` in a clean interpreter with an empty environment. For each exercise the server forks a
watcher, and that one the process in which the learner's code runs: nothing done for one exercise reaches another.
"""

import fcntl
import importlib
import json
import os
import pkgutil
import select
import shutil
import signal
import socket
import struct
import sys
import time
import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import coursework
from coursework.grading.sandboxed import sandbox
from coursework.grading.sandboxed.counting import Counter, NextDoor

LENGTH = struct.Struct("<I")
ANSWER, NEXT_DOOR = 3, 4  # the file descriptors on which an answer leaves, and on which the process next door is asked


def serve(control: int, readable: list[str], hidden: list[str], root: str) -> None:
    """Answer the grader's requests until it closes the connection.

    control: the descriptor of a socket to the grader; readable, hidden, root: see `sandbox.View`. What is in the folder
    around the root is removed at the end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt from the terminal is the grader's to deal with
    connection = socket.socket(fileno=control)
    connection.set_inheritable(False)
    try:
        prepare()
        view = sandbox.View(root, (*readable, *sandbox.libraries()), tuple(hidden))
        reply(connection, {"missing": _protections(view)})
        serve_requests(connection, view)
    except (BrokenPipeError, ConnectionResetError):
        pass
    finally:
        shutil.rmtree(os.path.dirname(root), ignore_errors=True)  # the grader may have been killed
    os._exit(0)  # at once: tidying torch up takes seconds


def serve_requests(connection: socket.socket, view: sandbox.View) -> None:
    """Answer one request after another."""
    while (received := receive(connection)) is not None:
        limits, files = received
        watcher = os.fork()
        if watcher == 0:
            _leave(partial(watch, connection, limits, files, view))
        for file in files:
            os.close(file)
        _, status = os.waitpid(watcher, 0)
        if status:
            reply(connection, {"ended": "lost", "cpu": 0.0, "seconds": 0.0})


def prepare() -> None:
    """Import what every exercise needs, once."""
    import psutil  # noqa: F401
    import safetensors.torch  # noqa: F401
    import torch
    import torch._dynamo  # torch.func.jacrev imports it at its first use, which takes a second
    from IPython.core import inputtransformer2  # noqa: F401

    from coursework import exercises
    from coursework.exercises.exercise import lesson_exercises
    from coursework.grading.sandboxed import withheld

    torch.set_num_threads(1)
    with warnings.catch_warnings(action="ignore"):  # torch's own, at the first use of forward mode
        torch.func.jvp(torch.sin, (torch.ones(1),), (torch.ones(1),))
    exercises.check = lambda exercise_id, attempt: attempt
    exercises.hint = lambda exercise_id: None
    for lesson in range(100):
        lesson_exercises(lesson)
    for module in pkgutil.walk_packages(coursework.__path__, "coursework."):  # learners' code cannot see their files
        importlib.import_module(module.name)
    withheld.take_stock()


def receive(connection: socket.socket) -> tuple[sandbox.Limits, list[int]] | None:
    """The next exercise's limits, and files: a pipe for the answer, the request, and what is for the process next door.

    None when the grader has gone. A request is read by the process that it is for alone: the next one is forked from
    this one's memory.
    """
    head, files, _, _ = socket.recv_fds(connection, LENGTH.size, 3)
    if not head:
        return None
    (length,) = LENGTH.unpack(head)
    data = b""
    while len(data) < length:
        part = connection.recv(min(1 << 20, length - len(data)))
        if not part:
            return None
        data += part
    return sandbox.Limits(**json.loads(data)), files


def reply(connection: socket.socket, message: dict[str, Any]) -> None:
    """Send the grader a message."""
    data = json.dumps(message).encode()
    connection.sendall(LENGTH.pack(len(data)) + data)


def _leave(work: Any) -> None:
    """Do something in a forked process, and end that process whatever happens."""
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


def _protections(view: sandbox.View) -> list[str]:
    """What this system does not allow to protect, found by trying it in a process of its own."""
    reader, writer = os.pipe()
    trial = os.fork()
    if trial == 0:
        os.close(reader)
        _leave(lambda: _try_protections(writer, view))
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        found = answer.read()
    os.waitpid(trial, 0)
    return json.loads(found) if found else ["the sandbox could not be tried out"]


def _try_protections(writer: int, view: sandbox.View) -> None:
    missing = sandbox.new_process_space()
    child = os.fork()
    if child == 0:
        found = ([missing] if missing else []) + sandbox.separate(view, sandbox.stranger(view.root))
        _leave(lambda: os.write(writer, json.dumps(found).encode()))
    os.waitpid(child, 0)


def watch(connection: socket.socket, limits: sandbox.Limits, files: list[int], view: sandbox.View) -> None:
    """Run one exercise in a child, see that it keeps to its limits, and report how it ended."""
    started = time.monotonic()
    sandbox.adopt_orphans()
    user = sandbox.stranger(view.root)
    counter = Counter(files.pop()) if len(files) > 2 else None
    files += [counter.line.fileno()] if counter else []
    sandbox.new_process_space()
    child = os.fork()
    if child == 0:
        connection.detach()
        _leave(lambda: confined(files, limits, view, user))
    for file in files[:2]:
        os.close(file)
    if counter:
        counter.hang_up()

    def abandoned() -> bool:
        ready, _, _ = select.select([connection], [], [], 0)
        return bool(ready) and connection.recv(1, socket.MSG_PEEK) == b""

    ended, cpu = sandbox.watch(child, limits, abandoned)
    _empty(view.root)
    calls = counter.calls() if counter else []
    reply(connection, {"ended": ended, "cpu": cpu, "seconds": time.monotonic() - started, "calls": calls})


def _empty(folder: str) -> None:
    """Remove what was left in a folder (nothing, where files were hidden)."""
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            os.unlink(entry.path)


def confined(files: list[int], limits: sandbox.Limits, view: sandbox.View, user: int) -> None:
    """What the learner's process does: shut itself in, answer, end."""
    os.setsid()
    source = files.pop(1)
    request = json.loads(os.pread(source, os.fstat(source).st_size, 0))
    most = sandbox.bounds(limits)
    _only_descriptors(files)
    sandbox.first_to_go()
    os.chdir(view.root)
    sandbox.separate(view, user)
    os.environ.clear()
    os.environ.update(dict.fromkeys(("HOME", "TMPDIR", "MPLCONFIGDIR"), os.getcwd()) | {"MPLBACKEND": "agg"})
    sandbox.limit(most)
    message = answer(request)
    while message:
        message = message[os.write(ANSWER, message) :]


def _only_descriptors(files: list[int]) -> None:
    """Close every file but the answer's and the line next door, if any; what is printed past Python goes nowhere."""
    kept = [fcntl.fcntl(file, fcntl.F_DUPFD, ANSWER + len(files)) for file in files]
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    for number, file in enumerate(kept):
        os.dup2(file, ANSWER + number)
    os.closerange(ANSWER + len(files), 65_536)


def answer(request: Mapping[str, Any]) -> bytes:
    """The packed answer to a request: the learner's function is defined, and observed on the cases that came with it.

    With their values go those of the arguments, as they are after the call.
    """
    import torch

    from coursework.exercises import attempt
    from coursework.exercises.exercise import find
    from coursework.exercises.judging import leaves
    from coursework.grading.sandboxed import cases, cells, wire, withheld

    exercise = find(request["exercise"])
    if exercise.counts:
        line = socket.socket(fileno=NEXT_DOOR)
        doors = [NextDoor(line, number, request["parameters"]) for number in range(len(request["cases"]))]
        drawn = [(door, *cases.unplain(text)) for door, text in zip(doors, request["cases"], strict=True)]
    else:
        drawn = [cases.play(exercise.draw, recorded) for recorded in request["cases"]]
    if request["reference"]:
        _allow(exercise, **request["reference"])
    else:
        withheld.withhold(exercise, drawn)
    done: list[Mapping[str, Any]] = []
    remarks: list[str] = []

    def work() -> str:
        wanted = cells.Wanted(**request["wanted"])
        function, passed_over = cells.define(request["cells"], wanted, request["given"], request["cpu"])
        remarks.extend(passed_over)
        withheld.touched.clear()  # by statements that nothing needs
        if not callable(function):
            return "no function"
        for number, arguments in enumerate(drawn):
            torch.manual_seed(request["noise"] + number)
            before, values = leaves(arguments), exercise.observe(function, arguments)
            after = leaves(arguments)
            done.append({**values, **{name: after.get(name) for name in before}})
        return "done"

    got = attempt.run(work, request["wall"])
    state, error = _how_it_went(got)
    texts = {
        "error": error[:2000],
        "printed": got.printed[:2500],
        "remarks": [text[:300] for text in (*remarks, *(f"Python warned: {w}" for w in got.warned))][:5],
    }
    return wire.pack(state, done if state in ("done", "error") else [], touched=withheld.touched[:5], **texts)


def _how_it_went(got: Any) -> tuple[str, str]:
    """The state that the answer reports, and the sentence of the error that ended an attempt ("" where none is)."""
    from coursework.exercises.exercise import NotAttempted
    from coursework.exercises.judging import error_text
    from coursework.grading.sandboxed import cells, withheld

    if isinstance(got.error, cells.CellError):  # whatever the cells that it did not need called
        return "error", str(got.error)
    if withheld.touched or isinstance(got.error, withheld.Refused):
        return "refused", ""
    if isinstance(got.error, NotAttempted):
        return "not attempted", ""
    if got.error is None:
        return got.value or "error", ""
    return "error", error_text(got.error)


def _allow(exercise: Any, module: str, name: str, source: str) -> None:
    """Put an exercise's reference back, where the instructor allows to call it."""
    from coursework.grading.sandboxed import cells

    function = cells.from_source(name, source)
    setattr(sys.modules[module], name, function)
    vars(exercise)["reference"] = function


def main() -> None:
    """Entry point: the arguments are those of `serve`, as JSON."""
    serve(**json.loads(sys.argv[1]))
