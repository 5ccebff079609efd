"""The website: both trees are built once, with warnings as errors, and read as a visitor would."""

import html
import importlib
import inspect
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

import coursework
from coursework.course.publishing import publish, student_notebook
from coursework.exercises.exercise import lesson_exercises
from tests.helpers import LESSONS, ROOT
from tests.site.reader import Page, problems

pytestmark = pytest.mark.extra("site")

TREES = ("solutions", "notebooks")
FENCE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
DETAILS = re.compile(r"<details.*?</details>", re.DOTALL)
in_browser = pytest.mark.needs("chromium")

sys.path.append(str(ROOT / "site"))
docstrings, lesson_pages = map(importlib.import_module, ("docstrings", "lesson_pages"))

GUIDE = """# A guide

For [instructors](instructors.md), [the course](../README.md), [who reads `code[0](x)`](../coursework/sdes.py), and
[the sections](../notebooks/00_start_here.ipynb#glossary) of [a licence](../LICENSE). ![Spirals](noise_to_spirals.png)

```python
a[0](b)
```
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A course tree whose build/ is not the user's, with another guide, and a lesson in which cells are folded."""
    root = tmp_path_factory.mktemp("course")
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"):
        shutil.copyfile(ROOT / name, root / name)
    for name in ("docs", "site", "coursework", "solutions", "notebooks"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "*.mine-*"))
    (root / "docs" / "a_guide.md").write_text(GUIDE)
    fold(root / "solutions" / f"{LESSONS[0]}.ipynb")
    publish(root)
    return root


def fold(path):
    """Folds half of a lesson's code cells, in one way and the other, and, what nobody should, its exercises."""
    lesson = nbformat.read(path, as_version=4)
    plain = [c for c in lesson.cells if c.cell_type == "code" and c.metadata.coursework.role == "lesson"]
    for cell in plain[::2]:
        cell.metadata.tags = ["hide-input", "nbval-check-output"]
    for cell in (c for c in lesson.cells if c.metadata.coursework.role == "exercise"):
        cell.metadata.jupyter = {"source_hidden": True}
    plain[-1].metadata = {**plain[-1].metadata, "jupyter": {"source_hidden": True}}
    nbformat.write(lesson, path)


def is_folded(cell):
    hidden = cell.metadata.get("jupyter", {}).get("source_hidden") or "hide-input" in cell.metadata.get("tags", ())
    return cell.cell_type == "code" and hidden and cell.metadata.coursework.role != "exercise"


def build(root, *options):
    command = [sys.executable, ROOT / "site" / "build.py", *options]
    return subprocess.run([str(c) for c in command], cwd=root, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def sites(tree):
    """The folder of each built site, by the tree's name."""
    for name in TREES:
        done = build(tree, "--tree", name)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return {name: tree / "build" / "site" / name for name in TREES}


def text_of(page):
    """What a visitor reads on a page, without any space."""
    body = page.read_text(encoding="utf-8").partition("<article")[2].partition("</article>")[0]
    return squeezed(html.unescape(re.sub(r"<[^>]+>", "", body)))


def squeezed(text):
    return re.sub(r"\s", "", text)


def unticked(text):
    """Plain text as it looks on a page, where `code` loses its backticks."""
    return squeezed(text.replace("`", "") if text.count("`") % 2 == 0 else text)


def notebook(name):
    return nbformat.read(ROOT / "solutions" / f"{name}.ipynb", as_version=4)


def solution_lines(name):
    """The lines of a lesson's solutions that are long enough to be told from other text."""
    blocks = [re.findall(r"### BEGIN SOLUTION\n(.*?)### END", c.source, re.DOTALL) for c in notebook(name).cells]
    lines = [squeezed(line) for block in blocks for text in block for line in text.splitlines()]
    return {line for line in lines if len(line) >= 16 and not line.startswith("#")}


# -- both trees --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TREES)
def test_nothing_is_fetched_from_elsewhere(sites, name):
    remote = re.compile(
        r"<(?:script|img|iframe|link|source|embed|object|video|audio)\b[^>]*(?:src|href|data|srcset)\s*=\s*[\"']?\s*"
        r"(?:https?:)?//[^>]*|@import\s*(?:url\()?[\"']?(?:https?:)?//\S*|url\(\s*[\"']?(?:https?:)?//\S*"
    )
    files = [p for suffix in ("html", "css") for p in sites[name].rglob(f"*.{suffix}")]
    assert len(files) > 40
    assert {p.name: found[0] for p in files if (found := remote.search(p.read_text(encoding="utf-8")))} == {}


@pytest.mark.parametrize("name", TREES)
def test_every_link_and_anchor_leads_somewhere(sites, name):
    assert problems(sites[name]) == []
    pages = [Page(path) for path in sites[name].rglob("notebooks/*.html")]
    inner = [a for page in pages for tag, a in page.references if tag == "a" and "#" in a and len(a) > 1]
    assert sum("glossary.html#glossary" in a for a in inner) >= len(LESSONS) - 1


@pytest.mark.parametrize("name", TREES)
def test_every_lesson_stands_in_the_navigation(sites, name):
    for page, way in (("index.html", "notebooks/"), (f"notebooks/{LESSONS[3]}.html", "")):
        text = (sites[name] / page).read_text(encoding="utf-8")
        sidebar = text[text.index('class="bd-links') : text.index("<article")]
        for lesson in LESSONS:
            own = lesson == LESSONS[3] and not way
            assert f'href="{"#" if own else f"{way}{lesson}.html"}"' in sidebar, (page, lesson)


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("lesson", LESSONS)
def test_pictures_have_the_lessons_own_alternative_text(sites, name, lesson):
    outputs = [o for c in notebook(lesson).cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})]
    alts = [squeezed(o.metadata["image/png"].alt) for o in outputs]
    page = (sites[name] / "notebooks" / f"{lesson}.html").read_text(encoding="utf-8").partition("<article")[2]
    assert [squeezed(html.unescape(a)) for a in re.findall(r'<img alt="([^"]*)"', page)] == alts


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("lesson", LESSONS)
def test_hints_read_as_they_were_written_and_are_closed(sites, name, lesson):
    page = sites[name] / "notebooks" / f"{lesson}.html"
    text = text_of(page)
    for exercise in lesson_exercises(int(lesson[:2])):
        assert [hint for hint in exercise.hints if unticked(hint) not in text] == []
    assert "<details open" not in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("lesson", LESSONS)
