"""What two results have in common and what not, as data and in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from robustviews.study import differences

KINDS = ("data", "code", "options", "seed", "environment", "upstream", "cell")
TIMED = "training.jsonl"  # holds seconds, so its bytes are never the same twice
_NOTHING = {"options": "none", "data": "not read", "upstream": "not read"}
_HASH = 19  # characters of a hash that tell it from others: `sha256:` and twelve


@dataclass(frozen=True)
class Change:
    """One thing in which two results differ.

    Attributes:
        job: that it belongs to, of the second result.
        kind: an entry of `KINDS`; `no input` for what decides nothing.
        key: dotted name in the record, or name of a file.
        before: of the first result; None where it does not say.
        after: of the second.
        decides: whether it can have made a difference to the result.
        follows: whether a change further upstream explains it.
    """

    job: str
    kind: str
    key: str
    before: Any
    after: Any
    decides: bool = True
    follows: bool = False

    def __str__(self) -> str:
        """Say it in words: `run.regime.replays was 3, is 4`."""
        return f"{self.key} was {self._said(self.before)}, is {self._said(self.after)}"

    def _said(self, value: object) -> str:
        if value is differences.ABSENT and self.kind == "options":
            return str(value)
        if value is None or value is differences.ABSENT:
            return _NOTHING.get(self.kind, "unknown")
        text = value if isinstance(value, str) else json.dumps(value)
        return text[:_HASH] if text.startswith("sha256:") else text


@dataclass(frozen=True)
class Written:
    """A file that both results wrote, or that one of them did."""

    job: str
    file: str
    same: bool


@dataclass
class Comparison:
    """What two results have in common and what not.

    Attributes:
        changes: upstream first.
        written: files of the last jobs.
        notes: what could not be compared, in words.
    """

    changes: list[Change] = field(default_factory=list)
    written: list[Written] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def first(self) -> Change | None:
        """The root cause, as far as records tell; None where nothing that decides differs."""
        decisive = [change for change in self.changes if change.decides]
        return next((each for each in decisive if not each.follows), None) or (
            decisive[0] if decisive else None
        )

    @property
    def same_bytes(self) -> bool:
        """Whether all files are the same that do not hold times."""
        return all(each.same for each in self.written if each.file != TIMED)

    @property
    def differs(self) -> bool:
        """Whether anything that decides differs."""
        return self.first is not None or not self.same_bytes


def in_words(seen: Comparison) -> str:
    """Write a comparison for people: the first difference, all others, what came out."""
    first, lines = seen.first, []
    if first:
        lines.append(f"First difference: {' '.join((first.job, first.kind)).strip()}: {first}")
    elif not seen.same_bytes:
        lines.append(
            "No input that the records name differs, and yet other bytes came out: something that "
            "no record holds, or a change of the files or records since"
        )
    else:
        lines.append("Nothing that decides differs")
    others = [change for change in seen.changes if change.decides and change is not first]
    lines += _group("Other differences:", others)
    idle = [change for change in seen.changes if not change.decides]
    lines += _group("Without consequence:", idle)
    lines += [f"Unknown: {note}" for note in dict.fromkeys(seen.notes)]
    return "\n".join([*lines, *_files_in_words(seen)]) + "\n"


def _group(title: str, changes: list[Change]) -> list[str]:
    lines, group = [title] if changes else [], ""
    for change in changes:
        if change.job != group:
            group = change.job
            lines += [f"  {group}"] if group else []
        why = " (follows)" if change.follows else ""
        lines.append(f"    {change.kind}: {change}{why}")
    return lines


def _files_in_words(seen: Comparison) -> Iterator[str]:
    yield "What came out:"
    for each in seen.written:
        said = "the same bytes" if each.same else "other bytes"
        if each.file == TIMED and not each.same:
            said += " (it holds times, which are never the same)"
        yield f"  {each.job}: {each.file}: {said}"
