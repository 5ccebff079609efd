"""The editing aid: a lesson that is opened and saved unchanged is the same lesson."""

import importlib.util
import runpy
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
LESSONS = sorted((ROOT / "solutions").glob("[0-9][0-9]_*.ipynb"))

spec = importlib.util.spec_from_file_location("edit_lesson", ROOT / "tools" / "edit_lesson.py")
edit_lesson = importlib.util.module_from_spec(spec)
spec.loader.exec_module(edit_lesson)


def load(path):
    return nbformat.read(path, as_version=4)


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_open_and_save_keep_everything(path):
    text = edit_lesson.open_lesson(load(path))
    assert edit_lesson.save_lesson(text, load(path)) == load(path)


def test_outputs_of_changed_cells_are_dropped_and_others_kept():
    before = load(LESSONS[0])
    code = [c for c in before.cells if c.cell_type == "code" and c.outputs]
    text = edit_lesson.open_lesson(load(LESSONS[0])).replace(code[0].source, code[0].source + "\nchanged = True")
    after = [c for c in edit_lesson.save_lesson(text, before).cells if c.cell_type == "code"]
    by_source = {c.source: c.outputs for c in after}
    assert by_source[code[0].source + "\nchanged = True"] == []
    assert by_source[code[1].source] == code[1].outputs


def test_what_cannot_be_read_or_written_ends_in_one_line_and_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "solutions").mkdir()
    source = tmp_path / "solutions" / "01_a.ipynb"
    source.write_text("no notebook")
    for verb, name, words in (
        ("open", "01_a", "01_a: no valid notebook: Notebook does not appear to be JSON"),
        ("open", "02_b", "02_b: No such file or directory"),
        ("save", "02_b", "02_b: .*No such file or directory"),
        ("change", "01_a", "An editing aid"),
    ):
        monkeypatch.setattr(sys, "argv", ["edit_lesson.py", verb, name])
        with pytest.raises(SystemExit, match=words):
            runpy.run_path(str(ROOT / "tools" / "edit_lesson.py"), run_name="__main__")
    assert source.read_text() == "no notebook"
    assert [path.name for path in tmp_path.rglob("*")] == ["solutions", "01_a.ipynb"]
