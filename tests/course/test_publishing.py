"""Publishing: reproducible, complete, and refusing whatever would reach a learner broken."""

import contextlib
import copy
import json
import random

import nbformat
import pytest

from coursework.course import publishing
from coursework.course.publishing import (
    digest,
    is_edited,
    out_of_sync,
    outdated,
    publish,
    read,
    reset,
    student_notebook,
    student_text,
)
from coursework.course.tree import CourseError
from tests.helpers import ROOT

pytestmark = pytest.mark.extra("instructor")

LESSON = "01_score_function"


@pytest.fixture
def root(tmp_path):
    """A course tree with one lesson."""
    for tree in ("solutions", "notebooks"):
        (tmp_path / tree).mkdir()
        (tmp_path / tree / f"{LESSON}.ipynb").write_bytes((ROOT / tree / f"{LESSON}.ipynb").read_bytes())
    return tmp_path


def change(root, edit, tree="solutions"):
    path = root / tree / f"{LESSON}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    edit(notebook)
    path.write_text(nbformat.writes(notebook) + "\n")
    return path


def find(notebook, role, exercise):
    own = {"role": role, "id": exercise}
    return next(c for c in notebook.cells if c.metadata["coursework"] == own)


def test_the_committed_student_tree_is_what_publish_writes():
    assert out_of_sync(ROOT) == []
    assert outdated(ROOT) == []


def test_publishing_twice_changes_nothing(root):
    (root / "notebooks" / f"{LESSON}.ipynb").unlink()
    assert [p.name for p in publish(root)] == [f"{LESSON}.ipynb"]
    first = (root / "notebooks" / f"{LESSON}.ipynb").read_bytes()
    assert first == (ROOT / "notebooks" / f"{LESSON}.ipynb").read_bytes()
    assert publish(root) == []


def test_outputs_of_the_source_do_not_matter(root):
    def add_output(notebook):
        code = next(c for c in notebook.cells if c.cell_type == "code")
        code.execution_count = 7
        code.outputs = [nbformat.v4.new_output("stream", name="stdout", text="hello")]
        code.metadata["execution"] = {"iopub.status.busy": "now"}

    change(root, add_output)
    assert out_of_sync(root) == []


@pytest.mark.parametrize("tree", ["solutions", "notebooks"])
def test_any_changed_character_is_noticed(root, tree):
    pick = random.Random(1)
    path = root / tree / f"{LESSON}.ipynb"
    original = path.read_bytes()
    for _ in range(4):
        notebook = nbformat.read(path, as_version=4)
        cell = pick.choice([c for c in notebook.cells if c.source])
        at = pick.randrange(len(cell.source))
        cell.source = cell.source[:at] + chr(ord(cell.source[at]) ^ 1) + cell.source[at + 1 :]
        path.write_text(nbformat.writes(notebook) + "\n")
        with contextlib.suppress(CourseError):  # the change broke the source: noticed as well
            assert out_of_sync(root)
        path.write_bytes(original)
    assert out_of_sync(root) == []


def test_a_change_inside_a_solution_alone_is_noticed(root):
    def edit(notebook):
        cell = find(notebook, "exercise", "1.1")
        cell.source = cell.source.replace("(mean - x)", "(mean - x )")

    change(root, edit)
    assert out_of_sync(root) == [f"notebooks/{LESSON}.ipynb: differs from its source"]
    assert outdated(root) == [f"notebooks/{LESSON}.ipynb: made from another version of its source"]


def test_student_cells_have_signature_docstring_and_stub_and_no_answer():
    student = student_notebook(read(ROOT / "solutions" / f"{LESSON}.ipynb"))
    cell = find(student, "exercise", "1.2")
    assert "def mixture_score(x, means, covariances, weights):" in cell.source
    assert '"""Score of' in cell.source
    assert cell.source.endswith("    raise NotAttempted")
    assert "softmax(weights" not in json.dumps(student)
    assert all(not c.get("outputs") and c.get("execution_count") is None for c in student.cells)


def test_a_learners_work_is_kept_and_is_not_out_of_date(root):
    path = change(root, lambda n: find(n, "exercise", "1.1").update(source="my work"), tree="notebooks")
    assert is_edited(path)
    assert outdated(root) == []
    publish(root)
    assert not is_edited(path)
    assert find(read(path.with_name(f"{LESSON}.mine-1.ipynb")), "exercise", "1.1").source == "my work"
    assert out_of_sync(root) == []


def test_executing_a_notebook_is_no_edit(root):
    def run(notebook):
        for cell in notebook.cells:
            cell.metadata["execution"] = {}

    assert not is_edited(change(root, run, tree="notebooks"))


def leak_in_code(notebook):
    notebook.cells[-2].source += "\nresponsibilities = torch.softmax(weights.log()+log_components, dim=1)"


def leak_in_text(notebook):
    notebook.cells[-1].source += "\n\n    return (responsibilities[:, :, None] * scores).sum(dim=1)\n"


def test_a_cell_with_a_bug_to_be_spotted_may_show_lines_of_the_solution(root):
    def faulty(notebook):
        leak_in_code(notebook)
        notebook.cells[-2].metadata["tags"] = ["spot-the-bug"]

    change(root, faulty)
    assert publish(root)


def stub_that_does_not_parse(notebook):
    cell = find(notebook, "exercise", "1.1")
    cell.source = cell.source.replace("### END SOLUTION", "### END SOLUTION\n  odd = 1")


def duplicate_exercise(notebook):
    cell = copy.deepcopy(find(notebook, "exercise", "1.1"))
    cell.id = "another"
    cell.metadata["nbgrader"]["grade_id"] = "another"
    notebook.cells.append(cell)


