"""The lessons' imports: they work, and name only what the lock installs and a learner has with `coursework[course]`."""

import ast
import subprocess
import sys
from functools import cache
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.helpers import LESSONS, ROOT
from tests.helpers.needs import EXTRAS, PROJECT

LOCKED = {canonicalize_name(Requirement(line).name) for line in (ROOT / "requirements.lock").read_text().splitlines()}


def imports(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """The import statements of a lesson."""
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    nodes = [node for source in cells for node in ast.walk(ast.parse(source))]
    return [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]


def modules(path: Path) -> set[str]:
    """The top-level modules that a lesson imports, without Python's own and the course's."""
    names = set()
    for node in imports(path):
        names |= {node.module} if isinstance(node, ast.ImportFrom) else {alias.name for alias in node.names}
    return {name.partition(".")[0] for name in names} - {*sys.stdlib_module_names, "coursework"}


@cache
def learners() -> set[str]:
    """The packages that `pip install coursework[course]` brings, by what the installed ones require."""
    found: set[str] = set()
    waiting = [Requirement(line) for line in (*PROJECT["dependencies"], *EXTRAS["course"])]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        waiting += map(Requirement, requires(name) or [])
    return found


def test_what_learners_have_is_in_the_lock_and_has_jupyter():
    assert {"torch", "jupyterlab", "ipykernel"} <= learners() <= LOCKED
    assert not {"nbgrader", "pytest", "sphinx"} & learners()


@pytest.mark.parametrize("tree", ["solutions", "notebooks"])
@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_imports_what_learners_have(tree, lesson):
    for module in modules(ROOT / tree / f"{lesson}.ipynb"):
        [distribution] = {canonicalize_name(name) for name in packages_distributions()[module]}
        direct = {canonicalize_name(Requirement(line).name) for line in (*PROJECT["dependencies"], *EXTRAS["course"])}
        assert distribution in direct, f"{module}: the package does not ask for {distribution} itself"


def test_all_imports_of_all_lessons_work():
    lines = dict.fromkeys(
        ast.unparse(node) for lesson in LESSONS for node in imports(ROOT / f"solutions/{lesson}.ipynb")
    )
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
