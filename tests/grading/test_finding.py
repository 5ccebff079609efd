"""Which notebook is graded, and that nobody disappears: by the cells' own marks, not by what a file is called."""

import json
import os
import socket
import string
import unicodedata

import pytest

from coursework.grading import finding, lms_names, names
from coursework.grading.class_list import ClassListError, read_class_list
from coursework.grading.finding import SEVERAL, FindingError
from coursework.grading.handin import Lesson

SCORE = Lesson("01_score_function", {"1.1": "gaussian_score", "1.2": "mixture_score"})
SLICED = Lesson("03_sliced_score_matching", {"3.1": "quadratic_form", "3.2": "hutchinson", "3.3": "trace_variance"})
LANGEVIN = Lesson("05_langevin_dynamics", {"5.1": "langevin_step"})
COURSE = (SCORE, SLICED, LANGEVIN)


def notebook(*lessons, answered=99, marks="coursework"):
    """A notebook with the exercises of lessons, the first of which are answered."""
    cells = []
    for lesson in lessons:
        for number, (exercise, name) in enumerate(lesson.functions.items()):
            body = "return x" if number < answered else "raise NotAttempted"
            metadata = {
                "coursework": {"coursework": {"role": "exercise", "id": exercise}},
                "nbgrader": {"nbgrader": {"grade_id": f"exercise-{exercise.replace('.', '-')}"}},
                "": {},
            }[marks]
            cells.append({"cell_type": "code", "source": f"def {name}(x):\n    {body}\n", "metadata": metadata})
    return json.dumps({"cells": cells})


def put(path, text, age=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (1_700_000_000 - age, 1_700_000_000 - age))


def find(folder, lessons=COURSE, people=None):
    return finding.find_submissions(folder, lessons, COURSE, people)


def graded(folder, **options):
    """What is graded, by student and lesson's number."""
    intake = find(folder, **options)
    return {
        (s.student, int(s.lesson[:2])): str(s.path.relative_to(folder)).partition("/")[2] for s in intake.submissions
    }


# -- the lesson of a notebook --------------------------------------------------------------------------------------


@pytest.mark.parametrize("marks", ["coursework", "nbgrader", ""])
@pytest.mark.parametrize(
    "name",
    ["Homework 1", "03.10.2024 homework", "03-10-2026 langevin homework", "05_langevin_dynamics", "03", "2024_01_03"],
)  # fmt: skip
def test_the_lesson_is_what_the_cells_say_whatever_the_file_is_called(name, marks, tmp_path):
    put(tmp_path / "anna" / f"{name}.ipynb", notebook(SCORE, marks=marks))
    assert graded(tmp_path) == {("anna", 1): f"{name}.ipynb"}
    assert find(tmp_path, [SLICED]).notes == []  # another lesson is none of the grading's business


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("03_sliced_score_matching", 3),
        ("anna_03_sliced_score_matching (2)", 3),
        ("03", 3),
        ("3 my work", 3),
        ("03 large", 3),
        ("03_x", 3),
        ("03.10.2024 homework", None),
        ("03-10-2026 langevin", None),
        ("3_10", None),
        ("30_x", None),
        ("homework 3", None),
    ],
)
def test_a_file_without_exercises_goes_by_its_name_and_a_date_is_none(name, number):
    found = finding.lessons_of(b"no notebook", name, COURSE)
    assert [int(lesson[:2]) for lesson in found] == ([] if number is None else [number])


def test_a_notebook_of_two_lessons_hands_in_both_and_a_copied_cell_hands_in_none(tmp_path):
    put(tmp_path / "anna" / "all.ipynb", notebook(SCORE, SLICED))
    put(tmp_path / "ben" / "03.ipynb", notebook(SLICED, Lesson("01_score_function", {"1.1": "f"}), answered=1))
    lone = Lesson("02_x", {f"2.{i}": f"f{i}" for i in range(1, 7)})
    copied = finding.lessons_of(notebook(SLICED, Lesson("02_x", {"2.1": "f1"})).encode(), "", (*COURSE, lone))
    assert graded(tmp_path)["anna", 1] == graded(tmp_path)["anna", 3] == "all.ipynb"
    assert copied == {SLICED.name: 0}


