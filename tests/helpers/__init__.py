"""What tests share."""

from pathlib import Path

from coursework.course import tree

ROOT = Path(__file__).resolve().parents[2]
LESSONS = [path.stem for path in tree.lessons(ROOT / "solutions")]
