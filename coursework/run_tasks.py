"""What is to be executed, and how it went."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Task:
    """One lesson to execute: where from, where to, and how. `timeout` seconds a cell, `lesson_timeout` for them all.

    page: where it is written as a page too. store: whether its outputs are written back into its source.
    """

    source: Path
    output: Path
    parameters: Mapping[str, Any]
    timeout: float
    lesson_timeout: float = math.inf
    page: Path | None = None
    store: bool = False

    @property
    def name(self) -> str:
        """The lesson's name, such as 01_score_function."""
        return self.source.stem

    @property
    def tree(self) -> str:
        """The folder that the lesson is in, "notebooks" or "solutions"."""
        return self.source.parent.name


@dataclass(frozen=True)
class Outcome:
    """How a lesson went: seconds, the error's first line (empty if it ran to its end), and how many checks ended how.

    `details` are the code of the cell that failed and the error's last lines.
    """

    task: Task
    seconds: float
    error: str = ""
    details: str = ""
    passed: int = 0
    not_attempted: int = 0
    wrong: int = 0

    @property
    def status(self) -> str:
        """ "ok" or "failed"."""
        return "failed" if self.error else "ok"

    def failed(self, reason: str) -> Outcome:
        """This outcome with a reason why the lesson failed after all; the first one stays."""
        return self if self.error else replace(self, error=reason)