def test_the_time_to_look_for_stubs_grows_with_the_cells_length_only():
    cell = {
        "cell_type": "code",
        "source": "\n" * 1_000_000,
        "metadata": {"coursework": {"role": "exercise", "id": "1.1"}},
    }
    assert finding.lessons_of(json.dumps({"cells": [cell]}).encode(), "", COURSE) == {SCORE.name: 2}


@pytest.mark.parametrize("name", ["X.IPYNB", "03_x.ipynb.txt", "03_x.ipynb.json"])
def test_a_notebook_is_one_whatever_a_browser_put_to_its_name(name, tmp_path):
    put(tmp_path / "anna" / name, notebook(SLICED))
    assert graded(tmp_path) == {("anna", 3): name}


# -- which of several ----------------------------------------------------------------------------------------------

BLANK, HALF, FULL = (notebook(SLICED, answered=n) for n in (0, 2, 3))
OWN = "03_sliced_score_matching"


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        ({OWN: (BLANK, 0), f"{OWN} (1)": (FULL, 9)}, f"{OWN} (1)"),
        ({OWN: (BLANK, 0), f"{OWN}_FINAL": (FULL, 9)}, f"{OWN}_FINAL"),
        ({OWN: (FULL, 9), f"{OWN} (1)": (BLANK, 0)}, OWN),  # fetched once more, by mistake
        ({OWN: (HALF, 0), "x": (FULL, 9)}, "x"),
        ({OWN: (FULL, 0), f"{OWN}-1": (FULL, 9), f"{OWN}-2": (FULL, 5)}, f"{OWN}-2"),
        ({f"{OWN}-9": (FULL, 0), f"{OWN}-10": (FULL, 0)}, f"{OWN}-10"),
        ({f"{OWN} (2)": (FULL, 0), f"{OWN} (10)": (FULL, 0)}, f"{OWN} (10)"),
        ({"a": (FULL, 9), "b": (FULL, 0)}, "b"),
        ({OWN: (FULL, 9), f"{OWN}-Copy1": (FULL, 0)}, OWN),
        ({OWN: (FULL, 9), f"{OWN}.mine-1": (FULL, 0)}, OWN),
        ({OWN: (BLANK, 0), f"{OWN}.mine-1": (HALF, 9)}, f"{OWN}.mine-1"),
        ({OWN: ("no notebook", 0), "mine": (HALF, 9)}, "mine"),
        ({OWN: (FULL, 0), "x": (FULL, 0)}, OWN),
    ],
)
def test_the_one_with_answers_is_graded_and_of_equal_ones_the_newest(files, chosen, tmp_path):
    for name, (text, age) in files.items():
        put(tmp_path / "anna" / f"{name}.ipynb", text, age)
    assert graded(tmp_path) == {("anna", 3): f"{chosen}.ipynb"}
    notes = find(tmp_path).notes
    assert {(note.student, note.lesson, note.flag) for note in notes} == {("anna", OWN, SEVERAL)}
    left = set(files) - {chosen}
    assert {note.text for note in notes} == {
        f"anna/{name}.ipynb: left out, anna/{chosen}.ipynb is graded" for name in left
    }


# -- nobody disappears ---------------------------------------------------------------------------------------------


