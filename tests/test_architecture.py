"""The house as DESIGN has it: imports point one way, no circle, and no file uses another's private names."""

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.helpers import ROOT

BENEATH = ("_arguments", "_files", "_loops")  # what every module may use
SUBJECTS = """
distributions score_matching predictions langevin ncsn sdes reverse_sde probability_flow likelihood guidance ddpm
inverse_problems measurements fast_solvers preconditioning averaging flow_matching flow_maps latents discrete
generalization steering beyond_images challenge
""".split()  # noqa: SIM905
# From what nothing of the course is known to the command, which may use all: a room uses only rooms above it here.
ORDER = [
    ("_arguments", "_files", "extras"),
    (*SUBJECTS, "_loops"),
    ("nn", "data", "metrics", "devices"),
    ("plots", "progress"),
    ("widgets", "evidence", "models"),
    ("exercises",),
    ("course",),
    ("grading",),
    ("cli",),
    ("__main__",),
]
NOT_FOR_SUBJECTS = ("matplotlib", "seaborn", "ipywidgets", "anywidget", "IPython", "accelerate", "torchvision")


def name_of(path: Path) -> str:
    """The module's dotted name."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in (ROOT / "coursework").rglob("*.py")}


def room(module: str) -> str:
    """What stands first in the package: "sdes", "grading"."""
    return module.split(".")[1] if "." in module else ""


def imports(tree: ast.AST) -> list[tuple[str, str]]:
    """What a module imports when it runs, in functions too: a module's name, and the name out of it or ""."""
    found = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.append((whole, "") if whole in MODULES else (node.module, alias.name))
        found += imports(node)
    return found


@cache
def imported(module: str) -> list[tuple[str, str]]:
    """What a module of the package imports."""
    return imports(ast.parse(MODULES[module].read_text(encoding="utf-8")))


def inside(module: str) -> set[str]:
    """The modules of the package that a module imports."""
    return {name for name, _ in imported(module) if name in MODULES} - {module}


def test_no_circle():
    try:
        TopologicalSorter({module: inside(module) for module in MODULES}).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_every_room_has_its_place():
    known = {name for rooms in ORDER for name in rooms}
    assert {room(module) for module in MODULES} - {""} <= known


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_one_way(module):
    place = {name: i for i, rooms in enumerate(ORDER) for name in rooms}
    for other in inside(module) - {"coursework"}:
        later = place[room(other)] > place.get(room(module), len(ORDER))
        between = place[room(other)] == place.get(room(module)) and room(other) != room(module)
        assert not later, f"{module} imports {other}"
        assert not between or room(module) in (*SUBJECTS, *BENEATH, "metrics"), f"{module} imports {other}"


@pytest.mark.parametrize("module", [name for name in MODULES if room(name) in SUBJECTS])
def test_subjects_run_on_bare_callables(module):
    """No network, no picture, no widget, no data: a solver is used with somebody else's."""
    foreign = {name.split(".")[0] for name, _ in imported(module)}
    assert foreign & {*NOT_FOR_SUBJECTS} == set()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_what_is_private_stays_in_its_file(module):
    """A name with an underscore is for its own file; only three modules beneath all others are named with one."""
    modules = {name.split(".")[-1] for name, _ in imported(module) if name in MODULES}
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    used = [f"{name}.{part}" for name, part in imported(module) if name in MODULES and is_private(part)]
    used += [name for name in inside(module) if any(is_private(part) for part in name.split(".")[1:])]
    used += [
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if node.value.id in modules and is_private(node.attr)
    ]
    assert used == []


def is_private(name: str) -> bool:
    """Whether a name is for its own file."""
    return name.startswith("_") and not name.startswith("__") and name not in BENEATH
