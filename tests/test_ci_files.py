"""The workflow files for GitHub Actions and GitLab CI: their published schemas, and that what they call is there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from coursework.cli import app

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
GITLAB = ROOT / ".gitlab-ci.yml"
FILES = [*WORKFLOWS, GITLAB]
ON = True  # what YAML 1.1 reads the key `on` as


def load(path):
    return yaml.safe_load(path.read_text())


def commands(path):
    """The shell lines of a workflow file."""
    if path == GITLAB:
        return [line for job in load(path).values() for line in job.get("script", [])]
    steps = [step for job in load(path)["jobs"].values() for step in job["steps"]]
    return [line for step in steps for line in step.get("run", "").splitlines()]


def check_schema(name, *paths):
    """What check-jsonschema says with a schema that comes with it: nothing is fetched."""
    without_network = {**os.environ, "http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{name}", *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, env=without_network, check=False)


@pytest.mark.parametrize(("name", "paths"), [("github-workflows", WORKFLOWS), ("gitlab-ci", [GITLAB])])
def test_files_follow_their_schema(name, paths, tmp_path):
    done = check_schema(name, *paths)
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(paths[0].read_text().replace("timeout", "time-out"))
    assert check_schema(name, wrong).returncode == 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_commands_are_there(path):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    course = typer.main.get_command(app)
    for line in commands(path):
        program, *arguments = line.split()
        if program == "make":
            assert arguments[0] in targets, line
        elif program == ".venv/bin/coursework":
            course.commands[arguments[0]].make_context("run", arguments[1:])  # raises for an unknown option
        else:
            assert os.access(ROOT / program, os.X_OK), line


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_lesson_runs_and_reports_are_kept(path):
    text, lines = path.read_text(), commands(path)
    run = next(line for line in lines if " run " in line)
    assert "--tree both" in run
    for option in ("--junit", "--html"):
        assert run.split()[run.split().index(option) + 1].startswith("build/reports/")
    assert "--junitxml=build/reports/tests.xml" in text
    for folder in ("build/reports", "build/executed", "build/browser"):
        assert text.count(f"{folder}\n") == len(re.findall("build/executed\n", text))


def test_the_pythons_are_those_of_the_package():
    wanted = re.findall(r"3\.(\d+)", re.search(r'requires-python = "(.*)"', (ROOT / "pyproject.toml").read_text())[1])
    pythons = [f"3.{minor}" for minor in range(int(wanted[0]), int(wanted[1]))]
    assert load(ROOT / ".github/workflows/course.yml")["jobs"]["test"]["strategy"]["matrix"]["python"] == pythons
    assert load(GITLAB)["test"]["parallel"]["matrix"] == [{"PYTHON": pythons}]


def test_the_weekly_run_moves_every_pin_first():
    weekly = load(ROOT / ".github/workflows/newest.yml")
    assert re.fullmatch(r"\d+ \d+ \* \* [0-6]", weekly[ON]["schedule"][0]["cron"])
    for lines in (commands(ROOT / ".github/workflows/newest.yml"), load(GITLAB)["newest"]["script"]):
        assert lines[0] == "make lock UPGRADE=1"
        assert lines[1] == ".ci/run"
    assert load(GITLAB)["newest"]["rules"] == [{"if": '$CI_PIPELINE_SOURCE == "schedule"'}]
    assert load(GITLAB)["test"]["rules"] == [{"if": '$CI_PIPELINE_SOURCE != "schedule"'}]
