"""Files in a zip or a folder, read without trusting them: nothing is unpacked, and what one of them is ends nothing.

A zip inside of a zip or folder is opened as well, once: its files count as lying in a folder of its name.
"""

import io
import os
import re
import stat
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from coursework.course.lines import shown
from coursework.grading import handin
from coursework.grading.finding import NO_FOLDERS, is_notebook

MOST_ENTRIES = 100_000  # of an archive or folder
MOST_INSIDE = 2_000  # of a zip in it
LARGEST_ZIP = 200 << 20  # bytes of a zip in it, packed, and of all that is read from one
MOST_BYTES = 16 << 30  # that are read from one archive or folder
LARGEST_RATIO = 200  # of a file's size to its packed size, where it is larger than 1 MB
LONGEST_NAME = 1_000
HIDDEN, EMPTY = "it is hidden", "an empty folder"


class ArchiveError(ValueError):
    """A file, or a whole archive, cannot be read; the message says why."""


@dataclass(frozen=True)
class Item:
    """A file in an archive.

    `parts` is its path there, and "." at its end stands for a folder in which nothing lies; of a file in an inner zip
    `inside` has the rest. `time` is when it was last changed, as whoever packed it says; `problem` is why it is not
    read.
    """

    parts: tuple[str, ...]
    read: Callable[[], bytes]
    time: datetime | None = None
    inside: tuple[str, ...] = ()
    problem: str = ""

    @property
    def name(self) -> str:
        """The file's own name."""
        return (*self.parts, *self.inside)[-1]

    @property
    def place(self) -> str:
        """The whole path, as it is shown."""
        return shown("/".join((*self.parts, *self.inside)))

    @property
    def is_zip(self) -> bool:
        """Whether the file's name is that of a zip."""
        return self.name.lower().endswith(".zip")


class Archive:
    """A zip, a folder, or one file; a context manager, because items are read while it is open.

    Raises ArchiveError where it is none of these, or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stack = ExitStack()
        self._left = MOST_BYTES
        self._opened: dict[Item, tuple[int, dict[tuple[str, ...], Item]]] = {}
        if not path.is_dir() and not path.is_file():
            raise ArchiveError(f"{path}: there is no such file or folder")
        self._zip = None
        if path.is_file() and not is_notebook(path.name):
            try:
                self._zip = _open_zip(self._stack.enter_context(path.open("rb")), MOST_ENTRIES)
            except (ArchiveError, OSError) as error:
                self._stack.close()
                raise ArchiveError(f"{path}: {getattr(error, 'strerror', None) or error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    @property
    def is_zip(self) -> bool:
        """Whether times are those of a zip, which no copying has changed."""
        return self._zip is not None

    def items(self) -> Iterator[Item]:
        """The files, those of inner zips in place of them. Links, devices and the like come with a problem."""
        if self._zip is not None:
            found = _zip_items(self._zip)
        elif self.path.is_dir():
            found = _folder_items(self.path)
        else:
            found = iter([_file_item(self.path, (self.path.name,), self.path.stat())])
        for item in found:
            if item.is_zip and not item.problem:
                yield from self._inside(item)
            else:
                yield Item(item.parts, self._counted(item.read), item.time, problem=item.problem)

    def _inside(self, outer: Item) -> Iterator[Item]:
        """The files of a zip in the archive, or the zip itself with why it is not read."""
        try:
            for item in self._open_inside(outer).values():
                again = self._counted(lambda parts=item.parts: self._open_inside(outer)[parts].read())
                problem = "a zip in a zip is not opened" if item.is_zip else item.problem
                yield Item(outer.parts, again, outer.time, item.parts, problem)
        except ArchiveError as error:
            yield Item(outer.parts, outer.read, outer.time, problem=str(error))

    def _open_inside(self, outer: Item) -> dict[tuple[str, ...], Item]:
        """The files of an inner zip by path, of several with the same path the last, as unpacking would leave it.

        The zips opened last stay open, up to the size that one may have; each time one is unpacked counts.
        """
        if outer not in self._opened:
            data = self._counted(outer.read)()
            archive = _open_zip(io.BytesIO(data), MOST_INSIDE)
            if sum(info.file_size for info in archive.infolist()) > LARGEST_ZIP:
                raise ArchiveError(f"it unpacks to more than {LARGEST_ZIP >> 20} MB")
            self._opened[outer] = len(data), {item.parts: item for item in _zip_items(archive)}
            while sum(size for size, _ in self._opened.values()) > LARGEST_ZIP and len(self._opened) > 1:
                del self._opened[next(iter(self._opened))]
        return self._opened[outer][1]

    def _counted(self, read: Callable[[], bytes]) -> Callable[[], bytes]:
        """A reader whose bytes count towards the most that is read of an archive, once."""
        counted = False

        def read_and_count() -> bytes:
            nonlocal counted
            if self._left <= 0 and not counted:
                raise ArchiveError(f"the archive unpacks to more than {MOST_BYTES >> 30} GB")
            data = read()
            self._left -= 0 if counted else len(data)
            counted = True
            return data

        return read_and_count


def _open_zip(file: BinaryIO, most: int) -> zipfile.ZipFile:
    """A zip whose list of files is not too long, as its last record says before the list is read."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - 65_557))
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < 22:
        raise ArchiveError("it is no zip, or cut off")
    (length,) = struct.unpack("<L", tail[at + 12 : at + 16])
    if length > most * 512:
        raise ArchiveError(f"it holds more than {most:,} files")
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        raise ArchiveError(f"it is a broken zip: {error}") from None
    if len(archive.infolist()) > most:
        raise ArchiveError(f"it holds more than {most:,} files")
    return archive


