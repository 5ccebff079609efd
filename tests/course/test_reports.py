"""Reports of a run, read back: JUnit's XML, the summary page and the lessons' pages."""

import base64
import errno
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
from nbformat import v4

from coursework.course import pages, reports
from coursework.course.reports import ReportError, Reports, junit_xml, summary_page
from coursework.course.running import Outcome, Task

STARTED = "2030-01-02T03:04:05"
PIXEL = base64.b64encode(b"\x89PNG a picture").decode()


@pytest.fixture
def tasks(tmp_path):
    """Three lessons, the first two of which have left a page."""
    pages = tmp_path / "pages"
    tasks = [
        Task(tmp_path / t / f"{n}.ipynb", tmp_path / "out" / t / f"{n}.ipynb", {}, 300, page=pages / t / f"{n}.html")
        for t, n in [("notebooks", "01_a"), ("notebooks", "02_b"), ("solutions", "01_a")]
    ]
    for task in tasks[:2]:
        task.page.parent.mkdir(parents=True, exist_ok=True)
        task.page.touch()
    return tasks


def outcomes_of(tasks):
    """The first lesson is fine, the second failed with text that is neither HTML nor XML; the third has not run."""
    bad = Outcome(
        tasks[1], 2.5, "cell [2]: ValueError: 1 < 2 & \x1b[0m\x00", "cell [2]:\nif a < b:\n\x07</script>\nValueError"
    )
    return [bad, Outcome(tasks[0], 1.25, passed=3, not_attempted=1)]  # in the order in which they came


def test_junit_has_a_suite_a_tree_and_a_case_a_lesson(tasks):
    root = ElementTree.fromstring(junit_xml(tasks, outcomes_of(tasks), STARTED))
    totals = {"tests": "3", "failures": "1", "errors": "0", "skipped": "1", "time": "3.750"}
    assert root.attrib == {"name": "lessons", **totals}
    assert [suite.attrib for suite in root] == [
        {"name": "notebooks", "timestamp": STARTED, **totals, "tests": "2", "skipped": "0"},
        {"name": "solutions", "timestamp": STARTED, **totals, "tests": "1", "failures": "0", "time": "0.000"},
    ]
    first, second, third = root.iter("testcase")
    assert first.attrib == {"classname": "notebooks", "name": "01_a", "file": "notebooks/01_a.ipynb", "time": "1.250"}
    assert [list(case) for case in (first,)] == [[]]
    assert second[0].tag == "failure"
    assert second[0].get("message") == "cell [2]: ValueError: 1 < 2 & �[0m�"
    assert second[0].text == "cell [2]:\nif a < b:\n�</script>\nValueError"
    assert (third[0].tag, third[0].attrib) == ("skipped", {"message": "not run"})


