"""Grading by Dask's distributed scheduler, started as its documentation says: three workers, one of them killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from coursework.cli import app
from coursework.grading import finding
from coursework.grading.classroom import Task, grade_here, open_tasks
from coursework.grading.cluster import grade_on_worker
from coursework.grading.grader import Rules
from coursework.grading.records import Records
from coursework.grading.service import SandboxError
from tests.grading.test_grading import LESSONS, ROOT, SLICED, change_cell, rows, tree_notebook, without_seconds

pytestmark = pytest.mark.extra("instructor")

N_STUDENTS = 12


@pytest.fixture
def school(tmp_path):
    """Submissions of lesson 03 by learners who each have another exercise wrong."""
    folder = tmp_path / "submissions"
    for number in range(N_STUDENTS):
        notebook, wrong = tree_notebook("solutions", SLICED), list(SLICED.functions)[number % 6]
        name = SLICED.functions[wrong]
        change_cell(notebook, "exercise", wrong, f"def {name}(*args):\n    return args[1].sum() * {number + 2}\n")
        path = folder / f"student{number:02d}" / f"{SLICED.name}.ipynb"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(notebook))
    return folder


@pytest.fixture
def cluster(tmp_path):
    """`dask scheduler` and three `dask worker`s as processes; their address and the workers."""
    file = tmp_path / "scheduler.json"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    options = ["--scheduler-file", str(file), "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    processes = [subprocess.Popen([*command, *options], **quiet)]
    try:
        deadline = time.monotonic() + 120
        while not file.exists():
            assert time.monotonic() < deadline
            time.sleep(0.2)
        worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(file), "--no-dashboard"]
        places = ["--nthreads", "1", "--no-nanny", "--host", "127.0.0.1", "--local-directory", str(tmp_path)]
        processes += [subprocess.Popen([*worker, *places], **quiet) for _ in range(3)]
        yield json.loads(file.read_text())["address"], processes[1:]
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()


def test_three_workers_of_which_one_is_killed_grade_like_one_process(school, cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    address, workers = cluster
    command = [sys.executable, "-m", "coursework", "grade", str(school), "--lesson", "3"]
    options = ["--out", str(tmp_path / "spread"), "--scheduler", address]
    with subprocess.Popen([*command, *options], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        lines = [process.stdout.readline() for _ in range(2)]
        family = psutil.Process(workers[0].pid).children(recursive=True)
        workers[0].send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
        assert process.wait() == 0
    _, left = psutil.wait_procs(family, timeout=30)
    assert left == []
    graded = [line.partition(":")[0] for line in lines if " passed" in line]
    assert sorted(graded) == [f"student{number:02d}/{SLICED.name}" for number in range(N_STUDENTS)]
    records = Records(tmp_path / "serial")
    (tmp_path / "serial").mkdir()
    (tmp_path / "serial" / "grading.json").write_bytes((tmp_path / "spread" / "grading.json").read_bytes())
    result = CliRunner().invoke(app, ["grade", str(school), "--lesson", "3", "--out", str(records.folder)])
    assert result.exit_code == 0, result.output
    for name in ("marks.csv", "totals.csv"):
        compare = without_seconds if name == "marks.csv" else rows
        assert compare(tmp_path / "spread" / name) == compare(records.folder / name)
    assert [row[1] for row in rows(records.folder / "totals.csv")[1:]] == ["5"] * N_STUDENTS


def test_an_address_where_no_scheduler_answers_is_refused(school, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("coursework.grading.cluster.CONNECT_SECONDS", 1)
    options = ["--out", str(tmp_path / "out"), "--lesson", "3", "--scheduler", "tcp://127.0.0.1:9"]
    result = CliRunner().invoke(app, ["grade", str(school), *options])
    assert result.exit_code == 2
    assert "127.0.0.1:9" in result.stderr


def test_a_worker_with_another_version_of_the_course_says_so(school, tmp_path):
    submissions = finding.find_submissions(school, LESSONS).submissions
    task = next(iter(open_tasks(submissions[:1], LESSONS, Rules("x"), Records(tmp_path / "out"))))
    other = Task(task.submission, task.lesson, task.handed_in, task.digest, "another")
    with pytest.raises(SandboxError, match="another version of the course"):
        grade_on_worker(other, Rules("x"))


def test_jobs_on_one_machine_grade_like_one(school, tmp_path):
    submissions = finding.find_submissions(school, LESSONS).submissions
    rules, found = Rules("x"), {}
    for jobs in (1, 3):
        tasks = open_tasks(submissions[:6], LESSONS, rules, Records(tmp_path / "out"))
        records = sorted(grade_here(tasks, rules, jobs), key=lambda record: record.submission.key)
        found[jobs] = [[(m.exercise, m.outcome, m.message, m.misconception) for m in r.marks] for r in records]
    assert found[1] == found[3]
    assert len(found[1]) == 6
    assert os.environ.get("COURSEWORK_GRADING_SEED") is None
    assert Path(tmp_path / "out").exists() is False
