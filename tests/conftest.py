"""Shared fixtures."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import torch

from coursework.data import files
from tests.helpers import needs
from tests.helpers.rounding import Rounding

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# What a shell starts in the background ignores Ctrl-C, and so would the commands that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# torch gives some warnings once a process: a test would then fail or pass by what ran before it.
torch.set_warn_always(True)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`pytest --rounding`: see tests/helpers/rounding.py."""
    parser.addoption("--rounding", action="store_true", help="every product, sum and function is off in its last bit")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """A test with its fixtures, with --rounding under the arithmetic of another processor."""
    with Rounding() if item.config.getoption("rounding") else contextlib.nullcontext():
        return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that needs what this machine lacks is skipped before its fixtures begin, or fails where it must run."""
    missing = [(name, needs.missing(name)) for name in _named(item, "needs")]
    missing += [(name, needs.lacking(name)) for name in _named(item, "extra")]
    for name, reason in missing:
        if reason:
            (pytest.fail if needs.demanded(name) else pytest.skip)(reason)


def _named(item: pytest.Item, marker: str) -> list[str]:
    return [name for each in item.iter_markers(marker) for name in each.args]


@pytest.fixture(autouse=True)
def the_process_as_it_was() -> Iterator[None]:
    """A test that changes what the tests after it find fails itself, and they do not."""

    variables = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}

    def state() -> dict[str, Any]:  # libraries may add variables of their own when they are loaded
        ours = {name: value for name, value in os.environ.items() if name in variables or name.startswith("COURSEWORK")}
        main = id(sys.modules["__main__"])  # processes that tests start ask it what it is
        return ours | {"current directory": os.getcwd(), "dtype": torch.get_default_dtype(), "__main__": main}

    before, main = state(), sys.modules["__main__"]
    yield
    after = state()
    for name in set(after) - set(before):
        del os.environ[name]
    os.environ.update(variables)
    os.chdir(before["current directory"])
    torch.set_default_dtype(before["dtype"])
    sys.modules["__main__"] = main
    assert after == before, "the test leaves the process changed"


@pytest.fixture(autouse=True)
def no_fashion_mnist_for_others(
    request: pytest.FixtureRequest, the_process_as_it_was: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests that do not say that they need Fashion-MNIST see none, so that they pass where there is none."""
    if "fashion-mnist" not in _named(request.node, "needs"):
        monkeypatch.delenv(files.VARIABLE, raising=False)
        monkeypatch.setattr(files, "SYSTEM_FOLDER", files.SYSTEM_FOLDER / "hidden")


@pytest.fixture(scope="session")
def chromium() -> Iterator["Browser"]:
    """Chromium without a window; its tests need("chromium")."""
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=needs.CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def generator() -> torch.Generator:
    """A fixed random stream: statistical tests give the same numbers on every run."""
    return torch.Generator().manual_seed(20240607)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small tensors on one thread: where cores are shared, threads that wait for one another take ten times longer."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
