"""tools/set_up.py: what it decides, and how it recovers; pip is faked by a script in the place of .venv's Python."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "tools" / "set_up.py"
posix = pytest.mark.skipif(os.name == "nt", reason="the fake interpreter is a script with a #! line")


def load():
    """Imports the script as a module."""
    spec = importlib.util.spec_from_file_location("set_up", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


set_up = load()

FAKE_PYTHON = f"""#!{sys.executable} -S
import os, sys, time
here = os.path.dirname(os.path.abspath(__file__))
if "pip" not in sys.argv:
    sys.exit(0)
root = os.path.dirname(os.path.dirname(here))
with open(os.path.join(root, "calls"), "a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
plan = os.path.join(root, "plan")
exec(open(plan).read() if os.path.exists(plan) else "")
"""

DRIVER = """
import importlib.util, pathlib, sys
spec = importlib.util.spec_from_file_location("test_set_up", {test!r})
test = importlib.util.module_from_spec(spec)
spec.loader.exec_module(test)
sys.exit(test.call(pathlib.Path({root!r}), *sys.argv[1:]))
"""


def fake_venv(venv: Path) -> None:
    """Stands for `python -m venv --clear`."""
    shutil.rmtree(venv, ignore_errors=True)
    python = venv / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    with (venv.parent / "calls").open("a") as calls:
        calls.write("venv\n")


def call(root: Path, *arguments: str) -> int:
    """Runs the set-up on a tree with the fake environment."""
    module = load()
    module.make_venv, module.room_needed = fake_venv, lambda torch_index: 0.0
    return module.main(list(arguments), root)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A course tree with a small lock."""
    monkeypatch.delenv("TORCH_INDEX", raising=False)
    (tmp_path / "requirements.lock").write_text("numpy==2\ntorch==2.14.1\ntriton==3 ; sys_platform == 'linux'\n")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / "tools").mkdir()
    (tmp_path / set_up.SETTINGS).write_text("first line\nsecond\n")
    return tmp_path


def calls(root: Path) -> list[str]:
    """What was called since the last look: "venv", "lock", "package" or pip's arguments."""
    path = root / "calls"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    short = {f"-r {root}/requirements.lock": "lock", f"--no-build-isolation -e {root}": "package"}
    pip = "-m pip --disable-pip-version-check --no-input install --no-deps "
    return [short.get(line.removeprefix(pip), line.removeprefix(pip)) for line in lines]


AFRESH, UPDATE = ["venv", "lock", "package"], ["lock", "package"]


# What it decides


@pytest.mark.parametrize("minor", range(8, 20))
def test_python_range_is_that_of_the_project(minor):
    supported = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert (set_up.python_refusal((3, minor, 1)) is None) == SpecifierSet(supported).contains(f"3.{minor}.1")


def test_a_wrong_python_is_told_in_one_line(root, capsys, monkeypatch):
    monkeypatch.setattr(set_up.sys, "version_info", (3, 10, 4, "final", 0))
    assert call(root) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "needs Python 3.11 to 3.13, this is 3.10.4" in error
    assert calls(root) == []


def stamp(**changes):
    """A complete stamp with changes."""
    there = {"digest": "d", "python": [3, 11], "place": "/here", "torch_index": "", "complete": True}
    return {**there, **changes}


@pytest.mark.parametrize(
    ("found", "wanted", "options", "left"),
    [
        (stamp(), stamp(), {}, "ready"),
        (stamp(digest="old"), stamp(), {}, "update"),
        ({}, stamp(), {}, "rebuild"),
        (stamp(complete=False), stamp(), {}, "rebuild"),
        (stamp(place="/there"), stamp(), {}, "rebuild"),
        (stamp(), stamp(), {"starts": False}, "rebuild"),
        (stamp(python=[3, 12]), stamp(), {}, "ready"),
        (stamp(python=[3, 12]), stamp(), {"this_python": True}, "rebuild"),
        (stamp(), stamp(torch_index="cpu"), {}, "rebuild"),
        (stamp(torch_index="cpu"), stamp(torch_index="cpu"), {}, "ready"),
    ],
)
def test_state(found, wanted, options, left):
    assert set_up.state(found, wanted, **{"starts": True, **options}) == left


