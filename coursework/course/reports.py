"""Reports of a headless run: JUnit's XML for CI servers, and a summary page that links every executed lesson.

They are written before the first lesson and again after each one, so that they are complete whenever the run ends.
"""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

from coursework._files import check_folder, write_atomically
from coursework.course.running import Outcome, Task

NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
NOT_RUN = "not run"
MATHJAX = "tex-svg.js"  # with its glyphs inside; the pages of the lessons look for it in the folder above


class ReportError(ValueError):
    """A report cannot be written; the message is one line that says why."""


class Reports:
    """The reports of one run, each only where a path is given.

    `junit` is a file; `html` a folder that gets index.html, beside the pages of the lessons, TREE/LESSON.html.

    Raises ReportError if a path cannot be written to, or what makes the pages is not installed.
    """

    def __init__(self, tasks: Sequence[Task], junit: Path | None = None, html: Path | None = None) -> None:
        self._tasks, self._junit, self._html = tasks, junit, html
        self._started = time.strftime("%Y-%m-%dT%H:%M:%S")
        if junit is not None and junit.suffix != ".xml":
            raise ReportError(f"--junit: expected a .xml, got {junit}")
        try:
            if html is not None:
                put_mathjax(html)
                for folder in {task.page.parent for task in tasks if task.page}:
                    check_folder(folder)
        except ImportError as error:
            raise ReportError(f"--html needs {error.name}: pip install {error.name}") from None
        except OSError as error:
            raise ReportError(f"cannot write the report {error.filename}: {error.strerror}") from None
        problem = self.write([])
        if problem:
            raise ReportError(problem)

    def write(self, outcomes: Sequence[Outcome]) -> str:
        """Writes the reports; lessons without an outcome count as not run.

        Returns why one cannot be written, in one line, or "". It is absent then, rather than of an earlier state.
        """
        problems = []
        if self._junit is not None:
            problems.append(put(self._junit, junit_xml(self._tasks, outcomes, self._started)))
        if self._html is not None:
            page = summary_page(self._tasks, outcomes, self._started).encode("utf-8", "backslashreplace")
            problems.append(put(self._html / "index.html", page))
        return next(filter(None, problems), "")


def put(path: Path, content: bytes) -> str:
    """Writes a report and returns "". Where that fails the report is removed, and the reason returned."""
    for _ in range(2):  # what is removed may be the room that was lacking
        try:
            write_atomically(path, content)
            return ""
        except OSError as error:
            problem = f"cannot write the report {error.filename}: {error.strerror}"
            with suppress(OSError):
                path.unlink()
    return problem


def put_mathjax(folder: Path) -> None:
    """Puts MathJax where the pages of this folder's subfolders look for it.

    Raises ImportError where it is not installed.
    """
    try:
        package = distribution("sphinx-mathjax-offline")
    except PackageNotFoundError as error:
        raise ImportError(name=error.name) from None
    path = Path(str(package.locate_file(f"sphinx-mathjax-offline/static/mathjax/{MATHJAX}")))
    write_atomically(folder / MATHJAX, path.read_bytes())


def link(task: Task) -> str:
    """Where a lesson's page is, seen from the summary."""
    return quote(os.fsencode(f"{task.tree}/{task.name}.html"))


def by_task(tasks: Sequence[Task], outcomes: Sequence[Outcome]) -> list[tuple[Task, Outcome | None]]:
    """Returns every task with its outcome; None where it was not run."""
    found = {(o.task.tree, o.task.name): o for o in outcomes}
    return [(task, found.get((task.tree, task.name))) for task in tasks]


