"""What the package says of itself, what it brings along, and the hooks of those who work on it."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from setuptools import find_namespace_packages

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
ALL = [*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)]
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]


def shipped() -> set[Path]:
    """The files of the package that pip installs."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = find_namespace_packages(str(ROOT), include=settings["packages"]["find"]["include"])
    modules = [path for name in packages for path in (ROOT / name.replace(".", "/")).glob("*.py")]
    data = settings["package-data"]
    return {*modules, *(path for name in data for pattern in data[name] for path in (ROOT / name).glob(pattern))}


def test_every_file_of_the_package_is_shipped_also_what_announces_its_types():
    there = {path for path in (ROOT / "coursework").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert there - shipped() == set()
    assert ROOT / "coursework/py.typed" in shipped()


def test_the_changelog_begins_with_this_version():
    heading = re.search(r"^## \[(.*?)\](?: - (.*))?$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heading[1] in ("Unreleased", PROJECT["version"])
    assert f"## [{PROJECT['version']}] - 20" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("line", ALL)
def test_every_dependency_has_a_lower_bound_and_no_pin(line):
    requirement = Requirement(line)
    operators = {bound.operator for bound in requirement.specifier}
    assert requirement.name == PROJECT["name"] or (">=" in operators and operators <= {">=", "<"})


def test_the_package_alone_brings_no_jupyter():
    names = {Requirement(line).name for line in PROJECT["dependencies"]}
    assert not names & {Requirement(line).name for extra in EXTRAS.values() for line in extra}
    assert not any(re.match("jupyter|nb|ipy", name) for name in names)


# .pre-commit-config.yaml


@pytest.mark.extra("dev")
def test_pre_commit_takes_the_file():
    command = [sys.executable, "-m", "pre_commit", "validate-config", str(ROOT / ".pre-commit-config.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_hooks_need_nothing_from_outside_and_do_what_make_lint_does():
    [local] = HOOKS
    assert local["repo"] == "local"
    assert {hook["language"] for hook in local["hooks"]} == {"system"}
    entries = {hook["entry"].removesuffix(" --force-exclude") for hook in local["hooks"]}
    lint = re.search(r"^lint: .*\n((?:\t.*\n)*)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    lint = lint.replace("$(BIN)", ".venv/bin").replace("--check .", "").replace("check .", "check")
    commands = {command.strip(" \t@") for line in lint.splitlines() for command in line.split("&&")}
    assert entries == {*commands, ".venv/bin/coursework publish --check"}


@pytest.mark.extra("dev")
@pytest.mark.parametrize("hook", [hook for hook in HOOKS[0]["hooks"] if "ruff" in hook["id"]], ids=lambda h: h["id"])
def test_the_hooks_of_ruff_find_what_is_wrong(hook, tmp_path):
    command = hook["entry"].replace(".venv/bin/ruff", f"{sys.executable} -m ruff").split()
    good, bad = tmp_path / "good.py", tmp_path / "bad.py"
    good.write_text("x = 1\n")
    bad.write_text("import os\nx=1\n")
    assert subprocess.run([*command, "--config", ROOT / "pyproject.toml", good], check=False).returncode == 0
    done = subprocess.run([*command, "--config", ROOT / "pyproject.toml", bad], capture_output=True, check=False)
    assert done.returncode == 1 or bad.read_text() != "import os\nx=1\n"  # pre-commit fails where files change