def test_digest_follows_lock_project_and_settings_only(root):
    before = set_up.digest(root)
    (root / "README.md").write_text("changed")
    assert set_up.digest(root) == before
    (root / "pyproject.toml").write_text("[project]\n\n")
    assert set_up.digest(root) != before
    before = set_up.digest(root)
    (root / set_up.SETTINGS).write_text("changed")
    assert set_up.digest(root) != before


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00"])
def test_a_broken_stamp_is_none(tmp_path, text):
    (tmp_path / set_up.STAMP).write_text(text)
    assert set_up.read_stamp(tmp_path) == {}


def test_stamps_are_read_as_written(tmp_path):
    set_up.write_stamp(tmp_path, stamp())
    assert set_up.read_stamp(tmp_path) == stamp()
    assert [path.name for path in tmp_path.iterdir()] == [set_up.STAMP]


def test_without_torch_takes_torch_and_cuda_out_and_nothing_else():
    lock = (ROOT / "requirements.lock").read_text()
    left = {set_up.name_of(line) for line in set_up.without_torch(lock)}
    gone = {set_up.name_of(line) for line in set_up.requirement_lines(lock)} - left
    assert {"torch", "torchvision", "triton", "nvidia-cublas", "cuda-bindings", "cuda-toolkit"} <= gone
    assert all(name in ("torch", "torchvision", "triton") or name.startswith(("nvidia-", "cuda-")) for name in gone)
    assert {"numpy", "torchmetrics", "triton-like", "cudatoolbox"} == {
        set_up.name_of(line)
        for line in set_up.without_torch(
            "numpy==1\nTorch==2\ntorchmetrics==1\ntriton-like==1\ncudatoolbox==1\ntriton==3"
        )
    }


def test_torch_pins_keep_their_versions():
    assert set_up.torch_pins("numpy==1\ntorch==2.14.1\ntorchvision==0.29.2 ; os_name == 'nt'\n") == [
        "torch==2.14.1",
        "torchvision==0.29.2 ; os_name == 'nt'",
    ]


@pytest.mark.parametrize(
    ("log", "part"),
    [
        ("OSError: [Errno 28] No space left on device", "the disk is full: free about 3 GB"),
        ("Retrying after connection broken by 'NewConnectionError'\nERROR: No matching", "no connection"),
        ("ReadTimeoutError: Read timed out.", "no connection"),
        ("ERROR: No matching distribution found for torch==9", "the package index has no build of torch==9"),
        ("Collecting x\nERROR: first\nERROR: Wheel is broken\nmore", "pip failed: ERROR: Wheel is broken"),
        ("Traceback\nMemoryError", "pip failed: MemoryError"),
        ("", "pip failed: it printed nothing"),
    ],
)
def test_explain(log, part):
    text = set_up.explain(log, 3)
    assert text.startswith(part)
    assert "\n" not in text


def test_cuda_needs_more_room_than_an_index_for_the_cpu():
    assert set_up.room_needed("", "linux") > set_up.room_needed("cpu", "linux") == set_up.room_needed("", "darwin")


# What it does


@posix
def test_set_up_from_nothing_then_nothing_to_do(root, capsys):
    assert call(root) == 0
    assert calls(root) == AFRESH
    assert capsys.readouterr().err == ""
    assert call(root, "--quiet") == 0
    assert calls(root) == []
    assert capsys.readouterr().out == ""


@posix
def test_a_changed_lock_is_updated_in_place(root):
    call(root)
    calls(root)
    (root / "requirements.lock").write_text("numpy==3\n")
    assert call(root) == 0
    assert calls(root) == UPDATE
    assert call(root) == 0
    assert calls(root) == []


@posix
def test_jupyterlab_gets_the_course_s_settings_and_their_changes(root):
    call(root)
    settings = root / ".venv" / "etc" / "jupyter" / "jupyter_server_config.py"
    assert settings.read_text() == "first line\nsecond\n"
    (root / set_up.SETTINGS).write_text("first line\nthird\n")
    call(root)
    assert settings.read_text() == "first line\nthird\n"


