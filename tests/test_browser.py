"""What only a browser shows: JupyterLab runs a whole lesson, and the sliders of every explorer move its picture."""

import itertools
import os
import re
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from coursework.grading.release import CONFIG
from tests.helpers import LESSONS
from tests.helpers.explorer_cells import explorer_cells

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
SHOTS = Path(__file__).parent.parent / "build" / "browser"

pytestmark = pytest.mark.needs("chromium")

NEWS = "@jupyterlab/apputils-extension:announcements"
READY = """() => {
    const app = window.jupyterapp, panel = app?.shell.currentWidget;
    if (!app?.commands.hasCommand('runmenu:run-all') || !panel?.sessionContext?.isReady) return false;
    const kernel = panel.sessionContext.session?.kernel;
    return kernel?.connectionStatus === 'connected' && kernel?.status === 'idle';
}"""
CELLS = """() => window.jupyterapp.shell.currentWidget.content.widgets
    .filter(cell => cell.model.type === 'code')
    .map(cell => ({id: cell.model.id, count: cell.model.executionCount,
                   errors: cell.model.outputs.toJSON().filter(o => o.output_type === 'error').length}))"""


PANEL = ".jp-NotebookPanel:not(.lm-mod-hidden)"
PICTURE = f"{PANEL} .widget-html-content img"
NEXT_PICTURE = """(selector) => {
    const picture = document.querySelector(selector), box = picture.parentElement;
    window.moved = new Promise((resolve) => {
        let pressed = null;
        document.addEventListener("keydown", (key) => { pressed ??= key.timeStamp; }, { capture: true, once: true });
        const observer = new MutationObserver(async () => {
            const now = box.querySelector("img");
            if (now.src === picture.src) return;
            observer.disconnect();
            await now.decode();
            resolve(performance.now() - pressed);
        });
        observer.observe(box, { childList: true, subtree: true, attributes: true });
    });
}"""


@contextmanager
def lab(root):
    """A JupyterLab started in a folder, with the settings that tools/set_up.py gives it and none of the user's.

    Yields its address with the token and a place for what comes after the host, and its log.
    """
    token = secrets.token_hex(16)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = [
        f"--port={port}",
        "--ip=127.0.0.1",
        "--no-browser",
        "--allow-root",
        f"--IdentityProvider.token={token}",
        "--ServerApp.root_dir=.",
        "--LabApp.expose_app_in_browser=True",
    ]
    places = ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR", "LAB_WORKSPACES_DIR", "LAB_SETTINGS_DIR")
    own = {f"JUPYTER{'' if p.startswith('LAB') else '_'}{p}": str(root / p) for p in places}
    own["JUPYTER_CONFIG_PATH"] = str(NOTEBOOKS.parent / "tools")
    with (root / "log").open("w") as log:
        command = [sys.executable, "-m", "jupyterlab", *options]
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=root, env={**os.environ, **own})
    try:
        _wait_for(f"http://127.0.0.1:{port}/api?token={token}")
        yield f"http://127.0.0.1:{port}/{{}}?reset&token={token}", root / "log"
    finally:
        process.terminate()
        process.wait(20)


def write_notebook(path, sources):
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}}
    nbformat.write(v4.new_notebook(cells=[v4.new_code_cell(source) for source in sources], metadata=kernel), path)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A JupyterLab on a copy of the lessons, and in explorers/ on the part of each that its explorer needs."""
    root = tmp_path_factory.mktemp("lab")
    shutil.copytree(NOTEBOOKS, root / "notebooks")
    (root / "explorers").mkdir()
    for name in LESSONS:
        write_notebook(root / "explorers" / f"{name}.ipynb", explorer_cells(name))
    with lab(root) as running:
        yield running


def _wait_for(address):
    for _ in range(240):
        try:
            return urllib.request.urlopen(address, timeout=2).close()
        except OSError:
            time.sleep(0.25)
    raise TimeoutError("JupyterLab did not start within a minute")


@pytest.fixture(scope="module")
def page(chromium):
    """A page in headless Chromium."""
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(60_000)
    yield page
    page.close()


def open_lesson(page, address):
    page.goto(address)
    page.wait_for_function(READY, timeout=120_000)


def run_all(page, address):
    """Open a lesson and run all of its cells; return what CELLS reports."""
    open_lesson(page, address)
    page.evaluate("() => window.jupyterapp.commands.execute('runmenu:run-all')")
    page.wait_for_function(f"() => ({CELLS})().every(cell => cell.count !== null)", timeout=240_000)
    page.wait_for_function(READY, timeout=120_000)
    return page.evaluate(CELLS)


def shut_down(page):
    """End the open lesson's kernel."""
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")