def _zip_items(archive: zipfile.ZipFile) -> Iterator[Item]:
    full = {
        parts[:i]
        for parts in (_parts(_name(info)[0]) for info in archive.infolist())
        for i in range(1, min(len(parts), LONGEST_NAME))
    }
    for info in archive.infolist():
        name, problem = _name(info)
        parts = _parts(name)
        if not parts:
            continue
        if name.endswith("/") and not problem:
            if parts not in full:
                yield Item((*parts, "."), bytes, problem=EMPTY)
            continue
        time = None
        if info.date_time > (1980, 1, 1, 0, 0, 0):
            with suppress(ValueError):
                time = datetime(*info.date_time)
        yield Item(parts, lambda info=info: _read(archive, info), time, problem=problem or _problem(info))


def _name(info: zipfile.ZipInfo) -> tuple[str, str]:
    """The path of a file in a zip, with "/" between its parts, and why it cannot be used, "" where it can."""
    name = info.filename
    if not info.flag_bits & 0x800:  # some programs write UTF-8 and do not say so
        with suppress(UnicodeError):
            name = name.encode("cp437").decode()
    name = name.replace("\\", "/")
    if "\0" in info.orig_filename:
        return name, "a null character is in its name"
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in name.split("/"):
        return name, "its path leads out of the archive"
    if is_hidden(name.split("/")):
        return name[:LONGEST_NAME], HIDDEN
    return name[:LONGEST_NAME], "its name is too long" if len(name) > LONGEST_NAME else ""


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part for part in name.split("/") if part not in ("", "."))


def _problem(info: zipfile.ZipInfo) -> str:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return "it is a link" if kind == stat.S_IFLNK else "it is no plain file"
    if info.flag_bits & 0x1:
        return "it is encrypted"
    if info.file_size > 1 << 20 and info.file_size > LARGEST_RATIO * max(1, info.compress_size):
        return f"it unpacks to more than {LARGEST_RATIO} times its size"
    return ""


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    _check_size(info.filename, info.file_size)
    try:
        return archive.read(info)  # no more than file_size
    except Exception as error:  # a broken or hostile packing fails in many ways, by the method of compression
        raise ArchiveError(f"it cannot be unpacked: {type(error).__name__}: {error}") from None


def _check_size(name: str, size: int) -> None:
    most = LARGEST_ZIP if name.lower().endswith(".zip") else handin.LARGEST_FILE
    if size > most:
        raise ArchiveError(f"it is larger than {most >> 20} MB")


def _folder_items(folder: Path) -> Iterator[Item]:
    """The files below a folder; links are not followed."""
    waiting: list[tuple[tuple[str, ...], Path]] = [((), folder)]
    seen = 0
    while waiting:
        above, place = waiting.pop(0)
        try:
            with os.scandir(place) as entries:
                names = sorted(entry.name for entry in entries)
        except OSError as error:
            yield Item((*above, "?"), bytes, problem=f"a folder that cannot be read: {error.strerror}")
            continue
        if not names and above:
            yield Item((*above, "."), bytes, problem=EMPTY)
        for name in names:
            parts, path, seen = (*above, name), place / name, seen + 1
            if seen > MOST_ENTRIES:
                yield Item(parts, bytes, problem=f"the folder holds more than {MOST_ENTRIES:,} files")
                return
            found = path.lstat()
            if is_hidden(parts):
                yield Item(parts, bytes, problem=HIDDEN)
            elif stat.S_ISDIR(found.st_mode):
                waiting.append((parts, path))
            else:
                yield _file_item(path, parts, found)


def _file_item(path: Path, parts: tuple[str, ...], found: os.stat_result) -> Item:
    def read() -> bytes:
        _check_size(path.name, found.st_size)
        try:
            with path.open("rb") as file:
                return file.read(found.st_size)
        except OSError as error:
            raise ArchiveError(f"it cannot be read: {error.strerror}") from None

    kind = found.st_mode
    problem = "it is a link" if stat.S_ISLNK(kind) else "" if stat.S_ISREG(kind) else "it is no plain file"
    time = datetime.fromtimestamp(int(found.st_mtime))  # local, as in a zip
    return Item(parts, read, time, problem=problem)


def is_hidden(parts: Iterable[str]) -> bool:
    """Whether something on a path is hidden, or no one's: what notebooks and systems put beside the files."""
    return any((part.startswith(".") and part != ".") or part in NO_FOLDERS for part in parts)
