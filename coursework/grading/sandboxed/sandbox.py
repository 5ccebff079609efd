"""What surrounds a learner's code: limits, namespaces, and a view of the files that holds nothing but Python.

Runs in the sandboxed process itself, before any of the learner's code. On Linux the process is cut off from the
network, from other processes and from all files but the Python installation (read-only) and an empty folder. Elsewhere,
or where the system forbids namespaces, what is missing is named, so that the grader can warn.
"""

import ctypes
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NEW_NS, NEW_UTS, NEW_IPC, NEW_USER, NEW_PID, NEW_NET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
BIND, REC, MOVE, PRIVATE, NOSUID, NODEV = 4096, 16384, 8192, 1 << 18, 2, 4
MOUNT_SETATTR, HERE, RECURSIVE, READ_ONLY = 442, -100, 0x8000, 0x1 | 0x2  # read-only and no set-uid files
DROP_FROM_BOUNDING_SET, NO_NEW_PRIVILEGES = 24, 38
UNPRIVILEGED = 64_321  # the user and group that the code of learners runs as where the grader is root
MEGABYTE = 1 << 20
SCRATCH = "/scratch"  # where learners' code works, in the new view of the files
DEVICES = ("null", "zero", "urandom", "random")
SYSTEM = ("/lib", "/lib64", "/lib32", "/usr/lib", "/usr/lib64", "/usr/lib32", "/etc/ld.so.cache")


@dataclass(frozen=True)
class Limits:
    """What one exercise may use: CPU seconds, seconds on the clock, and bytes of memory and of a file."""

    cpu: float
    wall: float
    memory: int = 2_048 * MEGABYTE
    file: int = 2 * MEGABYTE
    processes: int = 24
    open_files: int = 64


@dataclass(frozen=True)
class View:
    """What learners' code sees of the files: `readable` folders, without the `hidden` ones in them.

    `root` is an empty folder to build the view in.
    """

    root: str
    readable: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()


class _Attributes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd"))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> None:
    """A function of the C library. Raises OSError."""
    if getattr(_libc(), name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    _call("mount", source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), options.encode())


def is_root() -> bool:
    """Whether this process may do everything on the system."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


# -- namespaces --------------------------------------------------------------------------------------------------------


def new_process_space() -> str:
    """Give the next child a process space of its own. Returns what is missing, or ""."""
    if sys.platform != "linux":
        return f"processes are not separated: {sys.platform} has no namespaces"
    try:
        if is_root():
            _call("unshare", NEW_PID)
        else:
            _enter_user_space(NEW_PID)
    except OSError as error:
        return f"processes are not separated ({error})"
    return ""


def _enter_user_space(more: int = 0) -> None:
    """A user namespace, in which this process may do what only root may do outside; its user stays the same."""
    user, group = os.geteuid(), os.getegid()
    _call("unshare", NEW_USER | more)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def separate(view: View, user: int) -> list[str]:
    """Cut this process off from network and files, and give up all privileges. Returns what could not be done.

    user: whom to become, 0 for nobody else.
    """
    missing = []
    if sys.platform == "linux":
        steps: tuple[tuple[str, Callable[[], None]], ...] = (
            ("the network is not cut off", lambda: _call("unshare", NEW_NET | NEW_IPC | NEW_UTS)),
            ("", _no_shared_memory),
            ("files are not hidden", lambda: _new_view(view)),
        )
        missing += [f"{text} ({error})" for text, step in steps if (error := _failure(step)) and text]
    else:
        missing += ["the network is not cut off", "files are not hidden"]
    if user:
        _become(user)
    if sys.platform == "linux":
        _failure(_no_more_user_spaces)  # where that is refused, there are none to be had anyway, or they give nothing
        _give_up_capabilities()
    return missing


def _no_shared_memory() -> None:
    """No System V segments and queues: they count towards nobody's limit."""
    for name in ("shmall", "shmmni", "msgmni"):
        Path(f"/proc/sys/kernel/{name}").write_text("0")


def _failure(step: Callable[[], None]) -> OSError | None:
    try:
        step()
    except OSError as error:
        return error
    return None


