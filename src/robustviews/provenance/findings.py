"""Findings: the result of one check, and the state of many of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path


class State(IntEnum):
    """Result of a check, from good to bad; its value is not the exit status, see `exit_status`."""

    VERIFIED = 0
    UNKNOWN = 1  # not checked, because something is missing
    DOUBT = 2  # checked, and improbable: files and records agree on it
    FAILED = 3

    def __str__(self) -> str:
        """Return the word that reports print."""
        return self.name.lower()


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes:
        check: name of the check, such as `bytes`.
        subject: checked file, relative to the project, or job, or cell.
        state: result.
        text: what was found; unless verified also what was expected, and the suggested command.
    """

    check: str
    subject: str
    state: State
    text: str

    def as_json(self) -> dict[str, str]:
        """Return plain JSON."""
        return {**asdict(self), "state": str(self.state)}


def verified(check: str, subject: Path | str, text: str) -> Finding:
    """Return that a check passed."""
    return Finding(check, str(subject), State.VERIFIED, text)


def unknown(check: str, subject: Path | str, text: str) -> Finding:
    """Return that something could not be checked."""
    return Finding(check, str(subject), State.UNKNOWN, text)


def failed(check: str, subject: Path | str, text: str) -> Finding:
    """Return that a check failed."""
    return Finding(check, str(subject), State.FAILED, text)


def judged(
    check: str, subject: Path | str, problems: Iterable[str], right: str, *, fix: str
) -> list[Finding]:
    """Return a failed finding per problem, with the fix; without any, that the check passed."""
    found = [failed(check, subject, f"{text}; {fix}") for text in problems]
    return found or [verified(check, subject, right)]


def worst(findings: Iterable[Finding]) -> State:
    """Return the worst state of some findings; unknown if there are none."""
    return max((finding.state for finding in findings), default=State.UNKNOWN)


def exit_status(state: State) -> int:
    """Return the exit status of a verb: 0 verified, 1 failed, 2 unknown or in doubt."""
    return {State.VERIFIED: 0, State.FAILED: 1}.get(state, 2)
