"""Differences: the first input in which two results differ, then all others.

Inputs come in the order in which one can cause the next: those of earlier jobs first; of one job
the files that it read, code, options, seed, environment.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from robustviews.artifacts import ArtifactError, Record
from robustviews.provenance.disk import short
from robustviews.provenance.locate import End, LocateError, home, locate
from robustviews.study.differences import ABSENT, differences

if TYPE_CHECKING:
    from robustviews.study.schema import Study

_TIMED = "training.jsonl"  # holds seconds, so its bytes are never the same twice


@dataclass(frozen=True)
class Change:
    """One input in which two results differ.

    Attributes:
        job: of the second result that has the input.
        kind: `input`, `code`, `options`, `seed`, `environment` or `cell`.
        key: dotted name in the record, or name of a file.
        before: of the first result; ABSENT where its record does not have it.
        after: of the second.
    """

    job: str
    kind: str
    key: str
    before: Any
    after: Any

    def __str__(self) -> str:
        """Write it in words: `pretrain x: options: run.epochs was 3, is 4`."""
        was, now = (_word(value) for value in (self.before, self.after))
        return ": ".join(filter(None, (self.job, self.kind, f"{self.key} was {was}, is {now}")))


@dataclass
class Comparison:
    """What two results have in common and what not.

    Attributes:
        changes: in causal order; the first is the root cause, as far as records tell.
        written: files of the last jobs, and whether both results have the same bytes.
        unknown: what could not be compared, in words.
    """

    changes: list[Change] = field(default_factory=list)
    written: dict[str, bool] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    @property
    def differs(self) -> bool:
        """Whether an input differs, or the bytes that came out."""
        return bool(self.changes) or not all(self.written.values())

    def __str__(self) -> str:
        """Write it for people: the first difference, all others, what came out."""
        lines = ["No input that the records name differs"]
        if self.changes:
            lines = [f"First difference: {self.changes[0]}"]
            lines += [f"  then: {change}" for change in self.changes[1:]]
        elif self.differs:
            lines[0] += ", and yet other bytes came out: the cause is in no record"
        lines += [f"Unknown: {text}" for text in dict.fromkeys(self.unknown)]
        for file, same in self.written.items():
            lines.append(f"Output: {file}: {'the same' if same else 'other'} bytes")
        return "\n".join(lines) + "\n"


def compare(first: str, second: str, load: Callable[[], Study]) -> Comparison:
    """Compare two results, and everything that they were made from as far as records are there.

    Args:
        first: text that `locate` understands.
        second: the same.
        load: reads the study whose cells are meant.

    Raises:
        LocateError: a text names nothing, or the results are of different stages.
        CellError: the study has no such cell.
        ArtifactError: the record of a last job cannot be read.
    """
    (before, reads), (after, reads_now) = locate(first, load), locate(second, load)
    comparison = Comparison()
    changes: list[Change] = []
    for pair in zip(before, after, strict=False):
        old, new = (end.record() for end in pair)
        if old["stage"] != new["stage"]:
            raise LocateError(
                f"{home(old)} is of stage {old['stage']}, {home(new)} of stage {new['stage']}: "
                "compare two of one stage"
            )
        changes += _changes(*pair, comparison.unknown)
        comparison.written |= {f"{_job(new)}: {name}": same for name, same in _outputs(old, new)}
    cell = {"reads": (reads, reads_now), "runs": (len(before), len(after))}
    if reads and reads_now:
        changes += [
            Change("", "cell", key, *pair) for key, pair in cell.items() if pair[0] != pair[1]
        ]
    unique: dict[tuple[str, str, str], Change] = {}
    for change in changes:  # a job is reached on several ways
        unique.setdefault((change.job, change.kind, change.key), change)
    comparison.changes = list(unique.values())
    return comparison


def _changes(before: End, after: End, unknown: list[str]) -> Iterator[Change]:
    """Yield the inputs in which two jobs differ, each after those that it follows from."""
    old, new = before.record(), after.record()
    files = [
        {PurePosixPath(path).name: PurePosixPath(path) for path in each["inputs"]}
        for each in (old, new)
    ]
    read = []
    for name in dict.fromkeys((*files[0], *files[1])):
        first, second = (paths.get(name) for paths in files)
        hashes = old["inputs"].get(str(first), ABSENT), new["inputs"].get(str(second), ABSENT)
        if hashes[0] == hashes[1]:
            continue
        read.append(Change(_job(new), "input", name, *hashes))
        if first and second:
            pair = End(before.source, first.parent), End(after.source, second.parent)
            yield from _causes(*pair, name, hashes, unknown)
    yield from read
    job = _job(new)
    for key, was, now in sorted(differences(old["spec"], new["spec"]), key=_rank):
        yield Change(job, _kind(key), key, was, now)
    if not all(same for _, same in _outputs(old, new)):  # else the environment decided nothing
        for key, was, now in differences(old.get("environment"), new.get("environment")):
            yield Change(job, "environment", key or "environment", was, now)


def _causes(
    before: End, after: End, name: str, hashes: tuple[object, object], unknown: list[str]
) -> Iterator[Change]:
    """Yield why a file differs that two jobs wrote, as far as their records are still there."""
    try:
        wrote = [end.record()["outputs"].get(name) for end in (before, after)]
    except ArtifactError as error:
        unknown.append(f"why {name} differs: {error}")
        return
    if wrote != [*hashes]:
        unknown.append(f"why {name} differs: {after.folder} was made again since, in one of both")
        return
    yield from _changes(before, after, unknown)


def _outputs(old: Record, new: Record) -> Iterator[tuple[str, bool]]:
    """Yield the files that two jobs wrote, and whether their bytes are the same."""
    for name in sorted({*old["outputs"], *new["outputs"]} - {_TIMED}):
        yield name, old["outputs"].get(name) == new["outputs"].get(name)


def _rank(change: tuple[str, Any, Any]) -> tuple[bool, bool]:
    """Return a key that sorts another kind of method or attack first, then edits of code."""
    key = change[0]
    return key.rpartition(".")[2] != "kind", _kind(key) != "code"


def _kind(key: str) -> str:
    last = key.rpartition(".")[2]
    return last if last in ("code", "seed") else "options"


def _job(record: Record) -> str:
    return f"{record['stage']} {record['name']}"


def _word(value: object) -> str:
    if value is ABSENT:
        return "absent"
    text = value if isinstance(value, str) else json.dumps(value)
    return short(text) if text.startswith("sha256:") else text
