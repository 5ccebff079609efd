"""The lessons themselves: the worked one runs, passes its checks, and each has what a learner expects."""

import ast
import os
import re
import subprocess
import sys

import nbformat
import pytest

from coursework.course import executing
from coursework.exercises.exercise import lesson_exercises
from tests.helpers import LESSONS, ROOT

TIMEOUT = 300  # seconds that a cell may take; a dead kernel is noticed after it

every_lesson = pytest.mark.parametrize("name", LESSONS)


def load(tree, name):
    return nbformat.read(ROOT / tree / f"{name}.ipynb", as_version=4)


def exercises(name):
    return lesson_exercises(int(name[:2]))


def displayed(cell):
    return "".join(executing.texts(nbformat.from_dict({"cells": [cell]})))


@pytest.mark.lessons
@every_lesson
def test_worked_lesson_runs_passes_its_checks_and_repeats_its_stored_outputs(name):
    """nbval, in grading mode: a check of the worked lesson that does not pass raises."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-W", "default", "--nbval-lax"]
    options = ["--nbval-current-env", f"--nbval-cell-timeout={TIMEOUT}", "-x", f"solutions/{name}.ipynb"]
    grading = {"COURSEWORK_GRADING": "1", "COURSEWORK_GRADING_SEED": "11"}
    done = subprocess.run(
        [*command, *options], cwd=ROOT, env={**os.environ, **grading}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@every_lesson
def test_stored_outputs_are_complete(name):
    for cell in load("solutions", name).cells:
        if cell.cell_type != "code":
            continue
        assert not [o for o in cell.outputs if o.output_type == "error"], cell.id
        if "nbval-check-output" in cell.metadata.get("tags", []):
            assert cell.outputs, f"{cell.id}: marked for comparison and nothing is stored; run make outputs"
        if cell.metadata["coursework"]["role"] == "check":
            assert displayed(cell).splitlines()[0].endswith(": passed"), cell.id


@every_lesson
def test_pictures_have_an_alternative_text(name):
    for cell in load("solutions", name).cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                assert len(output.metadata["image/png"]["alt"]) > 30, cell.id


@every_lesson
def test_worked_lesson_stays_small(name):
    assert (ROOT / "solutions" / f"{name}.ipynb").stat().st_size < 1_500_000


@every_lesson
def test_lesson_has_its_parts(name):
    notebook = load("solutions", name)
    head, text = notebook.cells[0].source, "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    code = [c for c in notebook.cells if c.cell_type == "code"]
    for part in ("**What this lesson answers:**", "**Objectives.**", "**Prerequisites:**", "**Time:**", "Next: "):
        assert part in head
    for part in ("## What to remember", "**Common mistakes:**", "**References", "**Next:**"):
        assert part in text
    assert code[0].metadata["tags"] == ["parameters"]
    assert sum("Explorer(" in c.source for c in code) == 1
    if int(name[:2]) > 0:
        assert len(exercises(name)) >= 5
        assert "spot the bug" in text


@every_lesson
def test_the_number_of_threads_is_decided_in_one_place(name):
    """`pick_device` decides it: the lesson calls it before it computes anything, and changes it nowhere."""
    code = [c.source for c in load("solutions", name).cells if c.cell_type == "code"]
    assert "pick_device(device)" in code[1]
    assert not [source for source in code if "num_threads" in source]


@every_lesson
def test_links_lead_somewhere(name):
    text = "\n".join(c.source for c in load("notebooks", name).cells if c.cell_type == "markdown")
    for target, anchor in re.findall(r"\]\(([\w.]+\.ipynb)?(#[^)]*)?\)", text):
        page = load("notebooks", target.removesuffix(".ipynb") or name)
        if anchor:
            headings = [
                h.replace(" ", "-") for c in page.cells for h in re.findall(r"^#+ (.*)$", c.source, re.MULTILINE)
            ]
            assert anchor[1:] in headings, f"{target}{anchor}"


@every_lesson
def test_words_of_a_lesson_are_in_the_glossary(name):
    text = "\n".join(c.source for c in load("notebooks", name).cells if c.cell_type == "markdown")
    glossary = "".join(c.source for c in load("notebooks", LESSONS[0]).cells if "## Glossary" in c.source)
    known = set(re.findall(r"[\w-]+", glossary.partition("## Glossary")[2].lower()))
    for words in re.findall(r"\*\*Words of this lesson\*\*[^:]*: (.*)\.", text):
        missing = [
            word for word in words.split(", ") if not set(re.findall(r"[\w-]+", word.lower())) - {"and"} <= known
        ]
        assert missing == []


def stored_names(nodes):
    """Names that these statements bind at the top level; what functions bind is their own."""
    own = (ast.FunctionDef, ast.ClassDef, ast.Lambda)
    for node in nodes:
        if isinstance(node, own[:2]):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif not isinstance(node, own):
            yield from stored_names(ast.iter_child_nodes(node))


@every_lesson
def test_later_cells_leave_alone_what_the_explorer_draws_with(name):
    """Its sliders are moved after the whole lesson has run: no name that it reads may mean something else by then."""
    cells = [c.source for c in load("notebooks", name).cells if c.cell_type == "code"]
    at = next(i for i, source in enumerate(cells) if "Explorer(" in source)
    functions = {n.name: n for source in cells[: at + 1] for n in ast.parse(source).body if hasattr(n, "args")}
    reads, waiting = set(), [n.name for n in ast.parse(cells[at]).body if isinstance(n, ast.FunctionDef)]
    while waiting:
        nodes = list(ast.walk(functions[waiting.pop()]))
        own = {n.arg for n in nodes if isinstance(n, ast.arg)}
        own |= {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        names = {n.id for n in nodes if isinstance(n, ast.Name)} - own - reads
        reads |= names
        waiting += [n for n in names if n in functions]
    later = {n for source in cells[at + 1 :] for n in stored_names(ast.parse(source).body)}
    assert reads & later == set()


@every_lesson
def test_every_name_is_defined_above_its_use(name):
    """Learners run cells in order: whatever a cell uses is defined above it (ruff finds the names that are not)."""
    path = ROOT / "notebooks" / f"{name}.ipynb"
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--select", "F821,F823", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
