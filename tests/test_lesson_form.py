"""The form of a lesson: code that is read and imitated, plumbing that is folded, evidence in numbers."""

import ast
import re

import nbformat
import pytest

from tests.helpers import LESSONS, ROOT, small_lessons

# Two parts of lesson 00 grow with every lesson and are looked up, not read: the table of lessons and the glossary.
LOOKED_UP = re.compile(
    r"<!-- begin lessons -->.*?<!-- end lessons -->|^## Glossary\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE
)
LONGEST_CELL, VISIBLE, FOLDED, WORDS, NUTSHELL = 25, 200, 200, 2_500, 150

every_lesson = pytest.mark.parametrize("name", LESSONS)


def cells(name, kind):
    return [c for c in nbformat.read(ROOT / "solutions" / f"{name}.ipynb", as_version=4).cells if c.cell_type == kind]


def is_folded(cell):
    return bool(cell.metadata.get("jupyter", {}).get("source_hidden"))


def length(cell):
    """Lines of code; empty ones and comments are none."""
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in cell.source.splitlines())


@every_lesson
def test_the_code_can_be_read(name):
    code = cells(name, "code")
    assert {cell.id: length(cell) for cell in code if not is_folded(cell) and length(cell) > LONGEST_CELL} == {}
    assert sum(length(cell) for cell in code if not is_folded(cell)) <= VISIBLE
    assert sum(length(cell) for cell in code if is_folded(cell)) <= FOLDED


@every_lesson
def test_the_site_folds_what_jupyter_folds(name):
    """JupyterLab folds by `source_hidden`, the website by its tag."""
    for cell in cells(name, "code"):
        assert is_folded(cell) == ("hide-input" in cell.metadata.get("tags", [])), cell.id


@every_lesson
def test_text_has_its_length_and_the_nutshell_no_formula(name):
    text = "\n".join(cell.source for cell in cells(name, "markdown"))
    assert len(LOOKED_UP.sub("", text).split()) <= WORDS
    nutshell = re.search(r"^## In a nutshell\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)[1]
    assert len(nutshell.split()) <= NUTSHELL
    assert "$" not in nutshell


@every_lesson
def test_evidence_is_numbers(name):
    code = cells(name, "code")
    calls = re.findall(r"^ *(?:agree|differ|mean_agrees)\(", "\n".join(c.source for c in code), re.MULTILINE)
    assert len(calls) >= 4
    printed = [o.get("text", "") for c in code for o in c.outputs if o.output_type == "stream"]
    assert [text for text in printed if re.search(r"\b(True|False)\b", text)] == []


def dense(node):
    """What nobody should imitate: calls joined by commas, a lambda in a lambda, arithmetic in a printed text."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Tuple):
        return "statements joined by commas"
    if isinstance(node, ast.Lambda) and any(isinstance(n, ast.Lambda) for n in ast.walk(node.body)):
        return "a lambda in a lambda"
    if isinstance(node, ast.FormattedValue) and any(isinstance(n, ast.BinOp) for n in ast.walk(node.value)):
        return "arithmetic in an f-string"
    if isinstance(node, ast.For) and isinstance(node.target, ast.Tuple):
        nested = any(isinstance(n, ast.Tuple) for n in node.target.elts)
        rows = isinstance(node.iter, ast.Tuple) and any(isinstance(n, ast.Tuple) for n in node.iter.elts)
        if rows and (nested or len(node.target.elts) > 3):
            return "a loop over a table of anonymous columns"
    return None


@every_lesson
def test_visible_code_is_plain(name):
    found = [
        (cell.id, dense(node), ast.unparse(node))
        for cell in cells(name, "code")
        if not is_folded(cell)
        for statement in small_lessons.statements(cell.source)
        for node in ast.walk(statement)
        if dense(node)
    ]
    assert found == []