def test_code_is_shown_whole_unless_it_is_folded(tree, sites, name, lesson):
    """A learner finds the bug in the code that stands there: what is no answer is neither hidden nor changed."""
    page = Page(sites[name] / "notebooks" / f"{lesson}.html")
    cells = nbformat.read(tree / "notebooks" / f"{lesson}.ipynb", as_version=4).cells
    code = [cell.source for cell in cells if cell.cell_type == "code" and not is_folded(cell)]
    code += [block for cell in cells for block in FENCE.findall(DETAILS.sub("", cell.source))]
    lines = [squeezed(line) for text in code for line in text.splitlines()]
    assert [line for line in lines if line not in page.open_text] == []
    html_text = (sites[name] / "notebooks" / f"{lesson}.html").read_text(encoding="utf-8")
    assert html_text.count('<details class="admonition hide') == sum(is_folded(cell) for cell in cells)
    assert "nbval" not in html_text.lower()


@pytest.mark.parametrize("lesson", LESSONS)
def test_lessons_can_be_downloaded(sites, lesson):
    source = notebook(lesson)
    for name, wanted in (("solutions", source), ("notebooks", student_notebook(source))):
        (copy,) = sites[name].glob(f"_downloads/*/{lesson}.ipynb")
        assert [c.source for c in nbformat.read(copy, as_version=4).cells] == [c.source for c in wanted.cells]


# -- what only lecturers see -------------------------------------------------------------------------------------------


def test_the_worked_tree_shows_solutions_mistakes_and_verdicts(sites):
    for lesson in LESSONS:
        text = text_of(sites["solutions"] / "notebooks" / f"{lesson}.html")
        assert [line for line in solution_lines(lesson) if line not in text] == []
        for exercise in lesson_exercises(int(lesson[:2])):
            names = [unticked(m.name)[1:] for m in exercise.mistakes]
            assert [n for n in names if n not in text] == []
            assert f"Exercise{exercise.id}({squeezed(exercise.title)}):passed" in text
    assert (sites["solutions"] / "docs" / "instructors.html").exists()


