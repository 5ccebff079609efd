"""The editing aid: a lesson that is opened and saved unchanged is the same lesson."""

import nbformat
import pytest

from coursework.course.editing import open_lesson, open_text, save_lesson, save_text
from coursework.course.tree import CourseError
from tests.helpers import LESSONS, ROOT

pytestmark = pytest.mark.extra("instructor")


def load(name):
    return nbformat.read(ROOT / "solutions" / f"{name}.ipynb", as_version=4)


@pytest.mark.parametrize("name", LESSONS)
def test_open_and_save_keep_everything(name):
    assert save_lesson(open_lesson(load(name)), load(name)) == load(name)


def test_outputs_of_changed_cells_are_dropped_and_others_kept():
    before = load(LESSONS[0])
    code = [c for c in before.cells if c.cell_type == "code" and c.outputs]
    text = open_lesson(load(LESSONS[0])).replace(code[0].source, code[0].source + "\nchanged = True")
    after = [c for c in save_lesson(text, before).cells if c.cell_type == "code"]
    by_source = {c.source: c.outputs for c in after}
    assert by_source[code[0].source + "\nchanged = True"] == []
    assert by_source[code[1].source] == code[1].outputs


@pytest.fixture
def root(tmp_path):
    """A course tree with lesson 00 and one that is no notebook."""
    (tmp_path / "solutions").mkdir()
    nbformat.write(load(LESSONS[0]), tmp_path / "solutions" / f"{LESSONS[0]}.ipynb")
    (tmp_path / "solutions" / "01_a.ipynb").write_text("no notebook")
    return tmp_path


def test_a_lesson_is_opened_as_a_text_that_is_saved_as_the_lesson(root):
    text = open_text(root, "00")
    assert text == root / "build" / "edit" / f"{LESSONS[0]}.py"
    text.write_text(text.read_text() + "\n# %%\nnew = 1\n")
    path = save_text(root, "0")
    assert nbformat.read(path, as_version=4).cells[-1].source == "new = 1"


def test_a_new_text_is_saved_as_a_new_lesson(root):
    open_text(root, "00").rename(root / "build" / "edit" / "99_new.py")
    assert save_text(root, "99") == root / "solutions" / "99_new.ipynb"


@pytest.mark.parametrize(
    ("work", "name", "words"),
    [
        (open_text, "01", "01_a.ipynb: no valid notebook: Notebook does not appear to be JSON"),
        (open_text, "02_b", "no lesson '02_b'; there are 00_start_here, 01_a"),
        (save_text, "01", "no lesson '01'"),
    ],
)
def test_what_cannot_be_read_or_written_ends_in_one_line_and_changes_nothing(root, work, name, words):
    if work is save_text:
        open_text(root, "00")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with pytest.raises(CourseError, match=words):
        work(root, name)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
