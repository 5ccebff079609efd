"""Collecting from archives as learning management systems make them, and as people do who wish others harm."""

import csv
import io
import os
import random
import re
import stat
import struct
import zipfile
from datetime import datetime

import pytest
from typer.testing import CliRunner

from coursework.cli import app
from coursework.grading import archives, classroom, collecting, finding, handin
from coursework.grading.archives import Archive, ArchiveError
from coursework.grading.class_list import ClassList, Person
from coursework.grading.collected import TABLE, read_table
from coursework.grading.collecting import CollectError
from coursework.grading.marking import Mark
from coursework.grading.records import Record
from tests.grading.test_finding import BLANK, COURSE, FULL, HALF, LANGEVIN, NAMES, SCORE, SLICED, notebook, put
from tests.helpers import ROOT

X = "03_sliced_score_matching.ipynb"
EARLY, LATER = datetime(2026, 11, 1, 12, 0, 0), datetime(2026, 11, 2, 12, 0, 0)
OTHER = notebook(LANGEVIN)


def zipped(*files, time=EARLY) -> bytes:
    """A zip of (name, content), of (name, content, time) or of a ZipInfo in place of the name."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, *own in files:
            info = (
                name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name, (own or [time])[0].timetuple()[:6])
            )
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return out.getvalue()


class Place:
    """A folder to collect into, and the archives that are collected."""

    def __init__(self, folder):
        self.folder, self.out = folder, folder / "submitted"

    def collect(self, *sources, people=None, dry=False):
        """Collect zips (bytes) and folders."""
        paths = []
        for number, source in enumerate(sources):
            if isinstance(source, bytes):
                paths.append(self.folder / f"{number}.zip")
                paths[-1].write_bytes(source)
            else:
                paths.append(source)
        return collecting.collect(paths, COURSE, self.out, people, dry)

    @property
    def tree(self):
        """The notebooks that were collected, by student and lesson's number."""
        return {(path.parts[-3], int(path.stem[:2])): path.read_text() for path in self.out.glob("*/*/*.ipynb")}

    def time(self, student, lesson=SLICED):
        return (self.out / student / lesson.name / "timestamp.txt").read_text()

    def row(self, file):
        (found,) = (row for row in read_table(self.out / TABLE) if row.file == file)
        return found


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


# -- whose it is -----------------------------------------------------------------------------------------------------