def unusual(folder, kind):
    """A student's folder without a notebook that is read."""
    folder.mkdir()
    if kind == "checkpoints":
        put(folder / ".ipynb_checkpoints" / "03.ipynb", FULL)
    elif kind == "hidden":
        put(folder / ".mine" / "03.ipynb", FULL)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder / "03.ipynb"))
    elif kind == "fifo":
        os.mkfifo(folder / "03.ipynb")
    elif kind == "link":
        (folder / "03.ipynb").symlink_to(folder.parent / "anna" / "03.ipynb")
    elif kind == "many":
        for i in range(finding.MOST_FILES + 1):
            (folder / f"{i:05}.txt").touch()
        put(folder / "zz.ipynb", FULL)
    elif kind == "other lesson":
        put(folder / "05.ipynb", notebook(LANGEVIN))
    elif kind != "empty":
        put(folder / kind, "")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("empty", "an empty folder"),
        ("checkpoints", "no notebook, only .ipynb_checkpoints"),
        ("hand in.zip", "no notebook, only hand in.zip (`coursework collect` opens zips)"),
        ("X.py", "no notebook, only X.py"),
        ("hidden", "no notebook, only the hidden .mine"),
        ("fifo", "no notebook, only 03.ipynb, which is no plain file"),
        ("socket", "no notebook, only 03.ipynb, which is no plain file"),
        ("link", "no notebook, only the link 03.ipynb"),
        ("many", "more than 2,000 files"),
        ("other lesson", "no notebook of this lesson"),
    ],
)
def test_who_hands_in_nothing_has_a_row_with_the_reason(kind, reason, tmp_path):
    put(tmp_path / "anna" / "03.ipynb", FULL)
    unusual(tmp_path / "ben", kind)
    intake = find(tmp_path, [SLICED])
    assert intake.students == ["anna", "ben"]
    assert list(intake.missing) == [("ben", SLICED.name)]
    assert reason in intake.missing["ben", SLICED.name]


def test_a_linked_folder_is_a_student_who_handed_in_nothing(tmp_path):
    put(tmp_path / "anna" / "03.ipynb", FULL)
    (tmp_path / "eve").symlink_to(tmp_path / "anna")
    assert find(tmp_path).missing == {("eve", SLICED.name): "no notebook, only a link"}


def test_files_beyond_the_bound_are_noted_where_a_notebook_was_found(tmp_path):
    put(tmp_path / "anna" / "03.ipynb", FULL)
    for i in range(finding.MOST_FILES):
        (tmp_path / "anna" / f"{i:05}.txt").touch()
    assert [(note.student, note.text) for note in find(tmp_path).notes] == [("anna", "more than 2,000 files")]


def test_only_so_much_of_one_student_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(finding, "MOST_BYTES", 2 * len(FULL))
    for name in "abc":
        put(tmp_path / "anna" / f"{name}.ipynb", FULL)
    notes = [note.text for note in find(tmp_path).notes]
    assert len(notes) == 2
    assert "more than 200 notebooks, or 0 MB of them" in notes
    assert graded(tmp_path) == {("anna", 3): "a.ipynb"}


# -- the folders ---------------------------------------------------------------------------------------------------


def test_folders_of_folders_are_sections(tmp_path):
    for student in ("groupA/anna", "groupA/ben", "groupB/cem", "groupB/anna", "groupB/none"):
        put(tmp_path / student / "03.ipynb", FULL if student[-1] != "e" else "{}")
    assert sorted(graded(tmp_path)) == [(name, 3) for name in ("ben", "cem", "groupA anna", "groupB anna", "none")]


def test_sections_and_folders_that_together_read_the_same_are_different_students(tmp_path):
    for folder in ("A/B C", "A/C", "A B/B C", "A B/C", "D/A B C", "D/dora"):
        put(tmp_path / folder / "03.ipynb", FULL)
    apart = {"A\\x2fB C", "A B\\x2fC", "D\\x2fA B C"}
    assert set(find(tmp_path).students) == {"A C", "A B B C", "dora"} | apart


def test_nbgraders_tree_and_deep_folders_are_no_sections(tmp_path):
    for student in ("anna", "ben"):
        put(tmp_path / student / SLICED.name / "x.ipynb", FULL)
        put(tmp_path / student / SCORE.name / "x.ipynb", notebook(SCORE))
    put(tmp_path / "cem" / "old" / "03.ipynb", FULL, age=9)
    put(tmp_path / "cem" / "new" / "03.ipynb", FULL)
    found = graded(tmp_path)
    assert {student for student, _ in found} == {"anna", "ben", "cem"}
    assert found["cem", 3] == "new/03.ipynb"