@pytest.fixture
def problems(page, server):
    """The errors of the page, of its console, and of the server and its kernels, from here on."""
    found, log = [], server[1]
    written = log.stat().st_size
    on_error = lambda error: found.append(str(error))  # noqa: E731 (the same function is taken off again)
    on_console = lambda message: found.append(message.text) if message.type == "error" else None  # noqa: E731
    page.on("pageerror", on_error)
    page.on("console", on_console)

    def all_of_them():
        new = log.read_text()[written:]
        return found + re.findall(r"^(?:\[[EC] .*|Traceback.*|\w*(?:Error|Exception|Warning)\b.*)$", new, re.MULTILINE)

    yield all_of_them
    page.remove_listener("pageerror", on_error)
    page.remove_listener("console", on_console)


def scroll_to_explorer(page):
    page.evaluate(
        """() => { const notebook = window.jupyterapp.shell.currentWidget.content;
                   const at = notebook.widgets.findIndex(c => c.model.sharedModel.source.includes('Explorer('));
                   notebook.activeCellIndex = at; notebook.scrollToItem(at); }"""
    )
    page.wait_for_selector(PICTURE)


def press(page, slider):
    """Move a slider one step by its arrow key; return the milliseconds until the next picture, which must come."""
    page.evaluate(NEXT_PICTURE, PICTURE)
    at_the_end = slider.get_attribute("aria-valuenow") == slider.get_attribute("aria-valuemax")
    slider.press("ArrowLeft" if at_the_end else "ArrowRight")
    return page.evaluate("() => Promise.race([window.moved, new Promise((r) => setTimeout(r, 60000, null))])")


def instructors_words(page):
    """The words of nbgrader that stand anywhere on the page: in menus, toolbars, side bars or the notebook."""
    text = page.evaluate("() => document.body.innerText").lower()
    return {word for word in ("nbgrader", "create assignment", "validate", "formgrader") if word in text}


def asks_about_news(page):
    return page.evaluate(f"() => window.jupyterapp.hasPlugin('{NEWS}')") or page.locator(".Toastify__toast").count() > 0


def test_learners_see_nothing_of_nbgrader_and_are_not_asked_about_news(page, server):
    open_lesson(page, server[0].format("lab/tree/notebooks/00_start_here.ipynb"))
    assert instructors_words(page) == set()
    assert not asks_about_news(page)
    assert page.request.get(server[0].format("formgrader")).status == 404
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / "learner.png")
    shut_down(page)


def test_a_course_directory_has_all_of_nbgrader(page, tmp_path):
    (tmp_path / "nbgrader_config.py").write_text(CONFIG)
    write_notebook(tmp_path / "assignment.ipynb", ["1 + 1"])
    with lab(tmp_path) as (address, _):
        open_lesson(page, address.format("lab/tree/assignment.ipynb"))
        assert instructors_words(page) >= {"nbgrader", "create assignment", "validate"}
        assert not asks_about_news(page)
        assert page.request.get(address.format("formgrader")).status == 200
        shut_down(page)
        page.goto("about:blank")  # it would go on asking a server that is gone, and tell the next test


def test_a_whole_lesson_runs(page, server, problems):
    cells = run_all(page, server[0].format("lab/tree/notebooks/01_score_function.ipynb"))
    assert len(cells) > 20
    assert [c for c in cells if c["errors"]] == []
    scroll_to_explorer(page)
    assert press(page, page.locator(f"{PANEL} .noUi-handle").first) is not None
    shut_down(page)
    assert problems() == []


@pytest.mark.parametrize("name", LESSONS)
def test_every_slider_of_an_explorer_is_named_and_moves_its_picture(name, page, server, problems, capsys):
    cells = run_all(page, server[0].format(f"lab/tree/explorers/{name}.ipynb"))
    assert [c for c in cells if c["errors"]] == []
    scroll_to_explorer(page)
    labels = page.locator(f"{PANEL} .widget-slider .widget-label").all_inner_texts()
    assert labels
    assert all(labels)
    times = {}
    for label in labels:
        slider = page.locator(PANEL).get_by_role("slider", name=label, exact=True)
        whole = page.locator(f"{PANEL} .widget-slider", has=page.get_by_role("slider", name=label, exact=True))
        readout = whole.locator(".widget-readout")
        slider.focus()
        shown = [readout.inner_text()]
        for _ in range(4):
            times.setdefault(label, []).append(press(page, slider))
            assert times[label][-1] is not None, f"{label}: a step that changes no picture"
            shown.append(readout.inner_text())
        assert all(before != after for before, after in itertools.pairwise(shown))
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"explorer_{name}.png")
    shut_down(page)
    with capsys.disabled():
        medians = ", ".join(f"{label} {statistics.median(values):.0f}" for label, values in times.items())
        print(f"\n{name}: milliseconds from key to picture: {medians}")
    assert problems() == []