def _new_view(view: View) -> None:
    """A new root with the system's libraries, what is readable, and an empty folder, and the old one out of reach."""
    root = view.root
    _call("unshare", NEW_NS)
    _mount("none", "/", flags=REC | PRIVATE)
    _mount("tmpfs", root, "tmpfs", NOSUID | NODEV, "size=1m,mode=755")
    os.mkdir(root + SCRATCH)
    _mount("tmpfs", root + SCRATCH, "tmpfs", NOSUID | NODEV, "size=64m,nr_inodes=4k,mode=1777")
    hidden = {place for path in view.hidden for place in (os.path.abspath(path), os.path.realpath(path))}
    covered = []
    for path in sorted({*SYSTEM, *view.readable, *hidden}, key=lambda path: path.count("/")):
        seen = os.path.lexists(root + path)
        if path in hidden:
            covered += [root + path] if seen and _cover(root + path) else []
        elif os.path.islink(path) and not seen:
            _make_parent(root + path)
            os.symlink(os.readlink(path), root + path)
        elif os.path.exists(path) and not seen:
            _show(path, root + path)
    for name in DEVICES:
        _show(f"/dev/{name}", f"{root}/dev/{name}", read_only=False)
    os.mkdir(f"{root}/proc")
    _failure(lambda: _mount("proc", f"{root}/proc", "proc", NOSUID | NODEV))
    for path in (*covered, root):
        _freeze(path, recursive=False)
    os.chdir(root)
    _mount(root, "/", flags=MOVE)
    os.chroot(".")
    os.chdir(SCRATCH)


def _show(path: str, target: str, read_only: bool = True) -> None:
    """Make a folder or file of the old view visible in the new one."""
    _make_parent(target)
    if os.path.isdir(path):
        os.mkdir(target)
    else:
        Path(target).touch()
    _mount(path, target, flags=BIND | REC)
    if read_only:
        _freeze(target)


def _cover(target: str) -> bool:
    """Put an empty folder over one that is visible. Returns whether it was a folder."""
    if not os.path.isdir(target):
        return False
    _mount("tmpfs", target, "tmpfs", NOSUID | NODEV, "size=1m,mode=755")
    return True


def libraries() -> list[str]:
    """The folders of the shared libraries that this process has loaded (Linux)."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return []
    found = {line[line.index("/") :] for line in lines if ".so" in line and "/" in line}
    return sorted({os.path.dirname(path) for path in found})


def _make_parent(target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)


def _freeze(target: str, recursive: bool = True) -> None:
    attributes = _Attributes(attr_set=READ_ONLY)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    flags = RECURSIVE if recursive else 0
    _call("syscall", MOUNT_SETATTR, HERE, target.encode(), flags, ctypes.byref(attributes), size)


def stranger(folder: str) -> int:
    """A user number that nobody has, to whom the folder is given; 0 where this process is not root."""
    if not is_root():
        return 0
    for user in (UNPRIVILEGED + os.getpid(), UNPRIVILEGED):
        if _failure(lambda user=user: os.chown(folder, user, user)) is None:
            return user
    raise OSError("root can give no folder to another user here")


def _become(user: int) -> None:
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def _no_more_user_spaces() -> None:
    """In a user namespace of its own, forbid further ones: they would give privileges back."""
    _enter_user_space()
    Path("/proc/sys/user/max_user_namespaces").write_text("0")


def _give_up_capabilities() -> None:
    """No capability is left, and no program that is started gains one."""
    for number in range(64):
        _libc().prctl(DROP_FROM_BOUNDING_SET, number, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    _call("capset", ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)()))
    _call("prctl", NO_NEW_PRIVILEGES, 1, 0, 0, 0)


# -- limits ------------------------------------------------------------------------------------------------------------


def bounds(limits: Limits) -> dict[str, int]:
    """What this process and its children may use, by the names of the system's limits. Ask before `separate`."""
    return {
        "CPU": max(1, math.ceil(limits.cpu)),
        "CORE": 0,
        "FSIZE": limits.file,
        "NOFILE": limits.open_files,
        "NPROC": _processes_of_this_user() + limits.processes,
        "AS": _used("VmSize") + 2 * limits.memory,
        "DATA": _used("VmData") + limits.memory,
    }


