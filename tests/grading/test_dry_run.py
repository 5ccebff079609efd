"""`coursework check-submission`: what grading will say, said at home."""

import ast
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coursework.cli import app
from coursework.grading import dry_run, service, stage
from coursework.grading.release import OF_GRADING
from coursework.grading.service import SandboxError
from tests.grading.test_grading import ROOT, SLICED, change_cell, tree_notebook

REFUSED = """
from coursework.score_matching import sliced_score_matching
def ssm_loss(score, x, v):
    return sliced_score_matching(score, x, v)
"""


def call(*arguments):
    return CliRunner().invoke(app, ["check-submission", *map(str, arguments)])


@pytest.fixture
def mixed(tmp_path) -> Path:
    """A notebook with one exercise of each outcome, a second copy of a cell, and a derivation below its prompt."""
    notebook = tree_notebook("solutions", SLICED)
    change_cell(notebook, "exercise", "3.1", "def quadratic_form(score, x, v):\n    return (score(x) * v).sum(1)\n")
    change_cell(notebook, "exercise", "3.2", "def hutchinson(matrices, probes):\n    raise NotAttempted\n")
    change_cell(notebook, "exercise", "3.4", REFUSED)
    (last,) = (c for c in notebook["cells"] if c["metadata"].get("coursework") == {"role": "exercise", "id": "3.6"})
    prompt = {"cell_type": "markdown", "source": "**Written derivation 3.3** Derive it.", "metadata": {}}
    notebook["cells"] += [last, prompt, {**prompt, "source": "By independence."}]
    path = tmp_path / "mine.ipynb"
    path.write_text(json.dumps(notebook))
    return path


def test_each_outcome_is_said(mixed, monkeypatch):
    monkeypatch.chdir(ROOT)
    result = call(mixed)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == SLICED.name
    assert lines[1].startswith("3.1   wrong: Case 1: expected ")
    assert lines[2].startswith("      This looks like a known mistake: this is v^T s, the value of the field")
    assert lines[3:5] == ["3.2   not attempted", "3.3   passed"]
    assert lines[5].startswith("3.4   refused: this calls coursework.score_matching.sliced_score_matching; ")
    assert lines[6:8] == ["3.5   passed", "3.6   passed"]
    assert lines[8].startswith("derivation 3.3: found, ")
    assert set(lines[9:-1]) == {
        "note: 3.6: 2 cells bear its mark; the last one counts",
        "note: derivation 3.3: its cell has lost its mark; what stands in its place counts",
    }
    assert lines[-1] == "3 of 6 passed"


def test_without_a_sandbox_it_says_so_and_goes_on(mixed, monkeypatch):
    def refuse(self, *hidden):
        raise SandboxError("grading needs Linux or macOS")

    monkeypatch.setattr(service.Sandbox, "__init__", refuse)
    lines = list(dry_run.check_file(mixed, [SLICED]))
    assert lines[0] == f"note: {dry_run.OPEN} (grading needs Linux or macOS)"
    assert lines[2].startswith("3.1   wrong: Case 1: expected ")
    assert lines[4] == "3.2   not attempted"
    assert lines[-1] == "3 of 6 passed"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "it cannot be read: No such file or directory"),
        (b"no notebook", "it is not a notebook"),
        (b'{"cells": []}', "it holds no lesson of this course"),
    ],
)
def test_a_file_that_cannot_be_graded_is_one_line_and_status_2(data, words, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    path = tmp_path / "mine.ipynb"
    if data is not None:
        path.write_bytes(data)
    result = call(path)
    assert result.exit_code == 2
    assert result.stderr == f"coursework: {path}: {words}\n"


def test_students_get_all_that_it_imports_and_no_rubric():
    needed, waiting = {"__init__"}, ["dry_run"]
    while waiting:
        name = waiting.pop()
        needed.add(name)
        waiting += imported(stage.PACKAGE / "grading" / f"{name}.py") - needed - {"sandboxed"}
    assert needed == set(OF_GRADING)
    assert "derivations" not in OF_GRADING


def test_the_sandbox_needs_nothing_of_our_side():
    for path in (stage.PACKAGE / "grading" / "sandboxed").glob("*.py"):
        assert imported(path) <= {"sandboxed"}, path.name


def imported(path):
    """The modules of grading that a file imports anywhere, "sandboxed" for those of that folder."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("coursework.grading"):
            inner = node.module.removeprefix("coursework.grading").lstrip(".").partition(".")[0]
            found |= {inner} if inner else {alias.name for alias in node.names}
    return found
