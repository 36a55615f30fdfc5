"""All mistakes in a study file, collected and reported at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple


class Place(NamedTuple):
    """A place in a study file."""

    line: int  # counted from 1
    key: str  # dotted, such as runs.emp-crop16.encoder.width; empty for the whole file


@dataclass(frozen=True)
class Problem:
    """One mistake: its place and how to fix it."""

    file: str
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}"
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class StudyError(ValueError):
    """A study file has mistakes; `problems` lists all of them, in the order of the file."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(problems, key=lambda problem: (problem.file, problem.line))
        lines = [str(problem) for problem in self.problems]
        count = f"{len(lines)} mistake{'s' if len(lines) > 1 else ''}"
        super().__init__("\n".join([*lines, f"{count} found, nothing was run"]))


class Problems:
    """Collects the mistakes in one file; a mistake that several runs share counts once."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._problems: dict[Problem, None] = {}

    def add(self, place: Place, message: str) -> None:
        """Add a mistake at a place."""
        self._problems[Problem(self.file, *place, message)] = None

    def raise_if_any(self) -> None:
        """Raise StudyError if there are mistakes."""
        if self._problems:
            raise StudyError(list(self._problems))


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint at the known name that was probably meant, as the end of a message."""
    known = sorted(known)
    close = closest(name, known)
    if close is not None:
        return f"did you mean `{close}`?"
    return "known: " + ", ".join(known) if known else "none is defined"


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the most similar known name, or None if no name is similar."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return close[0] if close else None