def limit(most: dict[str, int]) -> None:
    """Set the limits, for good."""
    import resource

    for name, value in most.items():
        kind = getattr(resource, f"RLIMIT_{name}", None)
        if kind is None or (name in ("AS", "DATA") and sys.platform != "linux"):
            continue
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def first_to_go() -> None:
    """When the system runs out of memory, it ends this process before others (Linux)."""
    if sys.platform == "linux":
        _failure(lambda: _write("/proc/self/oom_score_adj", "1000"))


def _write(path: str, text: str) -> None:
    if os.path.exists(path):
        Path(path).write_text(text)


def _used(field: str) -> int:
    """Bytes that this process uses, by Linux's account of it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":")), 0)


def _processes_of_this_user() -> int:
    """How many threads the user has whose processes are counted; 0 where that is an own user."""
    if is_root() or sys.platform != "linux":
        return 0
    tasks = 0
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                if entry.stat().st_uid == os.geteuid():
                    tasks += len(os.listdir(f"/proc/{entry.name}/task"))
            except OSError:  # it has ended
                continue
    return tasks


# -- the one who watches -----------------------------------------------------------------------------------------------


def watch(child: int, limits: Limits, abandoned: Callable[[], bool]) -> tuple[str, float]:
    """Wait for a sandboxed child, and end it and everything it started when all of them together use too much.

    abandoned: says whether nobody waits for the answer any more. Returns how it ended ("exit", "time", "memory",
    "abandoned" or "signal 9") and the CPU seconds of all.
    """
    import psutil

    started, process, ended, seen = time.monotonic(), psutil.Process(child), "", 0.0
    pause = 0.005
    while True:
        done, status, used = os.wait4(child, os.WNOHANG)
        if done:
            break
        family = _family(process)
        seen = max(seen, _cpu(family))
        if not ended and (ended := _too_much(family, limits, time.monotonic() - started, seen, abandoned)):
            os.kill(child, signal.SIGKILL)
        time.sleep(pause)
        pause = min(0.05, pause * 1.2)
    _end_descendants()
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    cpu = max(seen, used.ru_utime + used.ru_stime)
    by_limit = number in (signal.SIGXCPU, signal.SIGKILL) and cpu >= 0.9 * limits.cpu
    return ended or ("time" if by_limit else f"signal {number}" if number else "exit"), cpu


def _family(process: Any) -> list[Any]:
    """A process and all that descend from it."""
    import psutil

    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def _too_much(family: list[Any], limits: Limits, seconds: float, cpu: float, abandoned: Callable[[], bool]) -> str:
    if seconds > limits.wall or cpu > limits.cpu:
        return "time"
    if abandoned():
        return "abandoned"
    most = 2 * limits.memory
    return "memory" if _sum(_resident, family) > most and _sum(_share, family) > most else ""


def _sum(quantity: Callable[[Any], float], family: list[Any]) -> float:
    """A quantity of all processes together; one that has ended has none."""
    import psutil

    total = 0.0
    for process in family:
        try:
            total += quantity(process)
        except (psutil.Error, OSError):
            continue
    return total


def _cpu(family: list[Any]) -> float:
    """CPU seconds of processes and of those that they have waited for."""
    return _sum(lambda process: sum(process.cpu_times()[:4]), family)


def _resident(process: Any) -> float:
    return process.memory_info().rss


def _share(process: Any) -> float:
    """Bytes of memory, of which forked processes that share a page count their part; with all of it, where unknown."""
    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return _resident(process)


def adopt_orphans() -> None:
    """Processes whose parent ends become this process's children, so that none can get away (Linux)."""
    if sys.platform == "linux":
        _failure(lambda: _call("prctl", 36, 1, 0, 0, 0))


def _end_descendants() -> None:
    """End every process that descends from this one. Where process spaces are separated there is none left."""
    import psutil

    for _ in range(1000):
        left = psutil.Process().children(recursive=True)
        if not left:
            return
        for one in left:
            try:
                one.kill()
            except psutil.Error:
                continue
        while True:
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    break
            except ChildProcessError:
                break
        time.sleep(0.002)