def test_the_student_tree_holds_no_solution_no_mistake_and_no_verdict(sites):
    site = sites["notebooks"]
    texts = {p.relative_to(site): text_of(p) for p in site.rglob("*.html")}
    copies = {
        p.relative_to(site): squeezed("".join(c.source for c in nbformat.read(p, 4).cells))
        for p in site.rglob("*.ipynb")
    }
    others = {p.relative_to(site): squeezed(p.read_text("utf-8")) for p in [site / "searchindex.js"]}
    assert len(copies) == len(LESSONS)
    hints = [unticked(h) for lesson in LESSONS for e in lesson_exercises(int(lesson[:2])) for h in e.hints]
    everyday = "".join([*copies.values(), *hints])  # what learners get to see anyhow is no secret
    for lesson in LESSONS:
        exercises = lesson_exercises(int(lesson[:2]))
        secrets = solution_lines(lesson) | {unticked(m.name)[1:] for e in exercises for m in e.mistakes}
        secrets = {s for s in secrets if len(s) >= 16 and s not in everyday}
        assert secrets
        for where, text in {**texts, **others}.items():
            assert {s for s in secrets if s in text} == set(), where
        for exercise in exercises:
            assert f"Exercise{exercise.id}({squeezed(exercise.title)}):" not in texts[Path(f"notebooks/{lesson}.html")]
    assert not [path for name in ("instructors", "CONTRIBUTING") for path in site.rglob(f"{name}.*")]


def test_links_of_texts_are_links_of_the_site(sites):
    """Links to other texts, to modules and sections, to what is no page, and to a page that students do not get."""
    worked, student = (Page(sites[name] / "docs" / "a_guide.html") for name in TREES)
    links = {"../README.html", "../coursework/sdes.html", "../notebooks/00_start_here.html#glossary"}
    for page in (worked, student):
        assert links <= {address for _, address in page.references}
        assert any(tag == "a" and address.endswith("/LICENSE") for tag, address in page.references)
        assert any(tag == "img" and address.endswith("noise_to_spirals.png") for tag, address in page.references)
        assert "Forinstructors,thecourse,whoreadscode[0](x),and" in page.open_text
        assert "a[0](b)" in page.open_text
    assert ("a", "instructors.html") in worked.references
    assert ("a", "instructors.html") not in student.references


# -- API ---------------------------------------------------------------------------------------------------------------


def public_modules():
    """The flat modules and the rooms, and what is in the rooms of exercises and models."""
    rooms = [coursework, *(m for n in ("exercises", "models") if hasattr(m := module(n), "__path__"))]
    names = [m.name for room in rooms for m in pkgutil.iter_modules(room.__path__, f"{room.__name__}.")]
    names = [name.removeprefix("coursework.") for name in names]
    return [n for n in names if not re.search(r"(^|\.)(_|cli|lesson_)", n)]


def module(name):
    return importlib.import_module(f"coursework.{name}")


@pytest.mark.parametrize("name", public_modules())
def test_the_api_has_every_public_name_with_its_docstring(sites, name):
    folder = f"{name}.__init__" if hasattr(module(name), "__path__") else name
    page = Page(sites["notebooks"] / "coursework" / f"{folder.replace('.', '/')}.html")
    own = [n for n, v in vars(module(name)).items() if getattr(v, "__module__", "") == f"coursework.{name}"]
    for member in getattr(module(name), "__all__", own):
        thing = getattr(module(name), member)
        if member.startswith("_") or not (inspect.isfunction(thing) or inspect.isclass(thing)):
            continue
        assert f"coursework.{name}.{member}" in page.anchors
        assert unticked((inspect.getdoc(thing) or "").split("\n\n")[0]) in page.open_text
    index = Page(sites["notebooks"] / "site" / "api.html")
    assert unticked(inspect.getdoc(module(name)).split(". ")[0].split("\n\n")[0]).rstrip(".") in index.open_text


def test_the_api_lists_the_modules_of_the_lessons_first_and_in_their_order(sites):
    listed = re.findall(
        r'href="../coursework/(\w+).html#module', (sites["notebooks"] / "site" / "api.html").read_text()
    )
    subjects = ["distributions", "score_matching", "langevin", "ncsn", "sdes", "reverse_sde", "likelihood", "ddpm"]
    assert [name for name in listed if name in (*subjects, "plots")] == [*subjects, "plots"]


@pytest.mark.parametrize(
    ("docstring", "shown"),
    [
        ("|x|^2 and x_, *S, a__b__, p_t.", "|x|^2 and x_, *S, a__b__, p_t."),
        ("A backslash \\n and a lone ` tick.", "A backslash \\n and a lone ` tick."),
        ("- not a list, a minus\nE. Not an enumeration.", "- not a list, a minus E. Not an enumeration."),
        ("Clips to [-1, 1]: see <this>.", "Clips to [-1, 1]: see <this>."),
    ],
)
def test_docstrings_are_plain_text(docstring, shown):
    from docutils.core import publish_doctree

    document = publish_doctree(docstrings.to_rst(docstring), settings_overrides={"halt_level": 2})
    assert document.astext() == shown


