"""Files that are whole or absent, whenever the program is stopped."""

import errno
import os
from pathlib import Path


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file under a temporary name, then rename it. Folders that are missing are made.

    Raises OSError naming the file.
    """
    temporary = _beside(path)
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        raise _of(path, error) from None
    finally:
        _remove(temporary)


def check_writable(path: Path) -> None:
    """Refuse a path that `write_atomically` could not write to, before the work whose result it is to hold.

    Nothing is left behind. Raises OSError naming the file.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        _probe(path.parent, path.name)
    except OSError as error:
        raise _of(path, error) from None


def check_folder(folder: Path) -> None:
    """Refuse a folder that files cannot be written to, or that cannot be made. Nothing is left behind.

    Raises OSError naming the folder.
    """
    try:
        _probe(folder, "file")
    except OSError as error:
        raise _of(folder, error) from None


def _probe(folder: Path, name: str) -> None:
    """Makes an empty file where the folder is, or where it would be made, and removes it."""
    there = next(parent for parent in (folder, *folder.parents) if _is_there(parent))
    probe = _beside(there / name)
    try:
        probe.touch()
    finally:
        _remove(probe)


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _beside(path: Path) -> Path:
    return path.parent / f".{path.name}.{os.getpid()}"


def _of(path: Path, error: OSError) -> OSError:
    if error.errno == errno.EEXIST:  # says mkdir where a file is in its way
        error = NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    return OSError(error.errno, error.strerror or str(error), str(path))


def _remove(path: Path) -> None:
    """Where the folder is none, or out of reach, there is nothing to remove."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
