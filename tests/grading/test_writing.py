"""Written derivations: whatever may be an answer reaches a person, with its pictures, and harms nobody's page."""

import base64
import json
from pathlib import Path

import nbformat
import pytest
from nbconvert import HTMLExporter
from nbformat import v4
from traitlets.config import Config

from coursework.exercises.exercise import lesson_derivations
from coursework.grading import handin
from coursework.grading.handin import Lesson
from coursework.grading.marking import Mark
from coursework.grading.pictures import LARGEST, MOST
from coursework.grading.rebuilding import rebuilt
from coursework.grading.release import CONFIG, derivation_cells
from coursework.grading.stripping import without_outputs
from coursework.grading.writing import Written, cell_name

(DERIVATION,) = lesson_derivations(3)
NAME = cell_name(DERIVATION.id)
STUB = "*Write your answer here.*"
CODE, TEXT, NEXT = "x = torch.ones(3)", "## A section", "The lesson goes on."
LESSON = Lesson(
    "03_sliced_score_matching",
    {"3.3": "trace_variance", "3.4": "ssm_loss"},
    {handin.digest(source): "lesson" for source in (CODE, TEXT, NEXT)},
    {"3.3": DERIVATION.prompt},
)
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PNG = base64.b64encode(PIXEL).decode()
JPEG = base64.b64encode(b"\xff\xd8\xff\xe0" + bytes(20)).decode()


def text(source: str, name: str = "", kind: str = "markdown", **more) -> dict:
    metadata = {"nbgrader": {"grade_id": name}, "coursework": {"role": "lesson"}} if name else {}
    return {"cell_type": kind, "source": source, "metadata": metadata, **more}


def code(source: str) -> dict:
    return {"cell_type": "code", "source": source, "metadata": {}, "outputs": []}


PROMPT = text(derivation_cells(DERIVATION, 4.0)[0].source, f"{NAME}-prompt")
BARE_PROMPT = text(PROMPT["source"])
BLANK = text(STUB, NAME)
AFTER = [text(NEXT), code(CODE)]


def read(*cells: dict) -> handin.HandIn:
    found = handin.parse(json.dumps({"cells": [text(TEXT), *cells, *AFTER]}).encode(), LESSON)
    assert found.problem == ""
    return found


FOUND = {
    "in its cell": ([PROMPT, text("mine", NAME)], "mine", ""),
    "below the stub": ([PROMPT, text(f"{STUB}\n\nmine", NAME)], "mine", ""),
    "a cell split in two": ([PROMPT, text("first", NAME), text("second", NAME)], "first\n\nsecond", ""),
    "an own text cell below": ([PROMPT, BLANK, text("mine")], "mine", ""),
    "an own text cell above": ([text("mine"), PROMPT, BLANK], "mine", ""),
    "both": ([PROMPT, text("one", NAME), text("two")], "one\n\ntwo", ""),
    "all marks lost": ([BARE_PROMPT, text("mine")], "mine", "has lost its mark; what stands in its place counts"),
    "the cell retyped": ([PROMPT, text("mine")], "mine", "has lost its mark; what stands in its place counts"),
    "in a code cell": ([PROMPT, code("# mine ```")], "````python\n# mine ```\n````", "has lost its mark"),
    "a code cell beside the stub": ([PROMPT, BLANK, code("y = 1")], "```python\ny = 1\n```", ""),
    "in a raw cell": ([PROMPT, text("mine", NAME, "raw")], "mine", ""),
    "in an own raw cell": ([PROMPT, text("mine", kind="raw")], "mine", "has lost its mark"),
    "in the prompt's cell": ([{**PROMPT, "source": f"{PROMPT['source']}\n\nmine"}, BLANK], "mine", ""),
    "the cell moved away": ([PROMPT, text(NEXT), text("mine", NAME)], "mine", ""),
    "far away, no mark": ([PROMPT, BLANK, text(NEXT), text("mine")], "mine", "its place is empty"),
    "the prompt deleted": ([text("mine", NAME)], "mine", ""),
    "prompt and mark deleted": ([text("mine")], "mine", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_an_answer_is_found_wherever_it_stands(name):
    cells, expected, remark = FOUND[name]
    found = read(*cells)
    assert found.answers["3.3"].text == expected
    assert remark in " ".join(found.remarks)
    assert bool(remark) == bool(found.remarks)


def test_nothing_written_is_no_answer():
    assert read().answers == {}
    assert read(PROMPT, BLANK).answers == {"3.3": Written("")}
    assert read(PROMPT, BLANK).remarks == ()
    missing = read(PROMPT)
    assert missing.answers == {"3.3": Written("")}
    assert missing.remarks == ("derivation 3.3: its cell is not in the notebook",)


def test_a_changed_prompt_is_shown_with_what_was_typed():
    changed = PROMPT["source"].replace("independent", "dependent")
    assert "dependent" in read({**PROMPT, "source": f"{changed} mine"}, BLANK).answers["3.3"].text


def test_a_lessons_text_is_nobodys_answer_though_its_metadata_are_gone():
    assert read(BARE_PROMPT, BLANK, text(NEXT)).answers["3.3"].text == ""


def picture(source: str, **attachments: tuple[str, str]) -> handin.HandIn:
    bundles = {name.replace("_", "."): {kind: data} for name, (kind, data) in attachments.items()}
    return read(PROMPT, text(source, NAME, attachments=bundles))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("see ![x](attachment:p.png)", "see ![x](attachment:picture-1.png)"),
        ('see <img src="attachment:p.png" width="3">', "see ![](attachment:picture-1.png)"),
        ("not named", "not named\n\n![](attachment:picture-1.png)"),
    ],
)
def test_a_picture_is_carried_along(source, expected):
    answer = picture(source, p_png=("image/png", PNG)).answers["3.3"]
    assert answer.text == expected
    assert answer.pictures == {"picture-1.png": {"image/png": PNG}}


