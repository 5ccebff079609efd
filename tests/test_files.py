"""Files that are whole or absent, and places that are refused before the work whose result they are to hold."""

import errno
import os

import pytest

from coursework import _files
from coursework._files import check_folder, check_writable, write_atomically


@pytest.fixture
def place(tmp_path):
    """A folder with a file, a folder and a loop in it."""
    (tmp_path / "file").write_text("before")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


WRONG = {
    "folder": {errno.EISDIR, errno.ENOTEMPTY},
    "file/inside": {errno.ENOTDIR},
    "file/in/side": {errno.ENOTDIR},
    "x" * 300: {errno.ENAMETOOLONG},
    "x" * 300 + "/inside": {errno.ENAMETOOLONG},
    "y/" * 3000: {errno.ENAMETOOLONG},
    "loop/inside": {errno.ELOOP, errno.ENOTDIR},
}


@pytest.mark.parametrize(("name", "numbers"), WRONG.items(), ids=lambda value: str(value)[:12])
def test_what_cannot_be_written_is_refused_by_both_and_leaves_nothing(place, name, numbers):
    there = sorted(os.listdir(place))
    for refuse in (check_writable, lambda path: write_atomically(path, "text")):
        with pytest.raises(OSError, match=r".") as refusal:
            refuse(place / name)
        assert refusal.value.errno in numbers
        assert refusal.value.filename == str(place / name)
    assert sorted(os.listdir(place)) == there
    assert (place / "file").read_text() == "before"


@pytest.mark.parametrize("name", ["new", "file", "folder/new", "deep/er/new", "a\nb"])
def test_what_can_be_written_passes_and_is_not_made_before(place, name):
    there = sorted(os.listdir(place))
    check_writable(place / name)
    assert sorted(os.listdir(place)) == there
    write_atomically(place / name, "text")
    assert (place / name).read_text() == "text"


def test_folders(place):
    for name in ("folder", "new", "new/er"):
        check_folder(place / name)
    assert sorted(os.listdir(place)) == ["file", "folder", "loop"]
    for name in ("file", "file/in", "x" * 300, "loop"):
        with pytest.raises(OSError, match=r".") as refusal:
            check_folder(place / name)
        assert refusal.value.filename == str(place / name)


def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(place, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_files.os, "replace", full)
    with pytest.raises(OSError, match="No space left") as refusal:
        write_atomically(place / "file", "after")
    assert refusal.value.filename == str(place / "file")
    assert (place / "file").read_text() == "before"
    assert sorted(os.listdir(place)) == ["file", "folder", "loop"]
