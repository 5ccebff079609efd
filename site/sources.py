"""The source of the site: every page as a file that Sphinx reads, made from the course tree."""

from pathlib import Path

import nbformat
from lesson_pages import lesson_page
from links import Linker, LinkError
from text_pages import (
    api_index,
    api_modules,
    api_page,
    cards_page,
    commands_page,
    glossary_page,
    lesson_entry,
    toctree,
)

from coursework._files import write_atomically
from coursework.course import publishing
from coursework.course.tree import find_lessons

FOR_INSTRUCTORS = ("docs/instructors.md",)  # it says what learners should find out by themselves


class Source:
    """The files of the site's source: collected first, then written, so that an error leaves nothing half done."""

    def __init__(self, root: Path, *, worked: bool) -> None:
        self.root, self.worked = root, worked
        self.files: dict[str, bytes] = {}
        self.lessons = [path.stem for path in find_lessons(root / "solutions")]
        self.guides = sorted(path.stem for path in (root / "docs").glob("*.md"))
        self.cards = sorted((root / "coursework" / "models" / "trained").glob("*.md"))
        self.modules = api_modules()
        self.problems: list[str] = []
        self.linker = Linker(root, self.pages(), self.attach)

    def pages(self) -> dict[str, str | None]:
        """Returns which file of the repository is which page."""
        lessons = {
            f"{tree}/{n}.ipynb": f"lessons/{n}.ipynb" for n in self.lessons for tree in ("notebooks", "solutions")
        }
        guides = {f"docs/{n}.md": f"docs/{n}.md" for n in self.guides}
        cards = {f"coursework/models/trained/{p.name}": f"trained/{p.name}" for p in self.cards}
        modules = [name for names in self.modules.values() for name in names]
        api = {self.file_of(name): f"api/coursework.{name}.md" for name in modules}
        rest = {
            "README.md": "index.md",
            "CONTRIBUTING.md": "contributing.md",
            "CHANGELOG.md": "changelog.md",
            "coursework/models/trained": "trained/index.md",
            "coursework": "api/index.md",
            f"notebooks/{self.lessons[0]}.ipynb#glossary": "glossary.md#glossary",
        }
        hidden = {} if self.worked else dict.fromkeys(FOR_INSTRUCTORS)
        return {**lessons, **guides, **cards, **api, **rest, **hidden}

    def file_of(self, module: str) -> str:
        """Returns the file or the folder of a module, from the root."""
        path = f"coursework/{module.replace('.', '/')}"
        return path if (self.root / path).is_dir() else f"{path}.py"

    def attach(self, path: str) -> str:
        """Takes a file of the repository along and returns where it lies in the site's source."""
        self.files[f"files/{path}"] = (self.root / path).read_bytes()
        return f"files/{path}"

    def add(self, page: str, text: str, origin: str) -> None:
        """Adds a page of Markdown whose links are those of the file `origin`."""
        self.files[page] = f"{self.linked(text, origin, page)}\n".encode()

    def linked(self, text: str, origin: str, page: str) -> str:
        """Returns a text with its links as on `page`; links that lead nowhere are noted."""
        try:
            return self.linker.rewrite(text, origin, page)
        except LinkError as error:
            self.problems.append(str(error))
            return text

    def add_file(self, page: str, origin: str) -> None:
        """Adds a file of Markdown as a page."""
        self.add(page, (self.root / origin).read_text(encoding="utf-8"), origin)

    def add_lesson(self, name: str) -> str:
        """Adds a lesson, and the notebook itself to download; returns its entry in the table of contents."""
        source = publishing.read(self.root / "solutions" / f"{name}.ipynb")
        page = lesson_page(source, int(name[:2]), worked=self.worked)
        entry = lesson_entry(page, name)
        for cell in page.cells:
            if cell.cell_type == "markdown":
                cell.source = self.linked(cell.source, f"notebooks/{name}.ipynb", f"lessons/{name}.ipynb")
        page.cells[0].source += f"\n\n{{download}}`This lesson as a notebook <../files/notebooks/{name}.ipynb>`"
        notebook = source if self.worked else publishing.student_notebook(source)
        self.files[f"files/notebooks/{name}.ipynb"] = f"{nbformat.writes(notebook)}\n".encode()
        self.files[f"lessons/{name}.ipynb"] = nbformat.writes(page).encode()
        return entry

    def write(self, folder: Path) -> None:
        """Writes the files that changed, and removes those of former pages.

        Raises:
            LinkError: if links lead nowhere; nothing is written then.
        """
        if self.problems:
            raise LinkError("\n".join(self.problems))
        for name, content in self.files.items():
            path = folder / name
            if not path.is_file() or path.read_bytes() != content:
                write_atomically(path, content)
        for path in folder.rglob("*"):
            if path.is_file() and path.relative_to(folder).as_posix() not in self.files:
                path.unlink()


def make_sources(root: Path, folder: Path, *, worked: bool) -> None:
    """Makes the site's source in a folder: `worked` with solutions and for lecturers, otherwise as for learners.

    Raises:
        LinkError: naming every link of a text that leads nowhere.
        CourseError: if a lesson cannot be read.
    """
    source = Source(root, worked=worked)
    entries = [source.add_lesson(name) for name in source.lessons]
    start = publishing.read(root / "solutions" / f"{source.lessons[0]}.ipynb")
    source.add("glossary.md", glossary_page(start), f"notebooks/{source.lessons[0]}.ipynb")
    guides = [f"docs/{name}.md" for name in source.guides if source.linker.pages[f"docs/{name}.md"]]
    for name in guides:
        source.add_file(name, name)
    for card in source.cards:
        source.add_file(f"trained/{card.name}", f"coursework/models/trained/{card.name}")
    source.add("trained/index.md", cards_page(source.cards), "coursework/models/trained/index.md")
    source.files["commands.md"] = commands_page().encode()
    for module in (name for names in source.modules.values() for name in names):
        source.files[f"api/coursework.{module}.md"] = api_page(module).encode()
    source.files["api/index.md"] = api_index(source.modules).encode()
    source.add_file("contributing.md", "CONTRIBUTING.md")
    source.add_file("changelog.md", "CHANGELOG.md")
    source.add_file("index.md", "README.md")
    source.files["index.md"] += contents(entries, [name.removesuffix(".md") for name in guides]).encode()
    source.write(folder)


def contents(lessons: list[str], guides: list[str]) -> str:
    """Returns the site's table of contents."""
    parts = {
        "Lessons": lessons,
        "Guides": guides,
        "Reference": ["glossary", "commands", "api/index", "trained/index"],
        "Project": ["contributing", "changelog"],
    }
    return "\n" + "\n\n".join(toctree(caption, entries) for caption, entries in parts.items() if entries) + "\n"
