#!/usr/bin/env python3
"""Makes the course's own Python in .venv: `make lab` and `make test` call this, Windows users `py tools\\set_up.py`.

Needs the standard library only. It does nothing where the set-up is complete, updates it where the lock changed,
and makes it afresh where it was interrupted or moved. A stamp inside .venv, written last, says that it is complete.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST, NEWEST = (3, 11), (3, 13)
STAMP = "coursework-stamp.json"
SETTINGS = "tools/jupyter_server_config.py"
CUDA_ONLY = re.compile(r"(nvidia|cuda)-|triton$")
GIGABYTE = 1e9

NO_ROOM = (
    "the disk is full: free about {need:.0f} GB (the folder .venv, pip's cache and the temporary folder need it), "
    "then call this again"
)
NO_NETWORK = "no connection to the package index: connect (or set pip's proxy or mirror), then call this again"
NO_VENV = "this Python cannot make environments: install them (on Debian and Ubuntu: sudo apt install python3-venv)"


class Refused(Exception):
    """The set-up cannot go on; the message is one line that says what to do."""


# What is there, and what is wanted


def digest(root: Path) -> str:
    """The SHA-256 of the files that decide what is installed."""
    content = [(root / name).read_bytes() for name in ("requirements.lock", "pyproject.toml", SETTINGS)]
    return hashlib.sha256(b"\0".join(content)).hexdigest()


def python_of(venv: Path) -> Path:
    """The environment's interpreter, on this platform."""
    return venv / "Scripts" / "python.exe" if os.name == "nt" else venv / "bin" / "python"