class Rows(HTMLParser):
    """The rows of a page's table: the text of each cell, and the links."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows, self.links = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "a":
            self.links.append(dict(attrs)["href"])

    def handle_data(self, data):
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] = (self.rows[-1][-1] + data).strip()


def test_the_summary_has_a_row_a_lesson(tasks):
    page = summary_page(tasks, outcomes_of(tasks), STARTED)
    table = Rows(page)
    assert table.links == ["notebooks/01_a.html", "notebooks/02_b.html"]
    assert table.rows[0] == ["tree", "lesson", "outcome", "seconds", "checks passed", "not attempted", "wrong"]
    assert table.rows[1] == ["notebooks", "01_a", "ok", "1.2", "3", "1", "0"]
    assert table.rows[2][:2] + table.rows[2][3:] == ["notebooks", "02_b", "2.5", "0", "0", "0"]
    assert "failed" in table.rows[2][2]
    assert "1 < 2 &" in table.rows[2][2]
    assert table.rows[3] == ["solutions", "01_a", "not run", "", "", "", ""]
    assert "1 ok, 1 failed, 1 not run. Started 2030-01-02 03:04:05; Python 3." in page
    assert "</script>" not in page


def addresses(page: str) -> set[str]:
    """What a page loads or links to, its own anchors aside."""
    return {a for a in re.findall(r'(?:src|href)="([^"]*)"', page) if not a.startswith(("#", "data:"))}


def test_reports_follow_the_run_and_read_without_internet(tasks, tmp_path):
    junit, html = tmp_path / "new" / "report.xml", tmp_path / "pages"
    reports = Reports(tasks, junit, html)
    assert ElementTree.parse(junit).getroot().get("skipped") == "3"
    assert "0 ok, 0 failed, 3 not run" in (html / "index.html").read_text()
    done = outcomes_of(tasks)
    for n in (1, 2):
        assert reports.write(done[:n]) == ""
        assert ElementTree.parse(junit).getroot().get("skipped") == str(3 - n)
        assert len(Rows((html / "index.html").read_text()).links) == n
    pages.write(tasks[0].page, v4.new_notebook(cells=[v4.new_markdown_cell("# 01")]))
    for path in html.rglob("*.html"):
        assert [a for a in addresses(path.read_text()) if not (path.parent / a).is_file()] == []
    assert addresses((html / "notebooks" / "01_a.html").read_text()) == {"../tex-svg.js"}


def test_a_page_shows_pictures_widgets_as_pictures_and_links_pages(tmp_path):
    data = {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}, "image/png": PIXEL, "text/plain": "Explorer"}
    outputs = [
        v4.new_output("display_data", data, metadata={"image/png": {"alt": "a curve"}}),
        v4.new_output("error", ename="ValueError", evalue="no", traceback=["\x1b[31mValueError\x1b[0m: no"]),
    ]
    text = v4.new_markdown_cell("See [two](02_b.ipynb#3.-Why) and [docs](https://example.org/x.ipynb): $\\alpha_t < 1$")
    notebook = v4.new_notebook(cells=[text, v4.new_code_cell("draw('$x$')", outputs=outputs)])
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    page = pages.page(notebook, "01_a")
    assert f'src="data:image/png;base64,{PIXEL}"' in page.replace("\n", "")
    assert 'alt="a curve"' in page
    assert 'href="02_b.html#3.-Why"' in page
    assert "https://example.org/x.ipynb" in page
    assert "<title>01_a</title>" in page
    assert "ansi-red-fg" in page
    assert addresses(page) == {"../tex-svg.js", "02_b.html#3.-Why", "https://example.org/x.ipynb"}
    assert "model_id" not in page


def test_a_page_is_written_whole_whatever_a_cell_printed(tmp_path):
    cell = v4.new_code_cell("", outputs=[v4.new_output("stream", name="stdout", text="half \ud800 of a pair")])
    pages.write(tmp_path / "new" / "01_a.html", v4.new_notebook(cells=[cell]))
    page = (tmp_path / "new" / "01_a.html").read_text()
    assert "half \\ud800 of a pair" in page
    assert page.endswith("</html>\n")


def test_names_of_any_bytes_are_in_every_report(tmp_path):
    task = Task(tmp_path / "notebooks" / "01_Jos\udce9 50%#?.ipynb", tmp_path / "out.ipynb", {}, 300)
    task = replace(task, page=tmp_path / "pages" / "notebooks" / "01_Jos\udce9 50%#?.html")
    task.page.parent.mkdir(parents=True)
    task.page.touch()
    reports = Reports([task], tmp_path / "report.xml", tmp_path / "pages")
    assert reports.write([Outcome(task, 1.0, "No such file: Jos\udce9")]) == ""
    case = next(ElementTree.parse(tmp_path / "report.xml").iter("testcase"))
    assert (case.get("name"), case[0].get("message")) == ("01_Jos� 50%#?", "No such file: Jos�")
    [link] = Rows((tmp_path / "pages" / "index.html").read_text()).links
    assert os.path.samefile(tmp_path / "pages" / unquote(link, errors="surrogateescape"), task.page)


def test_paths_that_cannot_be_written_are_refused_before_anything_runs(tasks, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.xml").mkdir()
    for junit, html in [("folder.xml", None), ("file/a.xml", None), ("a.txt", None), (None, "file"), (None, "file/in")]:
        with pytest.raises(ReportError, match=r"^(cannot write the report .*: |--junit: expected a .xml)") as refusal:
            Reports(tasks, *(path and tmp_path / path for path in (junit, html)))
        assert str(tmp_path / (junit or html)) in str(refusal.value)


def test_a_report_that_cannot_be_written_any_more_is_absent_and_says_why(tasks, tmp_path, monkeypatch):
    junit, html, writes = tmp_path / "report.xml", tmp_path / "pages", []
    reports = Reports(tasks, junit, html)

    def full(path, content):
        writes.append(path.name)
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("coursework.course.reports.write_atomically", full)
    assert reports.write(outcomes_of(tasks)) == f"cannot write the report {junit}: No space left on device"
    assert writes == ["report.xml"] * 2 + ["index.html"] * 2, "the second try has the room of the removed report"
    assert not junit.exists()
    assert not (html / "index.html").exists()
    monkeypatch.undo()
    assert reports.write(outcomes_of(tasks)) == ""
    assert ElementTree.parse(junit).getroot().get("failures") == "1"


def test_pages_without_mathjax_are_refused(tasks, tmp_path, monkeypatch):
    def missing(name):
        raise reports.PackageNotFoundError(name)

    monkeypatch.setattr(reports, "distribution", missing)
    with pytest.raises(ReportError, match=r"^--html needs sphinx-mathjax-offline: pip install sphinx-mathjax-offline$"):
        Reports(tasks, None, tmp_path / "pages")
    Reports(tasks, tmp_path / "junit.xml")
    assert Path(tmp_path / "junit.xml").is_file()
