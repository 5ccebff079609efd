"""The style that `make lint` checks, over package, tests, tools and both lesson trees."""

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

pytestmark = pytest.mark.extra("dev")
ROOT = Path(__file__).parent.parent


def ruff(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Runs ruff in the course's root, with `text` for its standard input."""
    command = [sys.executable, "-m", "ruff", *arguments]
    return subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff(command):
    done = ruff(*command, ".")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("tree", ["solutions", "notebooks"])
def test_lessons_are_held_to_100_columns_and_the_same_rules(tree):
    wide = "xs = [" + ", ".join(["1000"] * 16) + "]"  # 101 characters
    cells = [{"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None, "source": wide}]
    text = json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    place = ("--stdin-filename", f"{tree}/99_new.ipynb", "-")
    assert "E501" in ruff("check", *place, text=text).stdout
    assert ruff("format", "--check", *place, text=text).returncode == 1


def test_lessons_import_nothing_that_neither_answers_nor_learners_use():
    done = ruff("check", "--isolated", "--select", "F401", "--output-format", "json", "solutions", "notebooks")
    unused: dict[str, list[set[str]]] = defaultdict(list)
    for tree in ("solutions", "notebooks"):
        found = defaultdict(set)
        for fault in json.loads(done.stdout):
            path = Path(fault["filename"])
            if path.parent.name == tree:
                found[path.name].add(fault["message"].split("`")[1])
        for lesson in (ROOT / tree).glob("[0-9][0-9]_*.ipynb"):
            unused[lesson.name].append(found[lesson.name])
    for lesson, trees in unused.items():
        in_both = set.intersection(*trees)
        assert all(name.startswith("coursework.exercises.") for name in in_both), f"{lesson}: {in_both}"