def test_a_picture_in_the_text_itself_becomes_an_attachment():
    answer = read(PROMPT, text(f"![a](data:image/png;base64,{PNG}) and more", NAME)).answers["3.3"]
    assert answer.text == "![a](attachment:picture-1.png) and more"
    assert answer.pictures == {"picture-1.png": {"image/png": PNG}}


def test_pictures_of_two_cells_with_one_name_stay_two():
    cells = [
        text("![](attachment:image.png)", NAME, attachments={"image.png": {kind: data}})
        for kind, data in (("image/png", PNG), ("image/jpeg", JPEG))
    ]
    answer = read(PROMPT, *cells).answers["3.3"]
    assert answer.text == "![](attachment:picture-1.png)\n\n![](attachment:picture-2.jpg)"
    assert list(answer.pictures.values()) == [{"image/png": PNG}, {"image/jpeg": JPEG}]


def test_what_is_no_picture_is_left_out_and_said():
    svg = base64.b64encode(b"<svg onload=alert(1)>").decode()
    large = base64.b64encode(PIXEL + bytes(LARGEST)).decode()
    found = picture(
        "![](attachment:a.png) ![](attachment:gone.png)", a_png=("image/png", svg), b_png=("image/png", large)
    )
    assert found.answers["3.3"].pictures == {}
    assert "attachment:" not in found.answers["3.3"].text
    assert found.remarks == (
        "derivation 3.3: a.png is neither PNG nor JPEG, so it is left out",
        "derivation 3.3: b.png is larger than 5 MB, so it is left out",
    )
    many = picture("", **{f"p{i}_png": ("image/png", PNG) for i in range(MOST + 1)})
    assert len(many.answers["3.3"].pictures) == MOST
    assert len(many.remarks) == 1


@pytest.mark.parametrize(
    "attachments", [5, [], {"a": 5}, {"a": {}}, {"a": {"image/png": None}}, {"a": {"image/png": [1]}}]
)
def test_odd_attachments_harm_nothing(attachments):
    assert read(PROMPT, text("mine", NAME, attachments=attachments)).answers["3.3"].text == "mine"


# -- the rebuilt notebook ----------------------------------------------------------------------------------------------


def released() -> nbformat.NotebookNode:
    """A small release: the answer to 3.3 and its check, the derivation, and a lesson's cells."""

    def ours(cell, role: str, exercise: str, kind: str):
        cell.metadata = nbformat.from_dict(
            {
                "coursework": {"role": role, "id": exercise},
                "nbgrader": {"grade_id": f"{kind}-{exercise.replace('.', '-')}"},
            }
        )
        return cell

    prompt, answer = derivation_cells(DERIVATION, 4.0)
    answer.source = STUB
    stub = v4.new_code_cell("def trace_variance(matrices, fourth_moment):\n    raise NotAttempted")
    return v4.new_notebook(
        cells=[
            v4.new_markdown_cell(TEXT),
            ours(stub, "exercise", "3.3", "exercise"),
            ours(v4.new_code_cell('trace_variance = check("3.3", trace_variance)'), "check", "3.3", "check"),
            *(prompt, answer),
            v4.new_markdown_cell(NEXT),
            v4.new_code_cell(CODE),
        ]
    )


