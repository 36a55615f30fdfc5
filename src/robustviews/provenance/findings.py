"""Findings: what one check saw, and what many of them come to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum


class State(IntEnum):
    """What a check came to, from good to bad; its value is no exit status, see `exit_status`."""

    VERIFIED = 0
    UNKNOWN = 1
    FAILED = 2

    def __str__(self) -> str:
        """Return the word that people read."""
        return self.name.lower()


@dataclass(frozen=True)
class Finding:
    """What one check saw.

    Attributes:
        check: its name, such as `bytes`.
        subject: file, job or cell that it looked at, relative to the project.
        state: what it came to.
        text: what was seen; unless verified also what was expected, and what to type next.
    """

    check: str
    subject: str
    state: State
    text: str

    def as_json(self) -> dict[str, str]:
        """Return plain JSON."""
        return {
            "check": self.check,
            "subject": self.subject,
            "state": str(self.state),
            "text": self.text,
        }


def worst(findings: Iterable[Finding]) -> State:
    """Return the worst state of some findings; nothing checked is nothing known."""
    return max((finding.state for finding in findings), default=State.UNKNOWN)


def exit_status(state: State) -> int:
    """Return what a verb exits with: 0 verified, 1 failed, 2 could not check."""
    return {State.VERIFIED: 0, State.FAILED: 1, State.UNKNOWN: 2}[state]