def test_settings_alone_go_to_the_calling_python_and_replace_none_of_its_own(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(set_up.sys, "prefix", str(tmp_path / "environment"))
    settings = tmp_path / "environment" / "etc" / "jupyter" / "jupyter_server_config.py"
    assert call(root, "--settings") == 0
    assert settings.read_text() == "first line\nsecond\n"
    settings.write_text("their own\n")
    assert call(root, "--settings") == 1
    assert settings.read_text() == "their own\n"
    assert "is not the course's: add to it what" in capsys.readouterr().err
    assert calls(root) == []


@posix
def test_an_update_keeps_the_python_that_the_environment_has(root):
    call(root)
    set_up.write_stamp(root / ".venv", {**set_up.read_stamp(root / ".venv"), "python": [3, 99], "digest": "old"})
    call(root)
    assert set_up.read_stamp(root / ".venv")["python"] == [3, 99]


@posix
def test_an_environment_made_by_hand_is_made_afresh(root):
    (root / ".venv" / "bin").mkdir(parents=True)
    call(root)
    assert calls(root) == AFRESH


@posix
def test_a_moved_tree_is_made_afresh(root):
    old, new = root / "old", root / "new"
    old.mkdir()
    for name in ("requirements.lock", "pyproject.toml", "tools"):
        (root / name).rename(old / name)
    call(old)
    old.rename(new)
    calls(new)
    assert call(new) == 0
    assert calls(new) == AFRESH


@posix
def test_an_environment_whose_python_is_gone_is_made_afresh(root):
    call(root)
    calls(root)
    (root / ".venv" / "bin" / "python").unlink()
    assert call(root) == 0
    assert calls(root) == AFRESH


@posix
def test_fresh_makes_it_afresh(root):
    call(root)
    calls(root)
    assert call(root, "--fresh") == 0
    assert calls(root) == AFRESH


@posix
def test_another_index_for_torch_is_used_and_remembered(root):
    assert call(root, "--torch-index", "some-index") == 0
    venv, torch, rest, package = calls(root)
    assert (venv, package) == ("venv", "package")
    assert torch == "--index-url some-index torch==2.14.1"
    assert Path(rest.removeprefix("-r ")).read_text() == "numpy==2\n"
    assert call(root) == 0
    assert calls(root) == []
    (root / "pyproject.toml").write_text("[project]\n\n")
    assert call(root) == 0
    assert calls(root)[0] == torch


@posix
@pytest.mark.parametrize(("words", "part"), [("No space left on device", "disk is full"), ("ProxyError", "connect")])
def test_a_failure_is_one_line_and_the_next_call_repairs_it(root, capfd, words, part):
    (root / "plan").write_text(f"print('ERROR: {words}'); sys.exit(1)")
    assert call(root) == 1
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert part in error
    assert words in (root / "build" / "set_up.log").read_text()
    (root / "plan").unlink()
    calls(root)
    assert call(root) == 0
    assert calls(root) == AFRESH


@posix
def test_too_little_room_is_refused_before_anything_is_fetched(root, capsys, monkeypatch):
    monkeypatch.setattr(set_up.shutil, "disk_usage", lambda path: SimpleNamespace(free=-1))
    assert call(root) == 1
    assert "the disk is full" in capsys.readouterr().err
    assert calls(root) == ["venv"]


def start(root: Path, *arguments: str) -> subprocess.Popen:
    """Starts a set-up in a process of its own."""
    code = DRIVER.format(test=__file__, root=str(root))
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def wait_for(path: Path) -> None:
    """Waits until a file is there."""
    for _ in range(300):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} did not appear")


SLOW = "open(os.path.join(root, 'slow'), 'w'); time.sleep({}); open(os.path.join(root, 'orphan done'), 'w')"


@posix
def test_a_killed_set_up_is_repaired_after_its_pip_has_ended(root):
    (root / "plan").write_text(SLOW.format(2))
    process = start(root)
    wait_for(root / "slow")
    process.kill()
    process.communicate()
    assert not set_up.read_stamp(root / ".venv").get("complete")
    (root / "plan").unlink()
    calls(root)
    assert call(root) == 0
    assert (root / "orphan done").exists(), "the pip of the killed set-up was still writing"
    assert calls(root) == AFRESH
    assert json.loads((root / ".venv" / set_up.STAMP).read_text())["complete"]


@posix
def test_an_interrupt_prints_one_line(root):
    (root / "plan").write_text("signal = __import__('signal'); signal.signal(2, signal.SIG_DFL);" + SLOW.format(30))
    process = start(root)
    wait_for(root / "slow")
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert output.splitlines()[1:] == ["set-up: interrupted: the next call makes .venv afresh"]
    (root / "plan").unlink()
    assert call(root) == 0


@posix
def test_two_set_ups_at_once_install_once(root):
    (root / "plan").write_text("time.sleep(0.5)")
    processes = [start(root), start(root)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert calls(root) == AFRESH
    assert sum("another set-up is running here" in output for output in outputs) == 1
