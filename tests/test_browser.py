"""What only a browser shows: JupyterLab opens lesson 01, all cells run, the explorer's slider moves the picture."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
IN_CI = os.environ.get("COURSEWORK_CI") == "1"
NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
SHOTS = Path(__file__).parent.parent / "build" / "browser"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM and not IN_CI, reason="no Chromium found (Debian: apt install chromium)"),
]

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


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A JupyterLab on a copy of the lessons; yields its address with the token."""
    root, token = tmp_path_factory.mktemp("lab"), secrets.token_hex(16)
    shutil.copytree(NOTEBOOKS, root / "notebooks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = [
        f"--port={port}",
        "--ip=127.0.0.1",
        "--no-browser",
        "--allow-root",
        f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={root}",
        "--LabApp.expose_app_in_browser=True",
    ]
    places = ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR", "LAB_WORKSPACES_DIR", "LAB_SETTINGS_DIR")
    own = {
        f"JUPYTER{'' if p.startswith('LAB') else '_'}{p}": str(root / p) for p in places
    }  # the user's stay untouched
    with (root / "log").open("w") as log:
        command = [sys.executable, "-m", "jupyterlab", *options]
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **own})
    try:
        _wait_for(f"http://127.0.0.1:{port}/api?token={token}")
        yield f"http://127.0.0.1:{port}/lab/tree/notebooks/{{}}?token={token}"
    finally:
        process.terminate()
        process.wait(20)


def _wait_for(address):
    for _ in range(240):
        try:
            return urllib.request.urlopen(address, timeout=2).close()
        except OSError:
            time.sleep(0.25)
    raise TimeoutError("JupyterLab did not start within a minute")


@pytest.fixture(scope="module")
def page():
    """A page in headless Chromium that collects its console's errors."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def run_all(page, address):
    """Open a lesson and run all of its cells; return what CELLS reports."""
    page.goto(address)
    page.wait_for_function(READY, timeout=120_000)
    page.evaluate("() => window.jupyterapp.commands.execute('runmenu:run-all')")
    page.wait_for_function(f"() => ({CELLS})().every(cell => cell.count !== null)", timeout=240_000)
    page.wait_for_function(READY, timeout=120_000)
    return page.evaluate(CELLS)


def move(page, slider):
    """Press the right arrow on a slider and return the picture's address before and after."""
    picture = page.locator(".widget-html-content img").first
    picture.scroll_into_view_if_needed()
    before = picture.get_attribute("src")
    slider.focus()
    for _ in range(8):
        slider.press("ArrowRight")
    page.wait_for_function("([old]) => document.querySelector('.widget-html-content img').src !== old", arg=[before])
    return before, picture.get_attribute("src")


def test_lesson_01_runs_and_its_explorer_moves(page, server):
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    cells = run_all(page, server.format("01_score_function.ipynb"))
    assert len(cells) > 20
    assert [c for c in cells if c["errors"]] == []

    page.evaluate(
        """() => { const notebook = window.jupyterapp.shell.currentWidget.content;
                   const at = notebook.widgets.findIndex(c => c.model.sharedModel.source.includes('Explorer('));
                   notebook.activeCellIndex = at; notebook.scrollToItem(at); }"""
    )
    page.wait_for_selector(".widget-html-content img")
    readout = page.locator(".widget-readout").first.inner_text()
    before, after = move(page, page.locator(".noUi-handle").first)
    assert before != after
    assert page.locator(".widget-readout").first.inner_text() != readout
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / "lesson_01.png")
    assert problems == []
