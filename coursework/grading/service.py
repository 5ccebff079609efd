"""Our side of the sandbox: it starts the fork server, hands over one exercise at a time, and takes what comes back."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from coursework.grading import stage
from coursework.grading.sandboxed.worker import LENGTH

ANSWER_MOST = 8 << 20  # bytes; what is longer is no answer to any exercise
START_SECONDS = 300.0
PREFIX = "coursework-grading-"  # of the folders of sandboxes
SETTLED = 60.0  # seconds after which a folder that nobody holds is not one that is just being made
ENDING = 30.0  # seconds that ending all processes of an exercise may take on a machine with much else to do
GRACE = 5.0  # seconds after which a server that does not report is ended
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
PROGRAM = "import sys; sys.path.insert(0, sys.argv.pop()); from coursework.grading.sandboxed.worker import main; main()"


@contextlib.contextmanager
def _file(content: Mapping[str, Any]) -> Iterator[int]:
    """A file without a name that holds this as JSON."""
    with tempfile.TemporaryFile() as file:
        file.write(json.dumps(content).encode())
        file.flush()
        yield file.fileno()


def _sweep() -> None:
    """Remove folders that gradings left behind which were killed: nobody holds them any more."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            folder = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                if os.fstat(folder).st_uid == os.getuid() and time.time() - os.fstat(folder).st_mtime > SETTLED:
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(folder)


class SandboxError(RuntimeError):
    """The sandbox cannot be started; the message says why."""


@dataclass(frozen=True)
class Reply:
    """What came of one exercise: the answer's bytes, how the process ended, CPU seconds and seconds on the clock.

    `calls` are the numbers of the cases whose counted argument was called, one for each call.
    """

    data: bytes
    ended: str
    cpu: float
    seconds: float
    calls: tuple[int, ...] = ()


