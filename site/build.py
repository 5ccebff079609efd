"""Builds the course's website: `make site`, or `make site TREE=notebooks`. It reads without internet.

Sphinx makes it in build/site/.work with warnings as errors; only then it takes the place of the former site in
build/site/<tree>.
"""

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer
from sphinx.cmd.build import build_main

from coursework.cli.terminal import refuse
from coursework.course import publishing
from coursework.course.tree import TREES, CourseError, course_tree

HERE = Path(__file__).resolve().parent
FAILED = 1

Tree = Annotated[str, typer.Option(help="solutions (worked, for lecturers) or notebooks (as learners get them)")]
Out = Annotated[Path | None, typer.Option(help="folder for the site [default: build/site/<tree>]")]


def build(tree: Tree = "solutions", out: Out = None) -> None:
    """Build the website of the course tree in the current directory."""
    if tree not in TREES:
        refuse(f"tree: expected one of {', '.join(TREES)}, got {tree!r}")
    try:
        root = course_tree(Path.cwd())
        problems = publishing.outdated(root)
    except CourseError as error:
        refuse(str(error))
    if problems:
        refuse(f"{'; '.join(problems)}: run `coursework publish` first")
    work = root / "build" / "site" / ".work" / tree
    html = work / "html"
    shutil.rmtree(html, ignore_errors=True)
    quiet = [] if sys.stdout.isatty() else ["-q"]  # in a terminal Sphinx shows how far it is
    options = [*quiet, "-b", "html", "-n", "-W", "-t", tree, "-c", HERE, "-d", work / "doctrees", root, html]
    if build_main([str(option) for option in options]):
        raise typer.Exit(FAILED)
    shutil.copyfile(html / "README.html", html / "index.html")
    out = (out or root / "build" / "site" / tree).resolve()
    put_in_place(html, out)
    print(f"open {out / 'index.html'}")


def put_in_place(html: Path, out: Path) -> None:
    """Moves a finished site where it belongs; the former one goes when the new one is there."""
    new, former = out.with_name(f".{out.name}.new"), out.with_name(f".{out.name}.former")
    for left in (new, former):
        shutil.rmtree(left, ignore_errors=True)
    new.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(html, new)
    if out.exists():
        out.rename(former)
    new.rename(out)
    shutil.rmtree(former, ignore_errors=True)


if __name__ == "__main__":
    typer.run(build)