def missing_check(notebook):
    notebook.cells.remove(find(notebook, "check", "1.3"))


def unknown_exercise(notebook):
    find(notebook, "exercise", "1.3").metadata["coursework"]["id"] = "1.33"


def no_role(notebook):
    del notebook.cells[2].metadata["coursework"]


def no_end(notebook):
    cell = find(notebook, "exercise", "1.1")
    cell.source = cell.source.replace("### END SOLUTION", "")


def solution_elsewhere(notebook):
    notebook.cells[2].source += "\n### BEGIN SOLUTION\nx = 1\n### END SOLUTION"


def name_inside_the_solution(notebook):
    cell = find(notebook, "exercise", "1.1")
    cell.source = cell.source.replace("### END SOLUTION", "\ntop_level = 1\n### END SOLUTION")


def check_of_another(notebook):
    cell = find(notebook, "check", "1.1")
    cell.source = cell.source.replace('"1.1"', '"1.2"')


def no_nbgrader(notebook):
    del find(notebook, "exercise", "1.1").metadata["nbgrader"]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (leak_in_code, "shows a line of the solution"),
        (leak_in_text, "shows a line of the solution"),
        (stub_that_does_not_parse, "does not parse"),
        (duplicate_exercise, "exercise 1.1: stands 2 times"),
        (missing_check, "check 1.3: missing"),
        (unknown_exercise, "1.33: the package has no such exercise"),
        (no_role, "role is None"),
        (no_end, "one ### BEGIN SOLUTION and one ### END SOLUTION"),
        (solution_elsewhere, "a solution outside an exercise"),
        (name_inside_the_solution, "public names change"),
        (check_of_another, r'does not call check\("1.1"'),
        (no_nbgrader, "no nbgrader metadata"),
    ],
)
def test_refuses(root, edit, words):
    change(root, edit)
    before = (root / "notebooks" / f"{LESSON}.ipynb").read_bytes()
    with pytest.raises(CourseError, match=words):
        publish(root)
    assert (root / "notebooks" / f"{LESSON}.ipynb").read_bytes() == before


def test_refuses_a_cell_id_that_stands_twice(root):
    path = root / "solutions" / f"{LESSON}.ipynb"
    path.write_text(path.read_text().replace('"id": "cell-004"', '"id": "cell-005"'))
    with pytest.raises(CourseError, match=f"{LESSON}.ipynb: Non-unique cell id 'cell-005'"):
        publish(root)


def test_all_problems_are_listed_at_once(root):
    change(root, lambda n: (missing_check(n), unknown_exercise(n), no_role(n)))
    with pytest.raises(CourseError) as caught:
        publish(root)
    assert len(str(caught.value).splitlines()) >= 3


def test_a_broken_source_is_one_clear_line(root):
    (root / "solutions" / f"{LESSON}.ipynb").write_text('{"cells": [')
    with pytest.raises(CourseError, match=f"{LESSON}.ipynb: "):
        student_text(root, LESSON)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"\xe9",
        b'{"cells": [{"cell_type": "code", "id": null}], "nbformat": 4, "nbformat_minor": 5, "metadata": {}}',
        None,
    ],
)
def test_one_broken_source_names_itself_beside_the_others_and_nothing_is_written(root, content):
    broken = root / "solutions" / "00_broken.ipynb"
    broken.mkdir() if content is None else broken.write_bytes(content)
    change(root, no_role)
    before = {path: path.read_bytes() for path in (root / "notebooks").iterdir()}
    with pytest.raises(CourseError) as caught:
        publish(root)
    first, second = str(caught.value).splitlines()
    assert first.startswith("00_broken.ipynb: ")
    assert second.startswith(f"{LESSON}.ipynb: ")
    assert "role is None" in second
    assert {path: path.read_bytes() for path in (root / "notebooks").iterdir()} == before


@pytest.mark.parametrize("odd", [{"coursework": "a text"}, {"coursework": {"role": ["x"]}}, {"nbgrader": 7}])
def test_odd_metadata_are_a_problem_of_that_source(root, odd):
    change(root, lambda notebook: notebook.cells[3].metadata.update(odd))
    with pytest.raises(CourseError, match=f"{LESSON}.ipynb: "):
        publish(root)


@pytest.mark.parametrize("content", [b"\xe9", b"", b"null"])
def test_what_a_learner_left_broken_is_kept_beside_the_fresh_copy(root, content):
    path = root / "notebooks" / f"{LESSON}.ipynb"
    path.write_bytes(content)
    assert outdated(root)
    assert publish(root) == [path]
    assert path.with_name(f"{LESSON}.mine-1.ipynb").read_bytes() == content
    assert out_of_sync(root) == []


def test_where_the_fresh_copy_cannot_be_written_the_old_one_stays(root, monkeypatch):
    path = root / "notebooks" / f"{LESSON}.ipynb"
    path.write_text("my work")

    def full(path, text):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(publishing, "write_atomically", full)
    for write in (lambda: publish(root), lambda: reset(root, "01")):
        with pytest.raises(OSError, match="No space left on device"):
            write()
        assert [(p.name, p.read_text()) for p in path.parent.iterdir()] == [(path.name, "my work")]


def test_a_notebook_without_a_source_is_reported(root):
    (root / "notebooks" / "77_orphan.ipynb").write_text("{}")
    assert out_of_sync(root) == ["notebooks/77_orphan.ipynb: has no source"]


def test_digest_covers_roles():
    source = read(ROOT / "solutions" / f"{LESSON}.ipynb")
    before = digest(source)
    source.cells[1].metadata["coursework"]["role"] = "lesson"
    assert digest(source) != before