class Sandbox:
    """A fork server for learners' code; a context manager that leaves no process and no file behind.

    hidden: folders that learners' code may not read, wherever they lie. `missing` lists what this system does not allow
    to protect.
    """

    def __init__(self, hidden: Sequence[str] = ()) -> None:
        if not hasattr(os, "fork"):
            raise SandboxError("grading needs Linux or macOS; on Windows use WSL, the Windows Subsystem for Linux")
        self._hidden = [*stage.hidden(), *hidden]
        self._closed = False
        self._busy = threading.Lock()
        self.missing: tuple[str, ...] = ()
        _sweep()
        self._folder, self._lock = Path(tempfile.mkdtemp(prefix=PREFIX)), -1
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def ask(self, request: Mapping[str, Any]) -> Reply:
        """Hand an exercise over (see `worker.answer`; "cpu" and "wall" are its limits) and wait for what comes of it.

        Raises SandboxError where the sandbox is closed or cannot be started again.
        """
        with self._busy:
            if self._closed:
                raise SandboxError("the sandbox is closed")
            if self._process is None or self._process.poll() is not None:
                self._stop()
                self._start()
            return self._ask(request)

    def _ask(self, request: Mapping[str, Any]) -> Reply:
        reader, writer = os.pipe()
        started = time.monotonic()
        try:
            try:
                self._send(request, writer)
            finally:
                os.close(writer)
            return self._collect(reader, started + request["wall"] + ENDING)
        except (OSError, SandboxError) as error:
            self._stop()
            return Reply(b"", f"lost ({error})", 0.0, time.monotonic() - started)
        finally:
            os.close(reader)

    def close(self) -> None:
        """End the server and everything it started, and remove its files; an `ask` in another thread ends as well."""
        self._closed = True
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        with self._busy:
            self._stop()
            self._hold(-1)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self) -> None:
        root, where = self._folder / "root", self._folder / "stage"
        shutil.rmtree(self._folder, ignore_errors=True)
        root.mkdir(mode=0o700, parents=True)
        self._hold(os.open(self._folder, os.O_RDONLY))
        stage.write_stage(where)
        for path in (self._folder, where, *where.rglob("*")):  # for the users that learners' code runs as
            path.chmod(0o755 if path.is_dir() else 0o644)
        ours, theirs = socket.socketpair()
        places = {"readable": stage.readable(), "hidden": self._hidden, "root": str(root)}
        settings = {"control": theirs.fileno(), **places}
        environment = {"LANG": "C.UTF-8", "CUDA_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(root)}
        with theirs, (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-B", "-c", PROGRAM, json.dumps(settings), str(where)],
                cwd=root,
                env=environment | dict.fromkeys(THREADS, "1"),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        self._connection = ours
        try:
            self.missing = tuple(self._message(time.monotonic() + START_SECONDS)["missing"])
        except (OSError, SandboxError):
            said = (self._folder / "log").read_text(errors="replace").strip().splitlines() or ["it said nothing"]
            self._stop()
            raise SandboxError(f"the sandbox did not start: {said[-1]}") from None
        shutil.rmtree(where)  # it is all in the server's memory

    def _hold(self, folder: int) -> None:
        """Hold the sandbox's folder for as long as this process lives, so that nobody sweeps it away; -1 lets go."""
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = folder
        if folder >= 0:
            fcntl.flock(folder, fcntl.LOCK_EX)

    def _stop(self) -> None:
        if self._connection is not None:
            self._connection.close()  # the server and the one who watches notice, and end what they started
            self._connection = None
        if self._process is not None:
            try:
                self._process.wait(GRACE)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
            self._process = None

    @property
    def _channel(self) -> socket.socket:
        """The connection to the server. Raises SandboxError where there is none."""
        if self._connection is None:
            raise SandboxError("the server ended")
        return self._connection

    def _send(self, request: Mapping[str, Any], writer: int) -> None:
        """The limits as a message, the request as a file, which only the process that it is for will read.

        What is for the process next door (`counting`) is a file of its own.
        """
        limits = json.dumps({"cpu": request["cpu"], "wall": request["wall"]}).encode()
        own = {name: value for name, value in request.items() if name != "next door"}
        with contextlib.ExitStack() as files:
            parts = [own, request["next door"]] if request.get("next door") else [own]
            descriptors = [writer, *(files.enter_context(_file(part)) for part in parts)]
            self._channel.settimeout(GRACE)
            socket.send_fds(self._channel, [LENGTH.pack(len(limits))], descriptors)
            self._channel.sendall(limits)

    def _message(self, deadline: float) -> dict[str, Any]:
        """The server's next message. Raises SandboxError when it does not come."""
        (length,) = LENGTH.unpack(self._exactly(LENGTH.size, deadline))
        return json.loads(self._exactly(length, deadline))

    def _exactly(self, n: int, deadline: float) -> bytes:
        data = b""
        while len(data) < n:
            self._channel.settimeout(max(0.01, deadline - time.monotonic()))
            part = self._channel.recv(n - len(data))
            if not part:
                raise SandboxError("the server ended")
            data += part
        return data

    def _collect(self, reader: int, deadline: float) -> Reply:
        """Read the answer while the server watches; what is too long is cut, and so no answer."""
        import selectors

        data = bytearray()
        with selectors.DefaultSelector() as ready:
            ready.register(reader, selectors.EVENT_READ)
            ready.register(self._channel, selectors.EVENT_READ)
            while True:
                found = [key.fileobj for key, _ in ready.select(max(0.01, deadline - time.monotonic()))]
                if not found:
                    raise SandboxError("the server does not answer")
                if reader in found:
                    part = os.read(reader, 1 << 16)
                    if not part or len(data) > ANSWER_MOST:
                        ready.unregister(reader)
                        continue
                    data += part
                elif self._channel in found:
                    message = self._message(deadline)
                    calls = tuple(message.get("calls", ()))
                    return Reply(bytes(data), message["ended"], message["cpu"], message["seconds"], calls)