FORMS = {
    "Moodle, flat": {
        f"Ann Lee_123_assignsubmission_file_{X}": "Ann Lee",
        f"Ben Under_Score_124_assignsubmission_file_{X}": "Ben Under_Score",
    },
    "Moodle, folders": {
        f"Ann Lee_123_assignsubmission_file_/{X}": "Ann Lee",
        f"Ben Low_124_assignsubmission_file_/sub/{X}": "Ben Low",
        "Ben Low_124_assignsubmission_onlinetext_/onlinetext.html": None,
    },
    "Moodle, folders of late versions": {f"Ann Lee_123_assignsubmission_file/{X}": "Ann Lee"},
    "Canvas": {
        f"leeann_1234_5678_{X}": "leeann",
        f"lowben_LATE_1235_5679_{X.replace('.ipynb', '-1.ipynb')}": "lowben",
        "under_score_1236_5680_x.ipynb": "under_score",
    },
    "Blackboard": {
        f"PS1_u12345_attempt_2026-11-01-12-00-00_{X}": "u12345",
        f"PS1_j_smith_attempt_2026-11-01-12-00-00_{X}": "j_smith",
        "PS1_u12345_attempt_2026-11-01-12-00-00.txt": None,
    },
    "plain": {f"anna_{X}": "anna", f"j_smith_{X}": "j_smith", f"j_jones_{X}": "j_jones", f"Ben Low - {X}": "Ben Low"},
    "plain in a folder": {f"ps1/anna_{X}": "anna", f"ps1/ben_{X}": "ben"},
    "folders": {f"anna/{X}": "anna", "ben/homework.ipynb": "ben", "Cem Ö/deep/er/x.ipynb": "Cem Ö"},
    "nbgrader": {f"anna/{SLICED.name}/{X}": "anna", f"ben/{SLICED.name}/{X}": "ben"},
    "sections": {f"A/anna/{X}": "anna", f"A/ben/{X}": "ben", f"B/cem/{X}": "cem", f"B/dora/{X}": "dora"},
    "one folder above": {f"submissions/anna/{X}": "anna", f"submissions/ben/{X}": "ben"},
    "sections from Moodle": {
        f"A/Ann Lee_1_assignsubmission_file_/{X}": "Ann Lee",
        f"B/Ben Low_2_assignsubmission_file_/{X}": "Ben Low",
    },
    "Windows": {f"anna\\{X}": "anna", f"ben\\{X}": "ben"},
    "with dots": {f"./anna/{X}": "anna", f"./ben/./{X}": "ben"},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("as_folder", [False, True], ids=["zip", "folder"])
def test_each_systems_files_go_to_their_students(form, as_folder, place):
    names = FORMS[form]
    content = {name: FULL if owner else "Name: " for name, owner in names.items()}
    source = zipped(*content.items())
    if as_folder:
        for name, text in content.items():
            put(place.folder / "in" / name.replace("\\", "/"), text)
        source = place.folder / "in"
    done = place.collect(source)
    assert place.tree == {(owner, 3): FULL for owner in names.values() if owner}
    assert (done.new, done.notes) == (sum(owner is not None for owner in names.values()), [])


def test_a_zip_of_a_student_is_opened_once(place):
    inner = zipped((f"hw/{X}", FULL), ("hw/data.csv", "1"), ("more.zip", zipped((X, HALF))))
    done = place.collect(
        zipped(("Ann_1_assignsubmission_file_hw.zip", inner), ("Ben_2_assignsubmission_file_x.ipynb", HALF))
    )
    assert place.tree == {("Ann", 3): FULL, ("Ben", 3): HALF}
    assert done.notes == ["Ann: Ann_1_assignsubmission_file_hw.zip/more.zip: a zip in a zip is not opened"]


@pytest.mark.parametrize("inside", [
    f"Eve_3_assignsubmission_file_/Bob_2_assignsubmission_file_{X}", f"Eve_3_assignsubmission_file_/bob_{X}",
    f"Eve_3_assignsubmission_file_/Bob_2_assignsubmission_file_/{X}", f"Eve_3_assignsubmission_file_Bob_2_{X}",
    f"Eve_3_assignsubmission_file_Bob_2_assignsubmission_file_{X}", f"Eve_3_assignsubmission_file_bob_{X}",
])  # fmt: skip
def test_a_files_own_name_makes_it_nobody_elses(inside, place):
    place.collect(zipped((f"Bob_2_assignsubmission_file_{X}", HALF, EARLY), (inside, FULL, LATER)))
    assert place.tree == {("Bob", 3): HALF, ("Eve", 3): FULL}


@pytest.mark.parametrize("inside", [f"Bob_{X}", f"Bob_2_assignsubmission_file_{X}", f"Bob_2_3_{X}", "Bob/x.ipynb"])
def test_nor_in_a_folder_of_a_student(inside, place):
    place.collect(zipped((f"Bob/{X}", HALF), (f"eve/{inside}", FULL), (f"cem/{X}", FULL)))
    assert place.tree == {("Bob", 3): HALF, ("eve", 3): FULL, ("cem", 3): FULL}
    other = zipped((f"canvas_1_2_{X}", HALF), (f"eve_3_4_canvas_1_2_{X}", FULL))
    place.collect(other)
    assert (place.tree["canvas", 3], place.tree["eve", 3]) == (HALF, FULL)


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("inside", ["{}_2_assignsubmission_file_x.ipynb", "{}_2_3_x.ipynb", "bob{}/x.ipynb", "{}_" + X])
def test_no_students_files_turn_folders_into_sections(inside, listed, place):
    people = ClassList((Person("bob"), Person("bob0"))) if listed else None
    many = [(f"eve/{inside.format(i)}", FULL) for i in range(50)]
    place.collect(zipped((f"bob/{X}" if listed else f"Bob K/{X}", HALF), (f"cem/{X}", HALF), *many), people=people)
    assert sorted(place.tree) == [(name, 3) for name in ("bob" if listed else "Bob K", "cem", "eve")]


def test_a_name_that_is_somebody_elses_login_is_not_that_person(place):
    people = ClassList((Person("al1", "Ann Lee"),))
    names = (f"Ann Lee_1_assignsubmission_file_{X}", f"al1_2_assignsubmission_file_{X}")
    place.collect(zipped(*zip(names, (HALF, FULL), strict=True)), people=people)
    assert place.tree == {("al1", 3): HALF, ("al1_2", 3): FULL}


def test_two_of_one_name_are_told_apart_by_the_systems_number(place):
    first = (f"Ann Lee_17_assignsubmission_file_{X}", FULL)
    place.collect(zipped(first))
    place.collect(zipped(first, (f"Ann Lee_18_assignsubmission_file_{X}", HALF)))
    assert place.tree == {("Ann Lee", 3): FULL, ("Ann Lee_18", 3): HALF}
    place.collect(zipped(("Ann Lee_99_assignsubmission_file_x.ipynb", OTHER)))  # of which of them nobody can tell
    assert place.tree["Ann Lee_99", 5] == OTHER


def test_moodles_number_is_another_in_every_assignment_and_the_person_the_same(place):
    place.collect(zipped((f"Ann Lee_17_assignsubmission_file_{X}", FULL)))
    place.collect(zipped(("Ann Lee_99_assignsubmission_file_x.ipynb", OTHER)))
    assert place.tree == {("Ann Lee", 3): FULL, ("Ann Lee", 5): OTHER}


def named(number, content, name="Anna Schmidt", time=EARLY):
    return f"{name}_{number}_assignsubmission_file_{X}", content, time


@pytest.mark.parametrize("together", [False, True])
def test_a_namesake_of_a_later_week_replaces_nothing(together, place):
    weeks = [zipped(named(111, HALF)), zipped(named(222, FULL, time=LATER))]
    done = [place.collect(*weeks)] if together else [place.collect(week) for week in weeks]
    both = {("Anna Schmidt", 3): HALF, ("Anna Schmidt_222", 3): FULL}
    assert (place.tree, [each.newer for each in done]) == (both, [[]] * len(done))
    assert done[-1].notes == [
        "Anna Schmidt_222: is kept apart from Anna Schmidt, who has another number for the same lesson"
    ]
    again = place.collect(*reversed(weeks))
    assert (place.tree, again.newer, again.unchanged, again.notes) == (both, [], 2, [])
    place.collect(zipped(named(111, FULL, time=LATER)))  # one's own is still replaced
    assert place.tree["Anna Schmidt", 3] == FULL


def test_who_is_joined_by_name_for_one_lesson_is_kept_apart_in_another(place):
    place.collect(zipped(named(111, HALF)))
    place.collect(zipped((named(222, "")[0], OTHER)))
    place.collect(zipped(named(222, FULL, time=LATER)), zipped((f"Anna Schmidt_222_9_{X}", FULL)))
    assert place.tree == {
        ("Anna Schmidt", 3): HALF, ("Anna Schmidt", 5): OTHER,
        ("Anna Schmidt_222", 3): FULL, ("Anna Schmidt_222_canvas", 3): FULL,
    }  # fmt: skip


PEOPLE = ClassList((
    Person("al1", "Ann Lee", ("17",)), Person("al2", "Ann Lee", ("18",)), Person("bk", "König, Ben", ("1235",)),
    Person("j_smith", "Jo Smith"), Person("smith", "Al Smith"), Person("zz", "Zoe Z"),
))  # fmt: skip


def test_the_class_list_gives_logins_and_says_who_is_missing(place):
    done = place.collect(
        zipped((f"Ann Lee_17_assignsubmission_file_{X}", FULL), (f"Ann Lee_18_assignsubmission_file_{X}", HALF)),
        zipped((f"königben_7_8_{X}", FULL)),
        zipped((f"Final_PS_j_smith_attempt_2026-11-01-12-00-00_{X}", FULL)),
        zipped(("smith-homework.ipynb", FULL), (f"guest_{X}", FULL)),
        people=PEOPLE,
    )
    assert sorted(place.tree) == [(login, 3) for login in ("al1", "al2", "bk", "guest", "j_smith", "smith")]
    assert done.notes == ["guest: is nobody on the class list"]
    assert done.missing == ["zz"]
    assert [row.note for row in read_table(place.out / TABLE) if row.login == "zz"] == ["nothing handed in"]
    row = place.row(f"Ann Lee_18_assignsubmission_file_{X}")
    assert (row.login, row.folder, row.name, row.system, row.id) == ("al2", "al2", "Ann Lee", "moodle", "18")
    assert (row.lesson, row.time, row.note) == (SLICED.name, "2026-11-01 12:00:00", "")


def test_the_class_list_knows_sections(place):
    people = ClassList((Person("anna"), Person("ben")))
    place.collect(zipped((f"monday/anna/{X}", FULL), (f"tuesday/ben/{X}", HALF)), people=people)
    assert place.tree == {("anna", 3): FULL, ("ben", 3): HALF}


def test_blackboards_receipt_names_the_login(place):
    start = "My_PS_j_smith_attempt_2026-11-01-12-00-00"
    place.collect(zipped((f"{start}.txt", "Name: Jo Smith (j_smith)\nAssignment: My_PS\n"), (f"{start}_{X}", FULL)))
    assert list(place.tree) == [("j_smith", 3)]
    assert place.time("j_smith") == "2026-11-01 12:00:00\n"


def test_whose_file_it_is_must_be_said(place):
    done = place.collect(zipped(("homework.ipynb", FULL), (f"anna_{X}", FULL)))
    assert list(place.tree) == [("anna", 3)]
    assert done.notes == ["homework.ipynb: its name does not say whose it is"]


def test_what_was_collected_is_graded_by_login_and_canvas_numbers_are_kept(place):
    people = ClassList((Person("o'brien", "O'Brien, Zoe", ("77",)), Person("al1", "Ann Lee")))
    place.collect(
        zipped((f"obrienzoe_77_8_{X}", FULL), (f"leeann_78_9_{X}", FULL), (f"x<b>_79_9_{X}", FULL)), people=people
    )
    assert "o'brien" not in [path.name for path in place.out.iterdir()]
    intake = finding.find_submissions(place.out, COURSE)
    assert sorted(submission.student for submission in intake.submissions) == ["al1", "o'brien", "x<b>"]
    assert intake.canvas == {"al1": "78", "o'brien": "77", "x<b>": "79"}


# -- which one counts ------------------------------------------------------------------------------------------------


def test_of_several_files_the_one_with_answers_counts_and_the_others_are_noted(place):
    start, stem = "Ann_1_assignsubmission_file_", X.removesuffix(".ipynb")
    done = place.collect(zipped((f"{start}{X}", BLANK), (f"{start}{stem} (1).ipynb", FULL), (f"{start}x.py", "")))
    assert place.tree == {("Ann", 3): FULL}
    assert done.notes == [f"Ann: {start}{X}: left out, {start}{stem} (1).ipynb counts"]
    assert place.row(f"{start}x.py").note == "no notebook"


def test_of_several_attempts_the_last_one_counts(place):
    attempts = [(f"PS1_u1_attempt_2026-11-0{day}-12-00-00_{X}", text) for day, text in ((2, HALF), (1, FULL))]
    done = place.collect(zipped(*attempts, (f"PS1_u2_attempt_2026-11-01-00-00-00_{X}", FULL)))
    assert place.tree == {("u1", 3): HALF, ("u2", 3): FULL}
    assert done.notes == [f"u1: {attempts[1][0]}: left out, it is an earlier attempt"]
    assert place.time("u1") == "2026-11-02 12:00:00\n"


def test_the_lesson_is_the_notebooks_and_one_may_hand_in_two(place):
    place.collect(zipped(("anna/homework.ipynb", notebook(SCORE, SLICED)), ("ben/05.ipynb", FULL)))
    assert sorted(place.tree) == [("anna", 1), ("anna", 3), ("ben", 3)]


def test_again_takes_what_is_newer_and_removes_nothing(place):
    one, two = ((f"anna_{X}", HALF, EARLY), (f"ben_{X}", FULL, EARLY)), ((f"anna_{X}", FULL, LATER), (f"cem_{X}", FULL))
    assert place.collect(zipped(*one)).new == 2
    again = place.collect(zipped(*one))
    assert (again.new, again.newer, again.unchanged) == (0, [], 2)
    done = place.collect(zipped(*two))
    assert (done.new, done.newer, done.unchanged) == (1, [f"anna/{SLICED.name}"], 0)
    assert place.tree == {("anna", 3): FULL, ("ben", 3): FULL, ("cem", 3): FULL}
    assert place.time("anna") == "2026-11-02 12:00:00\n"
    back = place.collect(zipped(*one))  # an archive from before
    assert (place.tree["anna", 3], back.newer) == (FULL, [])
    assert back.notes == [f"anna: anna_{X}: left out, it is older than what was collected before"]
    assert {row.login for row in read_table(place.out / TABLE)} == {"anna", "ben", "cem"}


def test_canvas_numbers_tell_what_is_newer_where_times_do_not(place):
    names = [f"leeann_1_2_{X.replace('.ipynb', end)}" for end in ("-9.ipynb", "-10.ipynb")]
    place.collect(zipped((names[1], FULL)))
    place.collect(zipped((names[0], HALF)))
    assert place.tree == {("leeann", 3): FULL}


def test_times_are_the_systems_and_never_a_students(place):
    inner = zipped((X, FULL, EARLY), ("timestamp.txt", "1999-01-01"))
    done = place.collect(
        zipped(
            ("Ann_1_assignsubmission_file_/hw.zip", inner),
            ("Ann_1_assignsubmission_file_/timestamp.txt", "1999"),
            time=LATER,
        )
    )
    assert place.time("Ann") == "2026-11-02 12:00:00\n"
    assert done.notes == []
    put(place.folder / "in" / "ben" / X, FULL)
    put(place.folder / "in" / "ben" / "timestamp.txt", "1999")
    place.collect(place.folder / "in")  # when somebody copied the files is no time
    assert not (place.out / "ben" / SLICED.name / "timestamp.txt").exists()


def test_late_work_is_marked(place):
    done = place.collect(zipped((f"leeann_LATE_1_2_{X}", FULL)))
    assert (done.new, done.notes, place.row(f"leeann_LATE_1_2_{X}").note) == (1, [], "late")


def test_who_handed_in_no_notebook_has_a_folder_and_a_note(place):
    done = place.collect(zipped((f"anna/{X}", FULL), ("ben/x.py", ""), ("cem/x.ipynb", "{}")))
    assert done.notes == ["ben: ben/x.py: no notebook", "cem: cem/x.ipynb: belongs to no lesson"]
    assert (place.out / "ben").is_dir()
    assert list(place.tree) == [("anna", 3)]


@pytest.mark.parametrize("as_folder", [False, True], ids=["zip", "folder"])
@pytest.mark.parametrize("start", ["{}", "{}_1_assignsubmission_file_"])
def test_who_handed_in_nothing_that_is_seen_is_there_too(start, as_folder, place):
    ann, ben, cem = (start.format(name) for name in ("Ann", "Ben", "Cem"))
    files = [(f"{ann}/{X}", FULL), (f"{ben}/.ipynb_checkpoints/{X}", FULL), (f"__MACOSX/{ann}/._{X}", "")]
    source = zipped(*files, (f"{cem}/", ""))
    if as_folder:
        source = place.folder / "in"
        for name, text in files:
            put(source / name, text)
        (source / cem).mkdir()
    done = place.collect(source)
    assert sorted(path.name for path in place.out.iterdir() if path.is_dir()) == ["Ann", "Ben", "Cem"]
    assert place.tree == {("Ann", 3): FULL}
    assert [note.rpartition(": ")[2] for note in done.notes] == ["it is hidden", "an empty folder"]


def test_a_dry_run_writes_nothing_and_says_the_same(place):
    source = zipped((f"anna_{X}", FULL), ("x.ipynb", FULL))
    dry = place.collect(source, dry=True)
    assert not place.out.exists()
    done = place.collect(source)
    assert (dry.new, dry.notes, dry.rows) == (done.new, done.notes, done.rows)


# -- what wishes harm ------------------------------------------------------------------------------------------------


def entry(name, mode=0, **fields):
    info = zipfile.ZipInfo(name, EARLY.timetuple()[:6])
    info.create_system, info.external_attr = 3, mode << 16
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def patched(data, old, new):
    assert old in data
    return data.replace(old, new)


MOODLE = "Eve_1_assignsubmission_file_/"
HARM = {
    "a path out": ((f"{MOODLE}../../../x.ipynb", FULL), "its path leads out"),
    "an absolute path": ((f"/{MOODLE}x.ipynb", FULL), "its path leads out"),
    "a drive": ((f"C:\\{MOODLE}x.ipynb", FULL), "its path leads out"),
    "backslashes out": ((f"{MOODLE}..\\..\\x.ipynb", FULL), "its path leads out"),
    "a link": ((entry(f"{MOODLE}x.ipynb", stat.S_IFLNK | 0o777), "/etc/passwd"), "it is a link"),
    "a device": ((entry(f"{MOODLE}x.ipynb", stat.S_IFCHR | 0o666), ""), "it is no plain file"),
    "a bomb": ((f"{MOODLE}x.ipynb", b" " * ((1 << 20) + 1)), "it unpacks to more than 200 times its size"),
    "a large file": ((f"{MOODLE}x.ipynb", os.urandom((1 << 20) + 1)), "it is larger than 1 MB"),
    "a long name": ((f"{MOODLE}{'x' * 2000}.ipynb", FULL), "its name is too long"),
    "a zip that is none": ((f"{MOODLE}x.zip", b"no zip"), "it is no zip, or cut off"),
    "a zip cut off": ((f"{MOODLE}x.zip", zipped((X, FULL))[:-30]), "it is no zip, or cut off"),
    "a zip bomb inside": (
        (f"{MOODLE}x.zip", zipped(("a.ipynb", bytes(1 << 19)), ("b.ipynb", bytes(1 << 20)))),
        "it unpacks to more than 1 MB",
    ),
    "too many inside": (
        (f"{MOODLE}x.zip", zipped(*((f"{i}", "") for i in range(archives.MOST_INSIDE + 1)))),
        "it holds more than 2,000 files",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", HARM)
def test_one_bad_file_is_one_note_and_nothing_lies_outside(kind, place, monkeypatch):
    monkeypatch.setattr(archives, "LARGEST_ZIP", 1 << 20)
    monkeypatch.setattr(handin, "LARGEST_FILE", 1 << 20)
    bad, words = HARM[kind]
    start, end = (f"Ann_2_assignsubmission_file_/{X}", FULL), (f"Ben_3_assignsubmission_file_/{X}", HALF)
    done = place.collect(zipped(start, bad, end))
    assert place.tree == {("Ann", 3): FULL, ("Ben", 3): HALF}
    assert len(done.notes) == 1
    assert words in done.notes[0]
    assert sorted(path.name for path in place.folder.iterdir()) == ["0.zip", "submitted"]


BROKEN = {
    "encrypted": (lambda data: encrypted(data), "it is encrypted"),
    "a wrong checksum": (lambda data: patched(data, b"CLEAN", b"DIRTY"), "it cannot be unpacked: BadZipFile"),
    "an unknown method": (lambda data: unknown_method(data), "it cannot be unpacked: NotImplementedError"),
    "a null character": (lambda data: patched(data, b"Eve.ipynb", b"Eve\0ipynb"), "null character"),
}


def encrypted(data):
    at = data.rfind(b"PK\1\2")
    return data[: at + 8] + b"\1" + data[at + 9 :]


def unknown_method(data):
    at = data.rfind(b"PK\1\2")
    return data[: at + 10] + b"\x63" + data[at + 11 :]


@pytest.mark.parametrize("kind", BROKEN)
def test_what_cannot_be_unpacked_is_one_note(kind, place):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(zipfile.ZipInfo(f"Ann_2_assignsubmission_file_/{X}"), FULL)
        archive.writestr(zipfile.ZipInfo("Eve_1_assignsubmission_file_/Eve.ipynb"), FULL + "CLEAN")
    change, words = BROKEN[kind]
    done = place.collect(change(out.getvalue()))
    assert place.tree == {("Ann", 3): FULL}
    assert len(done.notes) == 1
    assert words in done.notes[0]


def test_an_archive_that_unpacks_to_too_much_is_read_up_to_there(place, monkeypatch):
    monkeypatch.setattr(archives, "MOST_BYTES", len(FULL) + 10)
    done = place.collect(zipped((f"anna_{X}", FULL), (f"ben_{X}", FULL), (f"cem_{X}", FULL)))
    assert sorted(place.tree) == [("anna", 3), ("ben", 3)]
    assert [note.partition(": ")[0] for note in done.notes] == ["cem"]
    assert "unpacks to more than" in done.notes[0]


def test_a_zip_in_a_zip_is_unpacked_once(place, monkeypatch):
    unpacked, read = [], archives._read
    monkeypatch.setattr(archives, "_read", lambda zipped, info: unpacked.append(info.filename) or read(zipped, info))
    inner = zipped((X, FULL), *((f"{i}.ipynb", OTHER) for i in range(5)))
    source = zipped(("anna/hw.zip", inner), ("ben/hw.zip", inner))
    place.collect(source)
    assert [unpacked.count(f"{name}/hw.zip") for name in ("anna", "ben")] == [1, 1]


def test_zips_in_a_zip_that_are_not_kept_open_count_each_time(tmp_path, monkeypatch):
    inner = zipped((X, random.Random(0).randbytes(1000)))  # which cannot be packed
    monkeypatch.setattr(archives, "LARGEST_ZIP", 2000)  # one is kept open, two are not
    monkeypatch.setattr(archives, "MOST_BYTES", 3 * len(inner))
    (tmp_path / "x.zip").write_bytes(zipped(("anna/hw.zip", inner), ("ben/hw.zip", inner)))
    with Archive(tmp_path / "x.zip") as archive:
        anna, ben = archive.items()
        assert len(anna.read()) == 1000
        with pytest.raises(ArchiveError, match="unpacks to more than"):
            ben.read()


def test_a_list_of_files_that_is_too_long_is_not_read(place, monkeypatch):
    monkeypatch.setattr(archives, "MOST_ENTRIES", 10)
    with pytest.raises(CollectError, match="holds more than 10 files"):
        place.collect(zipped(*((f"{i}_{X}", FULL) for i in range(11))))
    data = bytearray(zipped((f"anna_{X}", FULL)))
    at = data.rfind(b"PK\5\6")
    data[at + 12 : at + 16] = struct.pack("<L", 0xFFFFFFFF)
    with pytest.raises(CollectError, match="holds more than 10 files"):
        place.collect(bytes(data))


def test_the_same_path_twice_is_two_files_of_which_one_counts(place):
    with pytest.warns(UserWarning, match="Duplicate name"):
        source = zipped((f"anna_{X}", HALF), (f"anna_{X}", FULL))
    done = place.collect(source)
    assert place.tree == {("anna", 3): FULL}
    assert len(done.notes) == 1


def test_names_equal_up_to_case_get_folders_that_differ_by_more(place):
    place.collect(zipped((f"Anna/{X}", FULL), (f"anna/{X}", HALF), (f"Mu\u0308/{X}", FULL), (f"Mü/{X}", HALF)))
    folders = [path.name for path in place.out.iterdir() if path.is_dir()]
    assert len(folders) == len({collecting.same(name) for name in folders}) == 4
    assert sorted(place.tree.values()) == sorted([FULL, HALF, FULL, HALF])


def test_names_that_claim_no_encoding_are_read_as_they_were_meant(place):
    data = zipped(("Jos? M?ller_1_assignsubmission_file_x.ipynb".replace("?", "Q"), FULL))
    names = (b"JosQ MQller", "José Mller".encode())
    assert len(names[0]) == len(names[1])
    place.collect(patched(data, *names))
    assert list(place.tree) == [("José Mller", 3)]


def test_folders_of_any_name_are_collected(place):
    for name in NAMES:
        put(place.folder / "in" / os.fsdecode(name) / X, FULL)
    done = place.collect(place.folder / "in")
    assert len(place.tree) == len(NAMES)
    assert all(re.fullmatch(r"[\w @.-]+", student) for student, _ in place.tree)
    assert all(note.isprintable() for note in done.notes)
    text = (place.out / TABLE).read_text(encoding="utf-8")
    assert len(rows_of(place.out / TABLE)) == len(NAMES) + 1
    assert not re.search(r"(^|[,;])[=+@-]", text, re.MULTILINE)


def test_special_files_in_a_folder_are_noted(place):
    put(place.folder / "in" / "anna" / X, FULL)
    (place.folder / "in" / "eve").mkdir()
    os.mkfifo(place.folder / "in" / "eve" / "x.ipynb")
    (place.folder / "in" / "eve" / "y.ipynb").symlink_to(place.folder / "in" / "anna" / X)
    (place.folder / "in" / "zoe").symlink_to(place.folder / "in" / "anna")
    done = place.collect(place.folder / "in")
    assert place.tree == {("anna", 3): FULL}
    assert sorted(note.rpartition(": ")[2] for note in done.notes) == [
        "it is a link",
        "it is a link",
        "it is no plain file",
    ]


def test_of_one_student_few_notes_are_printed(place):
    done = place.collect(zipped((f"ben/{X}", FULL), *((f"eve/{i}.ipynb", "{}") for i in range(99))))
    assert len(done.notes) == collecting.MOST_NOTES + 1
    assert done.notes[-1] == "eve: more notes on this student are in collected.csv"
    assert len(read_table(place.out / TABLE)) == 100


def test_a_folder_that_cannot_be_made_is_a_note(place):
    place.out.mkdir()
    (place.out / "anna").touch()
    (place.out / "cem").touch()
    done = place.collect(zipped((f"anna/{X}", FULL), (f"ben/{X}", HALF), ("cem/x.py", "")))
    assert place.tree == {("ben", 3): HALF}
    assert len(done.notes) == 2
    assert "not collected: " in done.notes[0]


# -- from the system to the tables -----------------------------------------------------------------------------------


def passed(tasks, *options):
    """Records in which every exercise has passed, without a sandbox."""
    for task in tasks:
        marks = tuple(Mark(exercise, "passed") for exercise in task.lesson.functions)
        yield Record(task.submission, marks, (), task.digest, task.fingerprint)


def test_everybody_has_a_row_in_every_table(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(classroom, "grade_here", passed)
    solved = (ROOT / "solutions" / "00_start_here.ipynb").read_bytes()
    names = ("leeann_17_1_x.ipynb", "kayben_18_3_x.py", "b\x1b<i>_19_4_x.ipynb", "=1_20_5_x.ipynb")
    (tmp_path / "canvas.zip").write_bytes(zipped(*((name, solved) for name in names)))
    (tmp_path / "list.csv").write_text("login,name\nal1,Ann Lee\nbk,Ben Kay\ncx,Cleo X\n")
    students = ("--students", tmp_path / "list.csv")
    assert call("collect", tmp_path / "canvas.zip", "--out", tmp_path / "in", *students).exit_code == 0
    result = call("grade", tmp_path / "in", "--out", tmp_path / "out", "--lesson", "0", *students)
    assert result.exit_code == 0, result.output
    tables = {path.stem: rows_of(path) for path in (tmp_path / "out").glob("*.csv")}
    everybody = ["'=1", "al1", "b\\x1b<i>", "bk", "cx"]
    assert sorted(row[0] for row in tables["totals"][1:]) == everybody
    assert sorted(row[0] for row in tables["marks"][1:]) == everybody
    marks = {row[0]: (row[3], row[7], row[8]) for row in tables["marks"]}
    assert marks["bk"] == ("nothing handed in", "an empty folder", "nothing handed in")
    assert marks["cx"] == ("nothing handed in", "no folder of this name", "nothing handed in")
    rows = (("al1", "17"), ("bk", "18"), ("cx", ""))
    assert [row[:5] for row in tables["canvas"][2:]] == [[login, number, "", login, ""] for login, number in rows]
    assert [row[0] for row in tables["notes"] if "no table for import" in row[2]] == ["'=1", "b\\x1b<i>"]
    assert ["b\\x1b<i>", "", "is nobody on the class list"] in tables["notes"]
    assert (result.stdout + result.stderr).replace("\n", "").isprintable()


# -- the command -----------------------------------------------------------------------------------------------------


def rows_of(path):
    return list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))


def call(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_the_command_says_what_it_did(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    solved = (ROOT / "solutions" / X).read_bytes()
    (tmp_path / "m.zip").write_bytes(zipped((f"Ann Lee_1_assignsubmission_file_{X}", solved), ("x\x1b[2J.ipynb", "{}")))
    (tmp_path / "list.csv").write_text("login;name\nal1;Ann Lee\nbk;Ben Kay\n")
    (tmp_path / "ps1").mkdir()
    (tmp_path / "ps1" / "nbgrader_config.py").touch()
    result = call("collect", tmp_path / "m.zip", "--course", tmp_path / "ps1", "--students", tmp_path / "list.csv")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "ps1" / "submitted" / "al1" / SLICED.name / X).read_bytes() == solved
    assert (
        "students: 1; notebooks: 1 were collected, 0 were replaced by newer, 0 are as before; notes: 1" in result.stdout
    )
    assert "note: x\\x1b[2J.ipynb: belongs to no lesson" in result.stderr
    assert "note: nothing from 1 of the class list: bk" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("gone.zip", "--out", "out"), "gone.zip: there is no such file or folder"),
        (("bad.zip", "--out", "out"), "bad.zip: it is no zip, or cut off"),
        (("good.zip",), "one of --course and --out is needed"),
        (("good.zip", "--out", "out", "--course", "out"), "one of --course and --out is needed"),
        (("good.zip", "--course", "out"), "out is no course directory"),
        (("good.zip", "--out", "bad.zip"), "Not a directory"),
        (("good.zip", "--out", "out", "--students", "gone.csv"), "students: "),
        ((".", "--out", "out"), "lie in one another"),
    ],
)
def test_bad_requests_are_refused_in_one_line(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    (tmp_path / "good.zip").write_bytes(zipped((f"anna_{X}", FULL)))
    (tmp_path / "bad.zip").write_text("no zip")
    result = call("collect", *(a if a.startswith("--") else tmp_path / a for a in arguments))
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_one_archive_that_is_none_ends_nothing(place):
    done = place.collect(b"no zip", zipped((f"anna_{X}", FULL)))
    assert list(place.tree) == [("anna", 3)]
    assert ["it is no zip" in note for note in done.notes] == [True]
    with pytest.raises(ArchiveError):
        Archive(place.folder / "0.zip")
