"""What single tests need and not every machine has: `@pytest.mark.needs("chromium")`, `extra("dev")`.

Where it is missing the test is skipped with the reason; with COURSEWORK_CI=1, as in .ci/run, it fails. A service for
CI names what it cannot have in COURSEWORK_WITHOUT. A GPU is never demanded.
"""

import os
import shutil
import subprocess
import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import torch
from packaging.requirements import Requirement

from coursework.data import files
from tests.helpers import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NAMESPACES = ("unshare", "--user", "--map-root-user", "--net", "--ipc", "--pid", "--fork", "--mount", "--mount-proc")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


def _installed(requirement: Requirement) -> bool:
    """Whether a package is there, or all of what an extra of our own names."""
    if requirement.name == PROJECT["name"]:
        return all(_installed(Requirement(line)) for extra in requirement.extras for line in EXTRAS[extra])
    try:
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except PackageNotFoundError:
        return False


def _namespaces() -> bool:
    try:
        return subprocess.run([*NAMESPACES, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


FOUND = {
    "chromium": lambda: CHROMIUM is not None,
    "fashion-mnist": lambda: files.find("fashion-mnist") is not None,
    "gpu": torch.cuda.is_available,
    "make": lambda: shutil.which("make") is not None,
    "namespaces": _namespaces,
}
REASONS = {
    "chromium": "no Chromium found (Debian: apt install chromium)",
    "fashion-mnist": "no Fashion-MNIST found (Debian: apt install dataset-fashion-mnist)",
    "gpu": "no GPU here",
    "make": "there is no make here",
    "namespaces": "this system allows no namespaces, which shut learners' code in",
}


@cache
def missing(name: str) -> str:
    """Why tests that need `name` cannot run here, or ""."""
    return "" if FOUND[name]() else REASONS[name]


def lacking(extra: str) -> str:
    """Why tests of what an extra of the package brings cannot run here, or ""."""
    there = _installed(Requirement(f"{PROJECT['name']}[{extra}]"))
    return "" if there else f"not installed: pip install 'coursework[{extra}]'"


def demanded(name: str) -> bool:
    """Whether a test that needs `name` must run here, so that it fails where it cannot."""
    without = os.environ.get("COURSEWORK_WITHOUT", "").split()
    return os.environ.get("COURSEWORK_CI") == "1" and name != "gpu" and name not in without