def test_notebooks_without_folders_are_refused_in_a_line_that_says_what_is_expected(tmp_path):
    put(tmp_path / "anna_03.ipynb", FULL)
    with pytest.raises(FindingError, match="one folder for each student is expected"):
        find(tmp_path)
    put(tmp_path / "ben" / "03.ipynb", FULL)
    assert [str(note) for note in find(tmp_path).notes] == ["anna_03.ipynb: lies in no student's folder"]


def test_a_course_directory_is_no_folder_of_students(tmp_path):
    put(tmp_path / "nbgrader_config.py", "")
    put(tmp_path / "source" / SLICED.name / "x.ipynb", FULL)
    with pytest.raises(FindingError, match=r"lies in .*submitted"):
        find(tmp_path)


# -- the class list ------------------------------------------------------------------------------------------------

LISTS = {
    "plain": "login,name\nal1,Ann Lee\nbk2,Ben König\n",
    "semicolons": "\ufeffLogin;Name\nal1;Ann Lee\nbk2;Ben König\n",
    "tabs": "name\tusername\nAnn Lee\tal1\nBen König\tbk2\n",
    "Moodle's participants": "First name,Surname,Username,Email address\nAnn,Lee,al1,a@b\nBen,König,bk2,b@b\n",
    "Moodle's worksheet": "Identifier,Full name,Username\nParticipant 17,Ann Lee,al1\nParticipant 18,Ben König,bk2\n",
    "Canvas": 'Student,ID,SIS User ID,SIS Login ID,Section\n    Points Possible,,,,\n"Lee, Ann",17,s1,al1,A\n'
    '"König, Ben",18,s2,bk2,A\n"Student, Test",99,,f00,A\n',
    "Blackboard": '"Last Name"\t"First Name"\t"Username"\n"Lee"\t"Ann"\t"al1"\n"König"\t"Ben"\t"bk2"\n',
    "logins alone": "al1\nbk2\n",
}


@pytest.mark.parametrize("kind", LISTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_class_lists_are_read_as_the_systems_export_them(kind, encoding, tmp_path):
    text = LISTS[kind] if encoding == "utf-8" else LISTS[kind].lstrip("\ufeff")
    (tmp_path / "list.csv").write_bytes(text.encode(encoding))
    people = read_class_list(tmp_path / "list.csv")
    assert [person.login for person in people.people] == ["al1", "bk2"]
    if kind != "logins alone":
        assert people.find(name="ann  lee").login == people.find(name="Lee, Ann").login == "al1"
        assert people.find(name="Ko\u0308nig Ben").login == "bk2"
        assert people.find(name="leeann").login == "al1"
    if kind in ("Moodle's worksheet", "Canvas"):
        assert people.find(number="18").login == people.find(name="Ben König", number="18").login == "bk2"
        assert people.find(name="Somebody", number="18") is None
    assert people.find(name="Nobody") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it names nobody"),
        ("a,b\n1,2\n", "no heading names a login"),
        ("login,name\nx,Ann\nx,Ben\n", "the login 'x' stands there for two people"),
        ("login,name\n,Ann\n", "it names nobody"),
    ],
)
def test_a_class_list_that_makes_no_sense_is_refused(text, words, tmp_path):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(ClassListError, match=words):
        read_class_list(tmp_path / "list.csv")


def test_a_login_on_the_list_leads_out_of_no_folder(tmp_path):
    (tmp_path / "list.csv").write_text("login\n../../x\n..\na\\b\n")
    people = read_class_list(tmp_path / "list.csv").people
    assert [person.login for person in people] == ["..\\x2f..\\x2fx", "\\x2e\\x2e", "a\\\\b"]


