"""Where data, browser, namespaces and GPU are missing, tests that need them say so, and in CI they fail."""

import os
import re
import subprocess
import sys
from collections import defaultdict
from xml.etree import ElementTree

import pytest

from coursework.data import default_images, files
from tests.helpers import ROOT, needs

HIDE = f"""
[ ! -d {files.SYSTEM_FOLDER} ] || mount -t tmpfs none {files.SYSTEM_FOLDER}
for name in chromium chromium-browser google-chrome make; do
    path=$(command -v $name) && mount --bind /dev/null "$(readlink -f "$path")"
done
echo 0 > /proc/sys/user/max_user_namespaces
exec "$@"
"""
MARKED = [p for p in (ROOT / "tests").rglob("test_*.py") if re.search(r"mark\.needs\(", p.read_text(encoding="utf-8"))]


@pytest.mark.needs("namespaces")
def test_what_needs_something_is_skipped_with_the_reason_and_fails_in_ci(tmp_path):
    """In namespaces that hide everything; the CI of this run cannot have a browser and no namespaces."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COURSEWORK_")}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    environment |= {"COURSEWORK_CI": "1", "COURSEWORK_WITHOUT": "chromium make namespaces"}
    pytest_here = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={tmp_path / 'report.xml'}"]
    command = [*needs.NAMESPACES, "sh", "-c", HIDE, "sh", *pytest_here, "-m", "needs", *map(str, MARKED)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    outcomes = defaultdict(set)
    for case in ElementTree.parse(tmp_path / "report.xml").iter("testcase"):
        assert len(case) == 1, f"{case.attrib}: needs nothing that is hidden"
        outcomes[case[0].tag].add(case[0].get("message").removeprefix("failed on setup with ").strip('"'))
    reasons = dict(needs.REASONS)
    failed = {f"Failed: {reasons.pop('fashion-mnist')}"}
    assert dict(outcomes) == {"error": failed, "skipped": set(reasons.values())}, done.stdout


def test_in_ci_everything_is_demanded_but_a_gpu_and_what_it_says_it_cannot_have(monkeypatch):
    def demanded():
        return {name for name in needs.FOUND if needs.demanded(name)}

    monkeypatch.delenv("COURSEWORK_CI", raising=False)
    assert demanded() == set()
    monkeypatch.setenv("COURSEWORK_CI", "1")
    monkeypatch.delenv("COURSEWORK_WITHOUT", raising=False)
    assert demanded() == {"chromium", "fashion-mnist", "make", "namespaces"}
    monkeypatch.setenv("COURSEWORK_WITHOUT", "namespaces")
    assert demanded() == {"chromium", "fashion-mnist", "make"}


def test_what_an_extra_brings_is_missing_where_one_of_its_packages_is_not_installed(monkeypatch):
    extras = {
        "whole": ["pytest>=1"],
        "outer": ["coursework[whole,half]"],
        "half": ["no-such-package>=1"],
        "new": ["pytest>=99"],
    }
    monkeypatch.setattr(needs, "EXTRAS", extras)
    assert needs.lacking("whole") == ""
    for extra in ("outer", "half", "new"):
        assert needs.lacking(extra) == f"not installed: pip install 'coursework[{extra}]'"


def test_a_test_that_does_not_say_so_sees_no_fashion_mnist():
    assert default_images() == "digits"


@pytest.mark.needs("fashion-mnist")
def test_a_test_that_says_so_sees_it():
    assert default_images() == "fashion-mnist"
