"""The website: both trees are built once, with warnings as errors, and read as a visitor would."""

import contextlib
import html
import importlib.util
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
import typer

import coursework
from coursework.course.publishing import student_notebook
from coursework.exercises.exercise import lesson_exercises

ROOT = Path(__file__).parent.parent
TREES = ("solutions", "notebooks")
LESSONS = sorted(path.stem for path in (ROOT / "solutions").glob("[0-9][0-9]_*.ipynb"))
in_browser = pytest.mark.needs("chromium")

sys.path.append(str(ROOT / "site"))
docstrings, lesson_pages, links, output_checks, sources = map(
    importlib.import_module, ("docstrings", "lesson_pages", "links", "output_checks", "sources")
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A course tree whose build/ is not the user's, with a guide for instructors and one for everybody."""
    root = tmp_path_factory.mktemp("course")
    for path in ROOT.iterdir():
        if path.name not in ("build", "docs", ".venv", ".git"):
            (root / path.name).symlink_to(path)
    shutil.copytree(ROOT / "docs", root / "docs")
    (root / "docs" / "a_guide.md").write_text(
        "# A guide\n\nFor [instructors](instructors.md), [lesson](../README.md).\n"
    )
    if not (root / "docs" / "instructors.md").exists():
        (root / "docs" / "instructors.md").write_text("# The instructors' guide\n\nSecret.\n")
    return root


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
    assert output_checks.problems(sites[name]) == []
    pages = {p: output_checks.read_page(p) for p in sites[name].rglob("lessons/*.html")}
    inner = [a for page in pages.values() for tag, a in page.references if tag == "a" and "#" in a and len(a) > 1]
    assert sum("glossary.html#glossary" in a for a in inner) >= len(LESSONS) - 1


@pytest.mark.parametrize("name", TREES)
def test_every_lesson_stands_in_the_navigation(sites, name):
    for page, way in (("index.html", "lessons/"), (f"lessons/{LESSONS[3]}.html", "")):
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
    page = (sites[name] / "lessons" / f"{lesson}.html").read_text(encoding="utf-8").partition("<article")[2]
    assert [squeezed(html.unescape(a)) for a in re.findall(r'<img alt="([^"]*)"', page)] == alts


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("lesson", LESSONS)
def test_hints_read_as_they_were_written_and_are_closed(sites, name, lesson):
    page = sites[name] / "lessons" / f"{lesson}.html"
    text = text_of(page)
    for exercise in lesson_exercises(int(lesson[:2])):
        assert [hint for hint in exercise.hints if unticked(hint) not in text] == []
    assert "<details open" not in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("lesson", LESSONS)
def test_lessons_can_be_downloaded(sites, lesson):
    source = notebook(lesson)
    for name, wanted in (("solutions", source), ("notebooks", student_notebook(source))):
        (copy,) = sites[name].glob(f"_downloads/*/{lesson}.ipynb")
        assert [c.source for c in nbformat.read(copy, as_version=4).cells] == [c.source for c in wanted.cells]


# -- what only lecturers see -------------------------------------------------------------------------------------------


def test_the_worked_tree_shows_solutions_mistakes_and_verdicts(sites):
    for lesson in LESSONS:
        text = text_of(sites["solutions"] / "lessons" / f"{lesson}.html")
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
            assert f"Exercise{exercise.id}({squeezed(exercise.title)}):" not in texts[Path(f"lessons/{lesson}.html")]
    assert not (site / "docs" / "instructors.html").exists()
    assert not list(site.rglob("instructors.md"))


def test_links_to_a_page_that_students_do_not_get_are_plain_text(sites):
    worked, student = ((sites[name] / "docs" / "a_guide.html").read_text(encoding="utf-8") for name in TREES)
    assert 'href="instructors.html"' in worked
    assert "instructors" in student
    assert "instructors.html" not in student


# -- API ---------------------------------------------------------------------------------------------------------------


def public_modules():
    names = [m.name for m in pkgutil.iter_modules(coursework.__path__) if not m.name.startswith("_")]
    return [name for name in names if not name.startswith("cli")]


@pytest.mark.parametrize("name", public_modules())
def test_the_api_has_every_public_name_with_its_docstring(sites, name):
    module = importlib.import_module(f"coursework.{name}")
    page = sites["notebooks"] / "api" / f"coursework.{name}.html"
    anchors, text = output_checks.read_page(page).anchors, text_of(page)
    own = [n for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__]
    for member in getattr(module, "__all__", own):
        thing = getattr(module, member)
        if member.startswith("_") or not (inspect.isfunction(thing) or inspect.isclass(thing)):
            continue
        assert f"coursework.{name}.{member}" in anchors
        assert unticked((inspect.getdoc(thing) or "").split("\n\n")[0]) in text


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


def test_docstrings_have_leads_sections_and_code():
    text = docstrings.to_rst(
        "One line.\n\nShapes: x (B,). Raises ValueError if not.\n\nArgs:\n    x: `y z` is\n        code.\n"
    )
    assert text.split("\n\n") == [
        "One line\\.",
        "**Shapes**\\ \\: x \\(B\\,\\)\\.",
        "**Raises**\\  ValueError if not\\.",
        ":param x: \\ ``y z``\\  is code\\.\n",
    ]


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_dead_links_and_remote_files_are_noticed(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.html").write_text('<p id="there"></p>')
    (tmp_path / "a.html").write_text(
        '<a href="sub/b.html#there">1</a><a href="https://example.org/x">2</a><img src="data:image/png;base64,AA">'
        '<a href="sub/b.html#gone">3</a><a href="sub/c.html">4</a><script src="https://example.org/x.js"></script>'
        '<link rel="stylesheet" href="//example.org/x.css"><img src="gone.png">'
    )
    (tmp_path / "x.css").write_text("a{background:url('https://example.org/x.png')}")
    assert output_checks.problems(tmp_path) == [
        "a.html: sub/b.html#gone leads to a page without that anchor",
        "a.html: sub/c.html leads nowhere",
        "a.html: <script> fetches https://example.org/x.js",
        "a.html: <link> fetches //example.org/x.css",
        "a.html: gone.png leads nowhere",
        "x.css: fetches something from elsewhere",
    ]


@pytest.fixture
def linker(tmp_path):
    (tmp_path / "picture.png").touch()
    pages = {"README.md": "index.md", "notebooks/01.ipynb": "lessons/01.ipynb", "docs/secret.md": None}
    return links.Linker(tmp_path, pages, lambda path: f"files/{path}")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[a](notebooks/01.ipynb#The-Part)", "[a](../lessons/01.ipynb#the-part)"),
        ("[the `x` of](README.md)", "[the `x` of](../index.md)"),
        ("[s](docs/secret.md)", "s"),
        ("![p](picture.png)", "![p](../files/picture.png)"),
        ("[p](picture.png)", "{download}`p <../files/picture.png>`"),
        ("`a[0](x)` and $E[x](t)$ and [w](https://example.org/a)", None),
        ("```\n[a](b)\n```", None),
    ],
)
def test_links_of_texts_become_links_of_the_site(linker, text, shown):
    assert linker.rewrite(text, "README.md", "docs/page.md") == (shown or text)


@pytest.mark.parametrize("target", ["gone.md", "https://nowhere", "http:/example.org", "ftp://example.org/x"])
def test_a_wrong_link_is_named(linker, target):
    with pytest.raises(links.LinkError, match=re.escape(target)):
        linker.rewrite(f"[a]({target})", "README.md", "index.md")


def test_a_link_that_leads_nowhere_is_refused(tree):
    guide = tree / "docs" / "a_guide.md"
    before = guide.read_text()
    guide.write_text("# A guide\n\nTo [a page](gone.md).\n")
    done = build(tree, "--tree", "notebooks")
    guide.write_text(before)
    assert (done.returncode, done.stderr) == (2, "coursework: docs/a_guide.md: the link gone.md leads nowhere\n")


@pytest.mark.parametrize("anchor", ["here", "nowhere"])
def test_a_site_is_not_replaced_by_one_with_a_dead_anchor(tmp_path, monkeypatch, capsys, anchor):
    """Sphinx is out of the way: it gives a page with this link."""
    spec = importlib.util.spec_from_file_location("site_build", ROOT / "site" / "build.py")
    builder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(builder)

    def sphinx(options):
        Path(options[-1]).mkdir(parents=True)
        Path(options[-1], "index.html").write_text(f'<p id="here"><a href="#{anchor}">a section</a></p>')

    for name in ("solutions", "notebooks", "former"):
        (tmp_path / name).mkdir()
    (tmp_path / "former" / "marker").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(builder, "make_sources", lambda *args, **options: None)
    monkeypatch.setattr(builder, "build_main", sphinx)
    with pytest.raises(typer.Exit) if anchor == "nowhere" else contextlib.nullcontext():
        builder.build("notebooks", out=tmp_path / "former")
    assert (tmp_path / "former" / "marker").exists() == (anchor == "nowhere")
    assert ("#nowhere" in capsys.readouterr().err) == (anchor == "nowhere")


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
    page = visit.open(sites["solutions"] / "lessons" / f"{lesson}.html", width=390, height=844)
    page.evaluate("() => document.querySelectorAll('details').forEach(box => { box.open = true; })")
    maths = page.evaluate(MATHS)
    assert maths["formulas"] == maths["drawn"] > 20
    assert maths["wrong"] == 0
    assert page.evaluate(OVERFLOWING) == []
    assert visit.wrong == []


@pytest.mark.parametrize(
    "page",
    ["index", "glossary", "commands", "api/index", "api/coursework.reverse_sde", "changelog", "docs/instructors"],
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
    assert "lessons/03_sliced_score_matching.html" in {link.split("?")[0] for link in found}
    assert "api/coursework.score_matching.html" in {link.split("?")[0] for link in found}
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
    page.goto((sites["notebooks"] / "lessons" / f"{LESSONS[1]}.html").as_uri())
    assert page.evaluate(brightness) < 150
    assert visit.wrong == []


@in_browser
def test_a_box_opens_on_a_key(sites, visit):
    page = visit.open(sites["notebooks"] / "lessons" / f"{LESSONS[0]}.html")
    (exercise, *_) = lesson_exercises(0)
    hint = page.locator("details.hint").first
    inside = hint.locator("p").first
    assert not inside.is_visible()
    hint.locator("summary").focus()
    page.keyboard.press("Enter")
    assert inside.is_visible()
    assert unticked(inside.inner_text()) == unticked(exercise.hints[0])
