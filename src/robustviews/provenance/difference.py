"""Differences: the first input in which two results differ, then all others.

Inputs come in causal order: inputs of earlier jobs first; for one job the files that it read, then
code, options, seed, environment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from robustviews.artifacts import ArtifactError, Record
from robustviews.provenance.disk import short
from robustviews.provenance.locate import End, LocateError, home, locate
from robustviews.study.differences import ABSENT, differences, plain

if TYPE_CHECKING:
    from robustviews.study.schema import Study

_TIMED = "training.jsonl"  # holds seconds, so its bytes differ in each run


@dataclass(frozen=True)
class Change:
    """One input in which two results differ.

    Attributes:
        job: of the second result that has the input.
        kind: `input`, `code`, `options`, `seed`, `environment` or `cell`.
        key: dotted name in the record, or name of a file.
        before: value of the first result; ABSENT if its record does not have it.
        after: value of the second result.
    """

    job: str
    kind: str
    key: str
    before: Any
    after: Any

    def __str__(self) -> str:
        """Return a line for people: `pretrain x: options: run.epochs was 3, is 4`."""
        was, now = (_text(value) for value in (self.before, self.after))
        return ": ".join(filter(None, (self.job, self.kind, f"{self.key} was {was}, is {now}")))


@dataclass
class Comparison:
    """Differences of two results.

    Attributes:
        changes: in causal order; the first is the root cause, as far as records state it.
        written: whether both results have the same bytes, by file of the last jobs.
        unknown: a line for each thing that could not be compared.
    """

    changes: list[Change] = field(default_factory=list)
    written: dict[str, bool] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    @property
    def differs(self) -> bool:
        """Whether an input or an output differs."""
        return bool(self.changes) or not all(self.written.values())

    def __str__(self) -> str:
        """Return lines for people: the first difference, the others, the outputs."""
        lines = ["No input that the records name differs"]
        if self.changes:
            lines = [f"First difference: {self.changes[0]}"]
            lines += [f"  then: {change}" for change in self.changes[1:]]
        elif self.differs:
            lines[0] += ", but the outputs differ: no record states the cause"
        lines += [f"Unknown: {text}" for text in dict.fromkeys(self.unknown)]
        for file, same in self.written.items():
            lines.append(f"Output: {file}: {'the same' if same else 'other'} bytes")
        return "\n".join(lines) + "\n"


def compare(first: str, second: str, load: Callable[[], Study]) -> Comparison:
    """Compare two results, and everything that they were made from as far as records exist.

    Args:
        first: first result, as `locate` reads it.
        second: second result, likewise.
        load: reads the study to which cells belong.

    Raises:
        LocateError: a text names nothing, or the results belong to different stages.
        CellError: the study has no such cell.
        ArtifactError: the record of a last job cannot be read.
    """
    (before, column), (after, other_column) = locate(first, load), locate(second, load)
    comparison = Comparison()
    changes: list[Change] = []
    for pair in zip(before, after, strict=False):
        old, new = (end.record() for end in pair)
        if old.stage != new.stage:
            raise LocateError(
                f"{home(old)} belongs to stage {old.stage}, {home(new)} to stage "
                f"{new.stage}: compare two results of one stage"
            )
        changes += _changes(*pair, comparison.unknown)
        comparison.written |= {f"{_job(new)}: {name}": same for name, same in _outputs(old, new)}
    cell = {"reads": (column, other_column), "runs": (len(before), len(after))}
    if column and other_column:
        changes += [
            Change("", "cell", key, *pair) for key, pair in cell.items() if pair[0] != pair[1]
        ]
    unique: dict[tuple[str, str, str], Change] = {}
    for change in changes:  # several chains lead to one job
        unique.setdefault((change.job, change.kind, change.key), change)
    comparison.changes = list(unique.values())
    return comparison


def _changes(before: End, after: End, unknown: list[str]) -> Iterator[Change]:
    """Yield the inputs in which two jobs differ, each after its causes."""
    old, new = before.record(), after.record()
    files = [
        {PurePosixPath(path).name: PurePosixPath(path) for path in record.inputs}
        for record in (old, new)
    ]
    changed_inputs = []
    for name in dict.fromkeys((*files[0], *files[1])):
        first, second = (paths.get(name) for paths in files)
        hashes = old.inputs.get(str(first), ABSENT), new.inputs.get(str(second), ABSENT)
        if hashes[0] == hashes[1]:
            continue
        changed_inputs.append(Change(_job(new), "input", name, *hashes))
        if first and second:
            pair = End(before.source, first.parent), End(after.source, second.parent)
            yield from _causes(*pair, name, hashes, unknown)
    yield from changed_inputs
    job = _job(new)
    for key, was, now in sorted(differences(old.spec, new.spec), key=_rank):
        yield Change(job, _kind(key), key, was, now)
    if not all(same for _, same in _outputs(old, new)):  # else the environment had no effect
        for key, was, now in differences(old.environment, new.environment):
            yield Change(job, "environment", key or "environment", was, now)


def _causes(
    before: End, after: End, name: str, hashes: tuple[object, object], unknown: list[str]
) -> Iterator[Change]:
    """Yield why a file that two jobs wrote differs, as far as their records still exist."""
    try:
        written = [end.record().outputs.get(name) for end in (before, after)]
    except ArtifactError as error:
        unknown.append(f"why {name} differs: {error}")
        return
    if written != [*hashes]:
        unknown.append(
            f"why {name} differs: {after.folder} was made again since, in one of both projects"
        )
        return
    yield from _changes(before, after, unknown)


def _outputs(old: Record, new: Record) -> Iterator[tuple[str, bool]]:
    """Yield each file that two jobs wrote, and whether its bytes are the same."""
    for name in sorted({*old.outputs, *new.outputs} - {_TIMED}):
        yield name, old.outputs.get(name) == new.outputs.get(name)


def _rank(change: tuple[str, Any, Any]) -> tuple[bool, bool]:
    """Return a sort key: changes of a method's or attack's kind first, then changes of code."""
    key = change[0]
    return key.rpartition(".")[2] != "kind", _kind(key) != "code"


def _kind(key: str) -> str:
    last = key.rpartition(".")[2]
    return last if last in ("code", "seed") else "options"


def _job(record: Record) -> str:
    return f"{record.stage} {record.name}"


def _text(value: object) -> str:
    if value is ABSENT:
        return "absent"
    text = plain(value)
    return short(text) if text.startswith("sha256:") else text
