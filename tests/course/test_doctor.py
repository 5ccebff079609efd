"""The files that say what is installed agree with each other, and the doctor's findings with the machine."""

import re
import sys
import tomllib
from types import SimpleNamespace

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from rattler import MatchSpec

from coursework.course import doctor, publishing
from tests.helpers import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
EXTRAS = PROJECT["optional-dependencies"]
ALL = [*PROJECT["dependencies"], *(requirement for extra in EXTRAS.values() for requirement in extra)]
DIRECT = [requirement for requirement in ALL if not requirement.startswith("coursework[")]  # an extra may name another
PLATFORMS = [("linux", "Linux", "posix"), ("darwin", "Darwin", "posix"), ("win32", "Windows", "nt")]
PYTHONS = ["3.11.0", "3.11.9", "3.12.4", "3.13.1"]


def pins(python: str, platform: tuple[str, str, str]) -> dict[str, str]:
    """The versions that the lock pins for a Python and a platform; fails where one package is pinned twice."""
    names = {"sys_platform": platform[0], "platform_system": platform[1], "os_name": platform[2]}
    here = {**names, "python_version": python.rpartition(".")[0], "python_full_version": python}
    wanted = [r for r in map(Requirement, LOCK.splitlines()) if r.marker is None or r.marker.evaluate(here)]
    assert len({r.name for r in wanted}) == len(wanted)
    return {canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r in wanted}


# requirements.lock and pyproject.toml


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda p: p[0])
@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_holds_every_direct_dependency_at_a_version_that_fits(python, platform):
    there = pins(python, platform)
    for requirement in map(Requirement, DIRECT):
        version = there[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement}: the lock has {version}"


def test_the_lock_pins_exactly_and_names_no_place():
    for requirement in map(Requirement, LOCK.splitlines()):
        assert re.fullmatch(r"==[0-9a-z.]+", str(requirement.specifier)), requirement
        assert requirement.url is None
    assert "://" not in LOCK
    assert "--" not in LOCK, "an option or a hash: pip then refuses `-e .` in the same run, which conda makes"


def test_the_build_requirement_is_in_the_lock_since_the_package_is_built_with_it():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    there = pins("3.11.9", PLATFORMS[0])
    assert all(r.specifier.contains(there[r.name]) for r in map(Requirement, build))


# environment.yml


def conda_specs() -> dict[str, str]:
    """Conda's version constraints in environment.yml, by package."""
    specs = [MatchSpec(line) for line in CONDA["dependencies"] if isinstance(line, str)]
    return {spec.name.normalized: str(spec.version or "") for spec in specs}


def test_conda_gives_the_python_that_the_package_supports():
    assert SpecifierSet(conda_specs()["python"]) == SpecifierSet(PROJECT["requires-python"])
    assert CONDA["channels"] == ["conda-forge"]


def test_conda_gives_nothing_but_python_and_pip():
    assert set(conda_specs()) == {"python", "pip"}


def test_conda_installs_the_lock_and_the_package():
    pip_lines = [entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict)]
    assert pip_lines == [["-r requirements.lock", "-e ."]]


def test_the_doctor_knows_the_same_python_range():
    supported = SpecifierSet(PROJECT["requires-python"])
    for minor in range(8, 20):
        inside = doctor.OLDEST_PYTHON <= (3, minor) <= doctor.NEWEST_PYTHON
        assert supported.contains(f"3.{minor}.1") == inside


# Packages


def fake_versions(monkeypatch, **versions):
    """Makes the doctor believe in these installed versions."""
    monkeypatch.setattr(doctor, "installed", lambda name: versions.get(name.replace("-", "_")))


SMALL_LOCK = """# a comment
numpy==2.0 ; python_version >= '3'
numpy==1.0 ; python_version < '3'
nvidia-cublas==13.1
torch==2.14.1
triton==3.8
"""


def test_locked_takes_the_lines_for_this_python():
    assert doctor.locked(SMALL_LOCK) == {
        "numpy": "2.0", "nvidia-cublas": "13.1", "torch": "2.14.1", "triton": "3.8"
    }  # fmt: skip


def test_lock_differences_tells_missing_from_other(monkeypatch):
    fake_versions(monkeypatch, torch="2.13", numpy="2.0", nvidia_cublas="13.1")
    assert doctor.lock_differences(SMALL_LOCK) == ["torch 2.14.1: 2.13 is installed", "triton 3.8: missing"]