def test_everybody_on_the_class_list_has_a_row_and_folders_go_by_login(tmp_path):
    (tmp_path / "list.csv").write_text("login,name,id\nal1,Ann Lee,17\nbk2,Ben Kay,18\ncx3,Cleo X,19\ndd4,Ann D,20\n")
    people, school = read_class_list(tmp_path / "list.csv"), tmp_path / "school"
    for folder in ("Ann Lee_17_assignsubmission_file_", "ben kay", "AL1", "Zoe"):
        put(school / folder / "x.ipynb", FULL)
    intake = find(school, people=people)
    assert intake.students == ["Zoe", "al1", "bk2", "cx3", "dd4"]
    assert sorted(submission.student for submission in intake.submissions) == ["Zoe", "al1", "bk2"]
    assert intake.missing == {(who, SLICED.name): "no folder of this name" for who in ("cx3", "dd4")}
    assert ("Zoe", "is nobody on the class list") in [(note.student, note.text) for note in intake.notes]


def test_two_people_of_one_name_are_nobody_by_name_and_told_apart_by_number(tmp_path):
    (tmp_path / "list.csv").write_text("login,name,id\na1,Ann Lee,17\na2,Ann Lee,18\n")
    people = read_class_list(tmp_path / "list.csv")
    assert people.find(name="Ann Lee") is None
    assert people.find(name="Ann Lee", number="18").login == "a2"


def test_sections_are_known_by_the_class_list(tmp_path):
    (tmp_path / "list.csv").write_text("login\nanna\nben\n")
    people, school = read_class_list(tmp_path / "list.csv"), tmp_path / "school"
    put(school / "monday" / "anna" / "03.ipynb", FULL)
    put(school / "tuesday" / "ben" / "03.ipynb", FULL)
    assert sorted(graded(school, people=people)) == [("anna", 3), ("ben", 3)]


def test_one_students_folders_make_no_sections_of_the_others(tmp_path):
    (tmp_path / "list.csv").write_text("login\nbob\n")
    people, school = read_class_list(tmp_path / "list.csv"), tmp_path / "school"
    for folder in ("eve/bob", "cem", "dora"):
        put(school / folder / "03.ipynb", FULL)
    assert sorted(graded(school, people=people)) == [("cem", 3), ("dora", 3), ("eve", 3)]


# -- names of any bytes --------------------------------------------------------------------------------------------

NAMES = [
    b"Jos\xe9", b"\x1b[2Jben", b"a\nzzz: 6 of 6 passed", "a\u202eb".encode(), b"<img src=x onerror=alert(1)>",
    b"    Points Possible", b"=1+1", b"x;=1+1", b"[a-z]*?", b"\\xe9", b"\xc3\xa9", "e\u0301".encode(), b"ANNA", b"anna",
    b"a" * 255, ("ü" * 127).encode(), b"\xff" * 255, b"O'Brien", b"%20", b"-rf", b"'", b"\x7f", b"\xe2\x80\xa8",
    b"a b ",
]  # fmt: skip


def test_names_of_any_bytes_are_shown_on_a_line_and_stay_apart(tmp_path):
    for name in NAMES:
        put(tmp_path / os.fsdecode(name) / "03.ipynb", FULL)
    intake = find(tmp_path)
    assert len(intake.submissions) == len(intake.students) == len(set(intake.students)) == len(NAMES)
    for student in intake.students:
        assert student.isprintable()
        assert student == student.strip()
        assert len(student.encode()) <= 120  # and can be encoded
        assert "/" not in student
    assert {"Jos\\xe9", "\\\\xe9", "\\x1b[2Jben", "a\\u202eb", "anna", "O'Brien"} <= set(intake.students)
    alike = [note.student for note in intake.notes if "differs from" in note.text]
    assert sorted(alike) == ["anna", unicodedata.normalize("NFC", "é")]
    assert all(str(note).isprintable() for note in intake.notes)


def test_file_names_in_notes_are_shown_on_a_line(tmp_path):
    for name in ("a\x1b[2J", "b\nzzz: 6 of 6 passed"):
        put(tmp_path / "anna" / f"{name}.ipynb", FULL)
    assert [str(note).isprintable() for note in find(tmp_path).notes] == [True]


LONG = [
    "a" * 200,
    "ü" * 70,
    "李" * 60,
    "a" * 107 + "𝒜" * 9,
    "a" * 50 + " " * 100 + "b",
    "\udcff" * 50,
    "a" * 108 + "/" * 9,
]