def read_stamp(venv: Path) -> dict:
    """The stamp of a complete set-up; empty where there is none or it cannot be read."""
    try:
        stamp = json.loads((venv / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(venv: Path, stamp: dict) -> None:
    """Writes the stamp in one step: it is there complete, or not at all."""
    part = venv / (STAMP + ".part")
    part.write_text(json.dumps(stamp, indent=1), encoding="utf-8")
    os.replace(part, venv / STAMP)


def python_starts(venv: Path) -> bool:
    """Whether the environment's interpreter still runs (its base may have been removed)."""
    try:
        return subprocess.run([str(python_of(venv)), "-S", "-c", ""], capture_output=True).returncode == 0
    except OSError:
        return False


def make_stamp(root: Path, venv: Path, torch_index: str) -> dict:
    """The stamp that a complete set-up of this tree by this Python leaves."""
    facts = {"digest": digest(root), "python": list(sys.version_info[:2]), "place": str(venv.resolve())}
    return {**facts, "torch_index": torch_index, "complete": True}


def state(stamp: dict, wanted: dict, starts: bool, this_python: bool = False) -> str:
    """Says what is left to do: "ready", "update" (the lock changed) or "rebuild".

    stamp: what was found; wanted: what it would be; starts: whether .venv's interpreter runs; this_python: whether
    the Python version was asked for (otherwise whatever the environment was made with is kept).
    """
    if not stamp.get("complete") or not starts or stamp.get("place") != wanted["place"]:
        return "rebuild"
    if this_python and stamp.get("python") != wanted["python"]:
        return "rebuild"
    if wanted["torch_index"] and stamp.get("torch_index") != wanted["torch_index"]:
        return "rebuild"
    return "ready" if stamp.get("digest") == wanted["digest"] else "update"


def python_refusal(version: tuple[int, ...]) -> str | None:
    """One line where this Python is too old or too new for the course, else None."""
    if OLDEST <= tuple(version[:2]) <= NEWEST:
        return None
    found = ".".join(map(str, version[:3]))
    allowed = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
    return f"needs Python {allowed}, this is {found}; name another one, for example: make lab PYTHON=python3.12"


def room_needed(torch_index: str, platform: str = sys.platform) -> float:
    """Free gigabytes to ask for: PyTorch for Linux brings the CUDA libraries unless an index for the CPU is given."""
    return 10.0 if platform.startswith("linux") and not torch_index else 3.0


# What to install


def requirement_lines(lock: str) -> list[str]:
    """The lock's lines that pin a package."""
    return [line for line in lock.splitlines() if re.match(r"[A-Za-z0-9]", line)]


def name_of(line: str) -> str:
    """The name of the package that a line of the lock pins, normalised."""
    return re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9._-]*", line).group()).lower()


def torch_pins(lock: str) -> list[str]:
    """The lock's lines for torch and torchvision."""
    return [line for line in requirement_lines(lock) if name_of(line) in ("torch", "torchvision")]


def without_torch(lock: str) -> list[str]:
    """The lock's lines but torch, torchvision and what only their CUDA builds need."""
    names = [(line, name_of(line)) for line in requirement_lines(lock)]
    return [line for line, name in names if name not in ("torch", "torchvision") and not CUDA_ONLY.match(name)]


def pip_calls(root: Path, venv: Path, torch_index: str) -> list[list[str]]:
    """The arguments of the calls of pip that install the lock and the package, in order.

    The lock is complete, so nothing is resolved again (--no-deps).
    """
    install = ["install", "--no-deps"]
    package = [*install, "--no-build-isolation", "-e", str(root)]
    lock = root / "requirements.lock"
    if not torch_index:
        return [[*install, "-r", str(lock)], package]
    text = lock.read_text(encoding="utf-8")
    rest = venv / "requirements-without-torch.txt"
    rest.write_text("\n".join(without_torch(text)) + "\n", encoding="utf-8")
    return [[*install, "--index-url", torch_index, *torch_pins(text)], [*install, "-r", str(rest)], package]


def explain(log: str, need: float) -> str:
    """One line that says why pip failed and what to do, from what it printed."""
    if re.search(r"No space left|Errno 28|not enough space|Disk quota exceeded", log):
        return NO_ROOM.format(need=need)
    network = r"NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|Read timed out|ProxyError|getaddrinfo"
    if re.search(network + r"|Connection (broken|refused|reset|aborted)|Network is unreachable|IncompleteRead", log):
        return NO_NETWORK
    missing = re.search(r"No matching distribution found for (\S+)", log)
    if missing:
        return f"the package index has no build of {missing.group(1)} for this system and Python {sys.version[:4]}"
    errors = [line for line in log.splitlines() if line.startswith("ERROR")] or log.splitlines()[-1:]
    return "pip failed: " + (errors[-1] if errors else "it printed nothing")


# Doing it


def say(text: str) -> None:
    """Prints one line at once."""
    print(f"set-up: {text}", flush=True)


def show_progress(line: str, done: int, total: int) -> None:
    """Shows how far pip is: one line that is written over in a terminal, every 25th package elsewhere."""
    if sys.stdout.isatty():
        text = f"set-up: {done} of {total} packages fetched: {line.split()[1][:40]}"
        print("\r" + text.ljust(79)[:79], end="", flush=True)
    elif done % 25 == 0:
        say(f"{done} of {total} packages fetched")


def follow(lines, total: int) -> list[str]:
    """Shows the progress that pip's output tells of; returns the output."""
    log, done = [], 0
    for line in lines:
        log.append(line)
        if line.startswith("Ignoring "):
            total -= 1
        elif line.startswith(("Collecting ", "Processing ")):
            done += 1
            show_progress(line, done, total)
        elif line.startswith("Installing collected packages") and done > 25:
            print(end="\n" if sys.stdout.isatty() else "")
            say(f"unpacking {done} packages, which takes some minutes")
    return log


def run_pip(python: Path, arguments: list[str], root: Path, total: int, need: float) -> None:
    """Runs pip in the environment.

    Raises Refused with one line that says what to do where pip fails; its output is then in build/set_up.log.
    """
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    # The child keeps the lock file open (close_fds=False): if this process is killed, the next set-up waits for pip.
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    with subprocess.Popen(command, cwd=str(root), close_fds=False, **streams) as pip:
        try:
            log = "".join(follow(pip.stdout, total))
        except BaseException:
            pip.terminate()
            raise
    if pip.returncode:
        with contextlib.suppress(OSError):
            (root / "build" / "set_up.log").write_text(log, encoding="utf-8")
        raise Refused(explain(log, need) + " (pip's output: build/set_up.log)")


def base_python() -> str:
    """The interpreter behind this one: an environment must not be made by the Python inside it."""
    return getattr(sys, "_base_executable", None) or sys.executable


def make_venv(venv: Path) -> None:
    """Makes the environment afresh.

    Raises Refused where Python cannot make one.
    """
    if importlib.util.find_spec("ensurepip") is None:
        raise Refused(NO_VENV)
    command = [base_python(), "-m", "venv", "--clear", str(venv)]
    made = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if made.returncode:
        raise Refused(f"{explain(made.stdout, 1)} (while making {venv})")


def check_room(root: Path, need: float) -> None:
    """Raises Refused where the disk has not the room that the set-up needs."""
    free = shutil.disk_usage(str(root)).free / GIGABYTE
    if free < need:
        raise Refused(f"{NO_ROOM.format(need=need)}; {free:.1f} GB are free")


def build(root: Path, venv: Path, wanted: dict, afresh: bool, need: float) -> None:
    """Installs everything, then writes the stamp: until then the environment counts as unfinished."""
    if afresh:
        make_venv(venv)
    write_stamp(venv, {**wanted, "complete": False})
    if afresh:
        check_room(root, need)
    total = len(requirement_lines((root / "requirements.lock").read_text(encoding="utf-8")))
    for arguments in pip_calls(root, venv, wanted["torch_index"]):
        run_pip(python_of(venv), arguments, root, total, need)
    give_settings(root, venv)
    write_stamp(venv, wanted)


def give_settings(root: Path, environment: Path) -> None:
    """Gives an environment's JupyterLab the course's settings (what they are for is said in that file).

    Raises Refused where the environment has settings of its own, which are left alone.
    """
    theirs, ours = environment / "etc" / "jupyter" / Path(SETTINGS).name, (root / SETTINGS).read_bytes()
    if theirs.exists() and theirs.read_bytes().splitlines()[:1] != ours.splitlines()[:1]:
        raise Refused(f"{theirs} is not the course's: add to it what {SETTINGS} holds")
    theirs.parent.mkdir(parents=True, exist_ok=True)
    theirs.write_bytes(ours)


def grab(handle) -> bool:
    """Tries to lock an open file for this process and the children that inherit it."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK)  # a file system without locks: go on
    return True


@contextlib.contextmanager
def one_at_a_time(root: Path):
    """Waits until no other set-up of this tree is running. The system frees the lock of a process that dies."""
    (root / "build").mkdir(exist_ok=True)
    with open(root / "build" / "set_up.lock", "a") as handle:
        os.set_inheritable(handle.fileno(), True)
        if not grab(handle):
            say("another set-up is running here: waiting for it")
            while not grab(handle):
                time.sleep(0.2)
        yield


def look(root: Path, venv: Path, options: argparse.Namespace) -> tuple[str, dict]:
    """What is left to do, and the stamp that says it is done. What was not asked for stays as it was."""
    stamp = {} if options.fresh else read_stamp(venv)
    wanted = make_stamp(root, venv, options.torch_index or stamp.get("torch_index", ""))
    left = state(stamp, wanted, bool(stamp) and python_starts(venv), options.this_python)
    return left, wanted if left == "rebuild" else {**wanted, "python": stamp["python"]}


def set_up(root: Path, options: argparse.Namespace) -> bool:
    """Brings .venv to the state that the tree asks for; returns whether anything was to do.

    Raises Refused with one line that says what to do, and leaves what the next call repairs.
    """
    if options.settings:
        give_settings(root, Path(sys.prefix))
        return True
    venv = root / ".venv"
    if look(root, venv, options)[0] == "ready":
        return False
    with one_at_a_time(root):
        left, wanted = look(root, venv, options)
        if left == "ready":
            return False
        refusal = python_refusal(tuple(sys.version_info)) if left == "rebuild" else None
        if refusal:
            raise Refused(refusal)
        announce(left, venv)
        build(root, venv, wanted, left == "rebuild", room_needed(wanted["torch_index"]))
    return True


def announce(left: str, venv: Path) -> None:
    """Says what is going to happen, before anything is removed or fetched."""
    if left == "update":
        say("the list of packages changed: updating .venv")
    elif venv.exists():
        why = "unfinished, moved, made by hand, or not as asked for"
        say(f"making .venv afresh, which takes some minutes (the one here is {why})")
    else:
        say("making .venv and fetching the packages, which takes some minutes the first time")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Makes the course's own Python in .venv.")
    parser.add_argument("--fresh", action="store_true", help="make .venv afresh even where it looks complete")
    parser.add_argument("--this-python", action="store_true", help="rebuild .venv if it has another Python than this")
    index_help = "where to get the smaller CPU build of torch: the address that PyTorch's install page shows for CPU"
    parser.add_argument("--torch-index", default=os.environ.get("TORCH_INDEX", ""), help=index_help)
    parser.add_argument(
        "--settings", action="store_true", help="only give the calling Python's JupyterLab its settings"
    )
    parser.add_argument("--quiet", action="store_true", help="print nothing where there is nothing to do")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Runs the set-up; returns the exit status. Every failure is one line that says what to do."""
    options = parse(arguments)
    started = time.monotonic()
    try:
        changed = set_up(root, options)
    except KeyboardInterrupt:
        message, status = "interrupted: the next call makes .venv afresh", 130
    except Refused as refusal:
        message, status = str(refusal), 1
    except OSError as error:
        message, status = NO_ROOM.format(need=10) if error.errno == errno.ENOSPC else str(error), 1
    else:
        if changed or not options.quiet:
            say(f"complete ({time.monotonic() - started:.0f} s); start with: {start_command(options.settings)}")
        return 0
    print("\n" * sys.stdout.isatty() + f"set-up: {message}", file=sys.stderr, flush=True)
    return status


def start_command(here: bool) -> str:
    """What starts JupyterLab, on this platform; here: in the environment of the calling Python."""
    if here:
        return "jupyter lab notebooks"
    return r".venv\Scripts\jupyter lab notebooks\00_start_here.ipynb" if os.name == "nt" else "make lab"


if __name__ == "__main__":
    sys.exit(main())