def test_docstrings_have_leads_and_code():
    text = docstrings.to_rst("One `x`.\n\nShapes: x (B,). Raises ValueError if `y z`. Raises nothing.\n")
    assert text.split("\n\n") == [
        "One \\ :py:obj:`x`\\ \\.",
        "**Shapes**\\ \\: x \\(B\\,\\)\\. ",
        "**Raises**\\  ValueError if \\ ``y z``\\ \\. Raises nothing\\.\n",
    ]


def test_names_in_docstrings_lead_to_what_they_name(sites):
    page = Page(sites["notebooks"] / "coursework" / "reverse_sde.html")
    assert ("a", "sdes.html#coursework.sdes.SDE") in page.references
    page = Page(sites["notebooks"] / "coursework" / "exercises" / "__init__.html")
    assert ("a", "#coursework.exercises.check") in page.references


SMALL = """
from coursework.sdes import VPSDE

def one(n: int) -> None:
    \"\"\"Code that is no reference: `n`, `VPSDE`, `VPSDE.alpha`, `torch.nope` and `None`. See `two`.\"\"\"

def two() -> {annotation}:
    \"\"\"See `{name}`.\"\"\"
"""


@pytest.mark.parametrize(
    ("name", "annotation", "complaint"),
    [
        ("one", "None", ""),
        ("VPSDE.alhpa", "None", "py:obj reference target not found: VPSDE.alhpa"),
        ("one", "VPSDE", "py:class reference target not found: coursework.sdes.VPSDE"),
    ],
)
def test_a_docstring_that_names_what_is_not_there_is_refused(tmp_path, name, annotation, complaint):
    """Types of ours that have no place on the site too: here nothing but this module has one."""
    (tmp_path / "small.py").write_text(SMALL.format(name=name, annotation=annotation))
    (tmp_path / "index.rst").write_text("small\n=====\n\n.. automodule:: small\n   :members:\n")
    (tmp_path / "conf.py").write_text(
        f"import sys\nsys.path[:0] = [{str(ROOT / 'site')!r}, {str(tmp_path)!r}]\n"
        "extensions = ['sphinx.ext.autodoc', 'docstrings']\nnitpick_ignore = [('py:class', 'int')]\n"
    )
    command = [sys.executable, "-m", "sphinx", "-q", "-n", "-W", tmp_path, tmp_path / "html"]
    done = subprocess.run([str(c) for c in command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (not complaint), done.stderr
    assert complaint in done.stderr


# -- cells -------------------------------------------------------------------------------------------------------------


def shown(cell, *, role="lesson", **metadata):
    cell.metadata = nbformat.from_dict({"coursework": {"role": role}, **metadata})
    return list(lesson_pages.shown(cell, True))


@pytest.mark.parametrize(
    ("metadata", "tags"),
    [
        ({}, []),
        ({"tags": ["parameters", "nbval-check-output"]}, []),
        ({"tags": ["hide-input", "nbval-check-output"]}, ["hide-input"]),
        ({"jupyter": {"source_hidden": True}}, ["hide-input"]),
        ({"jupyter": {"source_hidden": True}, "role": "exercise"}, []),
    ],
)
def test_folded_cells_are_folded_but_for_exercises(metadata, tags):
    (cell,) = shown(new_code_cell("1 + 1"), **metadata)
    assert cell.metadata == {"tags": tags}
    assert cell.source == "1 + 1"


def test_every_picture_keeps_its_own_text():
    alts = ({"image/png": {"alt": alt}} for alt in ("one", "two"))
    pictures = [new_output("display_data", {"image/png": "AA=="}, metadata=alt) for alt in alts]
    text = new_output("stream", text="0.5")
    first, second = shown(new_code_cell("draw()", outputs=[text, *pictures]), tags=["hide-input"])
    assert [first.outputs, second.outputs] == [[text, pictures[0]], [pictures[1]]]
    assert [c.metadata.mystnb.image.alt for c in (first, second)] == ["one", "two"]
    assert [c.metadata.tags for c in (first, second)] == [["hide-input"], ["remove-input"]]


def test_anchors_are_spelt_as_on_the_site():
    (cell,) = shown(new_markdown_cell("[a](07_sdes.ipynb#Time-Grids), [b](00_start_here.ipynb#Glossary), A[0](x)"))
    assert cell.source == "[a](07_sdes.ipynb#time-grids), [b](../site/glossary.md#glossary), A[0](x)"


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_dead_links_and_remote_files_are_noticed(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.html").write_text('<p id="there"></p>')
    (tmp_path / "a.html").write_text(
        '<a href="sub/b.html#there">1</a><a href="https://example.org/x">2</a><img src="data:image/png;base64,AA">'
        '<a href="sub/b.html#gone">3</a><a href="sub/c.html">4</a><script src="https://example.org/x.js"></script>'
        '<link rel="stylesheet" href="//example.org/x.css"><img src="gone.png"><a href="https://nowhere">5</a>'
    )
    (tmp_path / "x.css").write_text("a{background:url('https://example.org/x.png')}")
    assert problems(tmp_path) == [
        "a.html: sub/b.html#gone leads to a page without that anchor",
        "a.html: sub/c.html leads nowhere",
        "a.html: <script> fetches https://example.org/x.js",
        "a.html: <link> fetches //example.org/x.css",
        "a.html: gone.png leads nowhere",
        "a.html: https://nowhere is no address of a page",
        "x.css: fetches something from elsewhere",
    ]


def test_a_site_is_not_replaced_by_one_with_dead_links(tree, sites):
    guide, marker = tree / "docs" / "a_guide.md", sites["notebooks"] / "marker"
    marker.touch()
    guide.write_text(f"{GUIDE}\n[a](gone.md) [b](#nowhere) [c](../notebooks/{LESSONS[1]}.ipynb#nothing)\n")
    try:
        done = build(tree, "--tree", "notebooks")
    finally:
        guide.write_text(GUIDE)
    assert done.returncode == 1
    found = re.findall(r"docs/a_guide\.md.*?: WARNING: .*?: '(.*?)'", done.stderr)
    assert sorted(found) == ["gone.md", "nothing", "nowhere"]
    assert marker.exists()
    marker.unlink()


def test_lessons_that_are_not_published_are_refused(tree):
    source = tree / "solutions" / f"{LESSONS[1]}.ipynb"
    before = source.read_text(encoding="utf-8")
    source.write_text(before.replace("# Lesson 01", "# Lesson  01"), encoding="utf-8")
    try:
        done = build(tree)
    finally:
        source.write_text(before, encoding="utf-8")
    assert done.returncode == 2
    what = "made from another version of its source: run `coursework publish` first"
    assert done.stderr == f"coursework: notebooks/{LESSONS[1]}.ipynb: {what}\n"


def test_an_unknown_tree_is_refused(tree):
    done = build(tree, "--tree", "books")
    assert done.returncode == 2
    assert re.fullmatch(r"coursework: tree: expected one of \w+, \w+, got 'books'\n", done.stderr)


# -- in a browser ------------------------------------------------------------------------------------------------------

OVERFLOWING = """() => {
    const width = document.documentElement.clientWidth;
    const sticksOut = e => e.getBoundingClientRect().right > width + 1 && !e.closest('mjx-assistive-mml');
    const scrolls = e => ['auto', 'scroll'].includes(getComputedStyle(e).overflowX) && !sticksOut(e);
    const contained = e => e.tagName !== 'ARTICLE' && (scrolls(e) || contained(e.parentElement));
    return [...document.querySelectorAll('article *')]
        .filter(e => sticksOut(e) && !contained(e.parentElement)).map(e => e.outerHTML.slice(0, 80));
}"""
MATHS = """() => ({formulas: document.querySelectorAll('article .math').length,
                  drawn: document.querySelectorAll('article .math mjx-container').length,
                  wrong: document.querySelectorAll('[data-mml-node=merror]').length})"""


@pytest.fixture
def visit(chromium):
    """Opens pages from the disk, as somebody does who was given the folder; collects whatever goes wrong."""
    contexts, wrong = [], []

    def open_page(path, *, width=1366, height=768, scheme="light", query=""):
        contexts.append(chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme))
        page = contexts[-1].new_page()
        page.set_default_timeout(120_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None)
        page.on("request", lambda r: wrong.append(r.url) if not r.url.startswith(("file:", "data:")) else None)
        page.on("requestfailed", lambda r: wrong.append(r.url))
        page.goto(f"{path.as_uri()}{query}")
        page.evaluate("() => window.MathJax?.startup?.promise")
        return page

    yield SimpleNamespace(open=open_page, wrong=wrong)
    for context in contexts:
        context.close()


@pytest.mark.parametrize("lesson", LESSONS)
@in_browser
def test_formulas_are_drawn_and_nothing_sticks_out_on_a_phone(sites, visit, lesson):
    page = visit.open(sites["solutions"] / "notebooks" / f"{lesson}.html", width=390, height=844)
    page.evaluate("() => document.querySelectorAll('details').forEach(box => { box.open = true; })")
    maths = page.evaluate(MATHS)
    assert maths["formulas"] == maths["drawn"] > 20
    assert maths["wrong"] == 0
    assert page.evaluate(OVERFLOWING) == []
    assert visit.wrong == []


@pytest.mark.parametrize(
    "page",
    [
        "index",
        "site/glossary",
        "site/commands",
        "site/api",
        "site/trained",
        "coursework/reverse_sde",
        "CHANGELOG",
        "docs/instructors",
    ],
)
@in_browser
def test_other_pages_fit_a_phone_too(sites, visit, page):
    opened = visit.open(sites["solutions"] / f"{page}.html", width=390, height=844, scheme="dark")
    assert opened.evaluate(OVERFLOWING) == []
    assert visit.wrong == []


@in_browser
def test_search_finds_lessons_and_functions(sites, visit):
    page = visit.open(sites["notebooks"] / "index.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("Hutchinson")
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results li")
    page.wait_for_function(
        "() => !document.querySelector('#search-results h2, #search-results p').innerText.includes('Searching')"
    )
    found = page.locator("#search-results li a").evaluate_all(
        "links => links.map(a => a.getAttribute('href').split('#')[0])"
    )
    assert "notebooks/03_sliced_score_matching.html" in {link.split("?")[0] for link in found}
    assert "coursework/score_matching.html" in {link.split("?")[0] for link in found}
    assert visit.wrong == []


@in_browser
def test_the_dark_theme_is_dark_and_is_kept(sites, visit):
    brightness = (
        "() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0)"
    )
    page = visit.open(sites["notebooks"] / "index.html", scheme="dark")
    assert page.evaluate(brightness) < 150
    page = visit.open(sites["notebooks"] / "index.html", scheme="light")
    assert page.evaluate(brightness) > 700
    page.locator("button.theme-switch-button:visible").click()
    page.locator(".theme-switch-container .dropdown-menu:visible").get_by_text("Dark").click()
    assert page.evaluate(brightness) < 150
    page.goto((sites["notebooks"] / "notebooks" / f"{LESSONS[1]}.html").as_uri())
    assert page.evaluate(brightness) < 150
    assert visit.wrong == []


@in_browser
def test_folded_code_opens_on_a_click(sites, visit):
    page = visit.open(sites["notebooks"] / "notebooks" / f"{LESSONS[0]}.html")
    box = page.locator("details.hide").first
    code = box.locator("pre")
    assert not code.is_visible()
    assert box.inner_text().strip() == "Show the code"
    box.locator("summary").click()
    assert code.is_visible()
    assert box.inner_text().startswith("Hide the code")


CODE = """() => [...document.querySelectorAll('article pre')].map(pre => ({
    columns: Math.max(...pre.innerText.split('\\n').map(line => line.length)), nested: !!pre.closest('details'),
    width: pre.clientWidth, needed: pre.scrollWidth, scrolls: getComputedStyle(pre).overflowX === 'auto'}))"""


@pytest.mark.parametrize(("width", "columns"), [(1366, 100), (390, 45)])
@in_browser
def test_code_stays_in_its_box(sites, visit, width, columns):
    """A lesson's 100 columns fit a laptop's screen; where the screen is narrower the box scrolls."""
    page = visit.open(sites["solutions"] / "notebooks" / f"{LESSONS[8]}.html", width=width)
    boxes = [box for box in page.evaluate(CODE) if not box["nested"]]
    assert len(boxes) > 20
    assert [box for box in boxes if box["columns"] <= columns and box["needed"] > box["width"]] == []
    assert [box for box in boxes if box["needed"] > box["width"] and not box["scrolls"]] == []
    assert any(box["needed"] > box["width"] for box in boxes) or width > 390


@in_browser
def test_a_box_opens_on_a_key(sites, visit):
    page = visit.open(sites["notebooks"] / "notebooks" / f"{LESSONS[0]}.html")
    (exercise, *_) = lesson_exercises(0)
    hint = page.locator("details.hint").first
    inside = hint.locator("p").first
    assert not inside.is_visible()
    hint.locator("summary").focus()
    page.keyboard.press("Enter")
    assert inside.is_visible()
    assert unticked(inside.inner_text()) == unticked(exercise.hints[0])