def test_a_page_is_made_of_an_answer_with_pictures_and_scripts():
    found = picture("Because $a<b$ ![x](attachment:p.png) <script>alert(1)</script>", p_png=("image/png", PNG))
    notebook = rebuilt(released(), found, LESSON, [Mark("3.3", "wrong", "expected 1, got 2")])
    nbformat.validate(notebook)
    page, _ = HTMLExporter().from_notebook_node(notebook)
    assert f"data:image/png;base64,{PNG}" in page
    assert "<script>alert(1)" not in page
    assert "expected 1, got 2" in page


def test_the_rubric_is_on_the_formgraders_page_and_nowhere_else(monkeypatch):
    monkeypatch.setenv("COURSEWORK_GRADING", "1")  # as the configuration does, and here it is undone
    config = Config()
    exec(CONFIG, {"get_config": lambda: config})
    exporter = HTMLExporter(config=Config(HTMLExporter=config.HTMLExporter))
    notebook = rebuilt(released(), picture("Because."), LESSON, [])
    share, words = DERIVATION.rubric[0]
    for resources, there in (({"submission_id": "1"}, True), ({"nbgrader": {"student": "anna"}}, False)):
        page, _ = exporter.from_notebook_node(notebook, resources=resources)
        assert (f"{4 * share:g}: {words[:40]}" in page) is there
    assert words[:40] not in nbformat.writes(notebook)


def test_all_that_may_be_executed_is_shown():
    claims = {"coursework": {"role": "setup"}}
    cells = [
        {**code("own = 1"), "metadata": claims},
        {**code(f"{CODE}\nedited = 1"), "metadata": {"coursework": {"role": "lesson"}}},
        {**code("import os; os.nothing"), "metadata": {"nbgrader": {"grade_id": "check-3-3"}}},
        code("def trace_variance(a, b):\n    return own\n"),
        code("last = 1"),
    ]
    notebook = rebuilt(released(), read(*cells), LESSON, [])
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert sources == [
        "own = 1",
        f"{CODE}\nedited = 1",
        "import os; os.nothing",
        "def trace_variance(a, b):\n    return own\n",
        'trace_variance = check("3.3", trace_variance)',
        CODE,
        "last = 1",
    ]


def test_a_cells_role_is_what_its_source_says():
    claims = {"coursework": {"role": "setup"}}
    found = read({**code("own = 1"), "metadata": claims}, code(f"  {CODE}  "))
    assert [cell.role for cell in found.cells] == ["", "lesson", "lesson"]


# -- outputs -----------------------------------------------------------------------------------------------------------


def test_a_notebook_whose_size_is_outputs_is_read():
    output = {"output_type": "stream", "name": "stdout", "text": "x" * (handin.LARGEST + 1)}
    widgets = {"widgets": {"state": ["y" * 1000]}}
    data = json.dumps({"cells": [code("a = 1") | {"outputs": [output]}], "metadata": widgets}).encode()
    assert [cell.source for cell in handin.parse(data, LESSON).cells] == ["a = 1"]
    assert len(without_outputs(data)) < 200
    long = json.dumps({"cells": [text("x" * (handin.LARGEST + 1))]}).encode()
    assert handin.parse(long, LESSON).problem == "it is larger than 20 MB without its outputs"


def test_only_outputs_are_dropped():
    odd = {
        "cells": [
            code('s = "\\"outputs\\": [1, 2"') | {"outputs": [{"text": ['"]}\\', "]"], "data": {"a": [[{}]]}}]},
            text('"outputs": ['),
        ],
        "outputs": {"a": [1]},
        "last": '\\"',
    }
    odd_without = {**odd, "cells": [{**odd["cells"][0], "outputs": []}, odd["cells"][1]], "outputs": {}}
    assert json.loads(without_outputs(json.dumps(odd).encode())) == odd_without


@pytest.mark.parametrize("data", [b'{"outputs": [', b'"', b'{"outputs"', b'{"cells": [{"outputs": [1, 2}', b"[" * 1000])
def test_what_is_cut_off_stays_no_notebook(data):
    assert handin.parse(data, LESSON).problem == "it is not a notebook"


def test_a_file_that_is_too_large_says_what_to_do(tmp_path: Path):
    path = tmp_path / "a.ipynb"
    with path.open("wb") as file:
        file.truncate(handin.LARGEST_FILE + 1)
    with pytest.raises(handin.HandInError, match="larger than 200 MB; clear its outputs"):
        handin.content(path)