def test_a_torch_for_the_cpu_needs_no_cuda(monkeypatch):
    fake_versions(monkeypatch, torch="2.14.1+cpu", numpy="2.0")
    assert doctor.lock_differences(SMALL_LOCK) == []


def test_the_packages_here_are_those_of_the_lock():
    assert doctor.lock_finding(ROOT).status == "ok"


# Findings


def test_a_wrong_package_is_a_problem_with_its_mend(tmp_path, monkeypatch):
    (tmp_path / "requirements.lock").write_text("\n".join(f"missing-{i}==1" for i in range(5)))
    finding = doctor.lock_finding(tmp_path)
    assert finding.status == "problem"
    assert "missing-0 1: missing" in finding.text
    assert finding.text.endswith("and 2 more")
    assert "set_up.py --fresh" in finding.mend


def test_no_lock_is_a_problem_with_its_mend(tmp_path):
    assert doctor.lock_finding(tmp_path).mend == "git checkout requirements.lock"


@pytest.mark.parametrize("lock", [b"\xe9", b"not a requirement!", b"unpinned", None])
def test_a_lock_that_cannot_be_read_is_a_problem_with_its_mend(tmp_path, lock):
    path = tmp_path / "requirements.lock"
    path.mkdir() if lock is None else path.write_bytes(lock)
    finding = doctor.lock_finding(tmp_path)
    assert (finding.status, finding.mend) == ("problem", "git checkout requirements.lock")
    assert finding.text.startswith("requirements.lock cannot be read: ")


@pytest.mark.parametrize("version", [(3, 10, 13), (3, 14, 0)])
def test_another_python_is_a_problem_with_its_mend(monkeypatch, version):
    monkeypatch.setattr(sys, "version_info", version)
    finding = doctor.python_finding()
    assert (finding.status, finding.mend) == ("problem", "make lab PYTHON=python3.12")


def test_a_torch_that_cannot_be_imported_is_a_problem_with_its_mend(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    finding = doctor.torch_finding()
    assert finding.status == "problem"
    assert "ModuleNotFoundError" in finding.text
    assert "set_up.py --fresh" in finding.mend


def test_missing_data_are_a_note(monkeypatch):
    monkeypatch.setattr(doctor, "data_sets", lambda: {"digits": "here", "fashion-mnist": None, "mnist": None})
    statuses = [(finding.status, finding.mend) for finding in doctor.data_findings()]
    assert statuses == [("ok", ""), ("note", ""), ("note", "")]
    assert "apt install dataset-fashion-mnist" in doctor.data_findings()[1].text


def test_the_data_sets_of_this_machine():
    assert doctor.data_sets()["digits"] is not None


def test_little_memory_is_a_note(monkeypatch):
    assert doctor.free_memory() > 0
    assert doctor.memory_finding().status in ("ok", "note")
    monkeypatch.setattr(doctor, "free_memory", lambda: 10**9)
    assert doctor.memory_finding().status == "note"


def test_lessons_that_are_out_of_date_are_problems_with_their_mend(monkeypatch, tmp_path):
    (tmp_path / "solutions").mkdir()
    monkeypatch.setattr(publishing, "outdated", lambda root: ["01: missing", "02: changed"])
    findings = doctor.tree_findings(tmp_path)
    assert [finding.text for finding in findings] == ["lessons: 01: missing", "lessons: 02: changed"]
    assert all(finding.status == "problem" and "coursework publish" in finding.mend for finding in findings)
    monkeypatch.setattr(publishing, "outdated", lambda root: [])
    assert [finding.status for finding in doctor.tree_findings(tmp_path)] == ["ok"]


def test_lessons_that_cannot_be_read_are_a_problem(tmp_path):
    (tmp_path / "solutions").mkdir()
    [finding] = doctor.tree_findings(tmp_path)
    assert finding.status == "problem"
    assert finding.mend


def test_diagnose_looks_at_everything():
    texts = [finding.text for finding in doctor.diagnose(ROOT)]
    for subject in ("Python 3", "torch 2.14", "device cpu", "cores", "packages", "data digits", "lessons"):
        assert any(subject.split()[0] in text for text in texts), subject


def test_cores_are_those_this_process_may_use(monkeypatch):
    monkeypatch.setattr(doctor, "os", SimpleNamespace(cpu_count=lambda: None))
    assert doctor.cores() == 1