def junit_xml(tasks: Sequence[Task], outcomes: Sequence[Outcome], started: str) -> bytes:
    """Returns the report as JUnit's XML: a test suite for each tree, a test case for each lesson."""
    rows = by_task(tasks, outcomes)
    root = ElementTree.Element("testsuites", {"name": "lessons", **counts(rows)})
    for tree in dict.fromkeys(task.tree for task in tasks):
        own = [row for row in rows if row[0].tree == tree]
        suite = ElementTree.SubElement(root, "testsuite", {"name": tree, "timestamp": started, **counts(own)})
        for task, outcome in own:
            add_case(suite, task, outcome)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def counts(rows: Sequence[tuple[Task, Outcome | None]]) -> dict[str, str]:
    """Returns the attributes that count test cases."""
    done = [outcome for _, outcome in rows if outcome]
    numbers = {"tests": len(rows), "failures": sum(o.status == "failed" for o in done), "errors": 0}
    numbers |= {"skipped": len(rows) - len(done), "time": f"{sum(o.seconds for o in done):.3f}"}
    return {name: str(number) for name, number in numbers.items()}


def add_case(suite: ElementTree.Element, task: Task, outcome: Outcome | None) -> None:
    """Adds the test case of one lesson."""
    names = {"classname": task.tree, "name": task.name, "file": f"{task.tree}/{task.source.name}"}
    names = {name: in_xml(value) for name, value in names.items()}
    time = f"{outcome.seconds if outcome else 0:.3f}"
    case = ElementTree.SubElement(suite, "testcase", {**names, "time": time})
    if outcome is None:
        ElementTree.SubElement(case, "skipped", message=NOT_RUN)
    elif outcome.error:
        failure = ElementTree.SubElement(case, "failure", message=in_xml(outcome.error))
        failure.text = in_xml(outcome.details or outcome.error)


def in_xml(text: str) -> str:
    """Returns a text as XML can hold it."""
    return NOT_IN_XML.sub("�", text)


def summary_page(tasks: Sequence[Task], outcomes: Sequence[Outcome], started: str) -> str:
    """Returns the summary as a page: a row for each lesson, in the order of the tasks."""
    from jinja2 import Environment

    rows = [
        (task, outcome, link(task) if outcome and task.page and task.page.exists() else "")
        for task, outcome in by_task(tasks, outcomes)
    ]
    failed, not_run = sum(bool(o.error) for o in outcomes), len(tasks) - len(outcomes)
    system = f"Python {platform.python_version()}, torch {version('torch')}, {platform.system()} {platform.machine()}"
    numbers = {"n_ok": len(outcomes) - failed, "n_failed": failed, "n_not_run": not_run}
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(SUMMARY)
    return template.render(rows=rows, started=started.replace("T", " "), system=system, not_run=NOT_RUN, **numbers)


SUMMARY = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Lessons: {{ n_ok }} ok, {{ n_failed }} failed{% if n_not_run %}, {{ n_not_run }} not run{% endif %}</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 0.3rem 0.8rem 0.3rem 0; border-bottom: 1px solid #8886; }
td.number, th.number { text-align: right; }
.failed { font-weight: bold; border-left: 0.4rem solid #d55e00; padding-left: 0.4rem; }
pre { overflow-x: auto; background: #8882; padding: 0.6rem; }
</style>
</head>
<body>
<h1>Lessons</h1>
<p>{{ n_ok }} ok, {{ n_failed }} failed, {{ n_not_run }} not run. Started {{ started }}; {{ system }}.</p>
<div class="wide">
<table>
<thead><tr><th>tree</th><th>lesson</th><th>outcome</th><th class="number">seconds</th>
<th class="number">checks passed</th><th class="number">not attempted</th><th class="number">wrong</th></tr></thead>
<tbody>
{% for task, outcome, page in rows %}
<tr>
<td>{{ task.tree }}</td>
<td>{% if page %}<a href="{{ page }}">{{ task.name }}</a>{% else %}{{ task.name }}{% endif %}</td>
{% if outcome %}
<td><span class="{{ outcome.status }}">{{ outcome.status }}</span>
{% if outcome.error %}
<details><summary>{{ outcome.error }}</summary><pre>{{ outcome.details or outcome.error }}</pre></details>
{% endif %}
</td>
<td class="number">{{ "%.1f" | format(outcome.seconds) }}</td>
<td class="number">{{ outcome.passed }}</td>
<td class="number">{{ outcome.not_attempted }}</td>
<td class="number">{{ outcome.wrong }}</td>
{% else %}
<td>{{ not_run }}</td><td></td><td></td><td></td><td></td>
{% endif %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
</body>
</html>
"""