@pytest.mark.parametrize(
    ("call", "name"),
    [(call, x) for call in (names.student_name, names.safe_id) for x in LONG]
    + [(names.safe_id, x) for x in ("Müller, Ann", "a/b", "x.")],
)
def test_a_name_that_looks_like_what_another_became_becomes_something_else(name, call):
    first = call(name)
    second = call(first)  # which may be somebody's folder
    assert len({name, first, second, call(second)}) == 4
    assert len(second.encode()) <= 120


def test_folders_named_as_a_shortened_one_are_other_students(tmp_path):
    long = "a" * 200
    for name in (long, names.student_name(long)):
        put(tmp_path / name / "03.ipynb", FULL)
    assert len(set(find(tmp_path).students)) == 2
    for name in ("anna-1234567890", "deadbeef-deadbeef00"):  # as a login may be
        assert names.student_name(name) == name


def test_a_safe_id_is_harmless_and_stays_as_it_is():
    harmless = set(string.ascii_letters + string.digits + " ._@-")
    for name in map(os.fsdecode, NAMES):
        found = names.safe_id(name)
        assert all(c in harmless or c.isalnum() for c in found)
        assert found[0].isalnum()
        assert len(found.encode()) <= 120
    assert len({names.safe_id(os.fsdecode(name)) for name in NAMES}) == len(NAMES)
    for name in ("anna", "Ben Low", "j_smith", "a.b@c.edu", "Müller", "李雷"):
        assert names.safe_id(name) == name


# -- what systems call files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Ann Lee_123_assignsubmission_file_03_x.ipynb", ("moodle", "Ann Lee", "", "123", "03_x.ipynb")),
        ("Ann Lee_2_assignsubmission_file_", ("moodle", "Ann Lee", "", "2", "")),
        ("Ann Lee_2_assignsubmission_file", ("moodle", "Ann Lee", "", "2", "")),
        ("Ann Lee_2_assignsubmission_onlinetext_onlinetext.html", ("moodle", "Ann Lee", "", "2", "onlinetext.html")),
        ("Under_Score Name_7_assignsubmission_file_x.ipynb", ("moodle", "Under_Score Name", "", "7", "x.ipynb")),
        ("Eve_3_assignsubmission_file_Bob_2_assignsubmission_file_x.ipynb",
         ("moodle", "Eve", "", "3", "Bob_2_assignsubmission_file_x.ipynb")),
        ("leeann_1234_5678_03_x-1.ipynb", ("canvas", "leeann", "", "1234", "03_x-1.ipynb")),
        ("leeann_LATE_1234_5678_03_x.ipynb", ("canvas", "leeann", "", "1234", "03_x.ipynb")),
        ("under_score_1_2_03_x.ipynb", ("canvas", "under_score", "", "1", "03_x.ipynb")),
        ("eve_3_4_bob_1_2_03_x.ipynb", ("canvas", "eve", "", "3", "bob_1_2_03_x.ipynb")),
        ("PS1_u12345_attempt_2026-11-01-12-00-00_03_x.ipynb", ("blackboard", "", "PS1_u12345", "", "03_x.ipynb")),
        ("PS1_u12345_attempt_2026-11-01-12-00-00.txt", ("blackboard", "", "PS1_u12345", "", ".txt")),
    ],
)  # fmt: skip
def test_the_part_of_the_system_is_told_from_the_students_part(name, expected):
    found = lms_names.read_name(name)
    assert (found.system, found.name, found.login, found.number, found.file) == expected
    assert found.late == ("LATE" in name)
    assert found.attempt == ("2026-11-01 12:00:00" if "attempt" in name else "")


@pytest.mark.parametrize("name", ["anna_03_x.ipynb", "j_smith_01_score_function.ipynb", "anna", "Ann Lee", "x_1.ipynb"])
def test_a_name_of_no_system_is_none(name):
    assert lms_names.read_name(name) is None
