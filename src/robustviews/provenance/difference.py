"""Differences: the first input in which two results part, in causal order, and all others.

A job's inputs come in the order in which they could have caused one another: data, code, options,
seed, environment, what earlier jobs wrote; and the inputs of an earlier job come before its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from robustviews.artifacts import ArtifactError, Record
from robustviews.provenance.comparison import KINDS, TIMED, Change, Comparison, Written
from robustviews.provenance.places import Checkout, Place, PlaceError, home, locate
from robustviews.study import cells, differences, folders

if TYPE_CHECKING:
    from robustviews.study.schema import Study

_FIRST = ("device", "packages", "torch", "python")  # of an environment, what tells the most
_ASIDE = ("code.commit", "code.dirty", "started", "seconds", "resumed")  # no input of any number

_UNKNOWN = (None, differences.ABSENT)  # both ways in which records say so


@dataclass(frozen=True)
class End:
    """A job at the end of a chain: where its record is read, and its folder in its project."""

    place: Place
    folder: PurePosixPath

    def record(self) -> Record:
        """Read its record."""
        return self.place.record(self.folder)


@dataclass(frozen=True)
class Side:
    """What somebody named, to be compared.

    Attributes:
        ends: its last jobs, by seed; a record alone stands under None.
        reads: what a cell takes from them, such as `eps_8`; None for a record.
    """

    ends: dict[int | None, End]
    reads: str | None = None


def side(text: str, load: Callable[[], Study]) -> Side:
    """Return what a text on the command line names.

    Args:
        text: a record.json, a folder with one, TABLE:ROW:COLUMN, or REVISION:PATH.
        load: reads the study whose cells are meant; called for cells alone.

    Raises:
        PlaceError: it names nothing.
        CellError: the study has no such cell.
        ArtifactError: the record cannot be read.
    """
    if Path(text).exists() or text.count(":") != 2:
        return Side({None: End(*locate(text))})
    study = load()
    _, cell = cells.find(study, text)
    here = Checkout(Path())
    ends: dict[int | None, End] = {}
    for seed, run in zip(cell.seeds, cell.runs, strict=True):
        folder = folders.pretrain_folder(study, run)
        if cell.attack:
            folder = folders.attack_folder(study, run, cell.probe, cell.attack)
        ends[seed] = End(here, PurePosixPath(folder.as_posix()))
    return Side(ends, cell.metric if cell.eps is None else f"eps_{cell.eps:g}")


def compare(before: Side, after: Side) -> Comparison:
    """Compare results, and everything that they were made from as far as records are there.

    Raises:
        PlaceError: they are of different stages.
        ArtifactError: the record of a last job cannot be read.
    """
    walk = _Walk()
    common = [seed for seed in before.ends if seed in after.ends]
    pairs = [(before.ends[seed], after.ends[seed]) for seed in common]
    for old, new in pairs or zip(before.ends.values(), after.ends.values(), strict=False):
        walk.last(old, new)
    if before.reads and after.reads:
        walk.cells(before, after)
    return walk.seen


class _Walk:
    """Goes through two chains at once, from their last jobs to the data."""

    def __init__(self) -> None:
        self.seen = Comparison()
        self._found: dict[tuple[str, str, str], Change] = {}

    def last(self, before: End, after: End) -> None:
        """Compare two last jobs and all upstream."""
        old, new = before.record(), after.record()
        if old["stage"] != new["stage"]:
            raise PlaceError(
                f"{home(old)} is of stage {old['stage']}, {home(new)} of stage {new['stage']}: "
                "compare two of one stage"
            )
        written = list(_written(old, new))
        same = all(each.same for each in written if each.file != TIMED)
        aside = [
            Change(_job(new), "no input", key, _at(old, key), _at(new, key), decides=False)
            for key in _ASIDE
            if _at(old, key) != _at(new, key)
        ]
        self._note([*self._of_job(before, after, same=same), *aside])
        self.seen.written += written

    def cells(self, before: Side, after: Side) -> None:
        """Compare what two cells take from their jobs."""
        values = {
            "reads": (before.reads, after.reads),
            "seeds": (list(before.ends), list(after.ends)),
        }
        self._note(
            [Change("", "cell", key, *pair) for key, pair in values.items() if pair[0] != pair[1]]
        )

    def _note(self, changes: list[Change]) -> None:
        """Keep each change once: a job is reached on several ways, and may decide on one."""
        for change in changes:
            name = change.job, change.kind, change.key
            if name not in self._found or change.decides:
                self._found[name] = change
        self.seen.changes = list(self._found.values())

    def _of_job(self, before: End, after: End, *, same: bool) -> list[Change]:
        """Return the changes of two jobs, those upstream first.

        Args:
            before: the first.
            after: the second.
            same: whether they wrote the same bytes.
        """
        old, new = before.record(), after.record()
        upstream: dict[tuple[End, End] | None, list[_File]] = {}
        for file in _files(before, after, old, new):
            upstream.setdefault(file.ends, []).append(file)
        changes: list[Change] = []
        read: list[Change] = []
        for ends, files in upstream.items():
            causes = self._causes(ends, files) if ends else []
            follows = any(change.decides for change in causes)
            changes += causes
            read += [
                Change(_job(new), each.kind, each.name, each.before, each.after, follows=follows)
                for each in files
                if each.before != each.after
            ]
        own = [*read, *_own(old, new, changes, same=same)]
        return [*changes, *sorted(own, key=lambda change: KINDS.index(change.kind))]

    def _causes(self, ends: tuple[End, End], files: list[_File]) -> list[Change]:
        """Return why files differ that two jobs wrote; of the same bytes what did not matter."""
        changed = [file for file in files if file.before != file.after]
        try:
            old, new = (end.record() for end in ends)
        except ArtifactError as error:
            self.seen.notes += [f"why {file.name} differs: {error}" for file in changed[:1]]
            return []
        for file in files:
            wrote = old["outputs"].get(file.name), new["outputs"].get(file.name)
            if wrote != (file.before, file.after):
                self.seen.notes.append(
                    f"how the {file.name} was made that was read: {ends[1].folder} was made again "
                    "since, in one of both"
                )
                return []
        causes = self._of_job(*ends, same=not changed)
        return causes if changed else [replace(change, decides=False) for change in causes]


@dataclass(frozen=True)
class _File:
    """A file that two jobs read, by the role it plays for them."""

    name: str
    kind: str
    before: str | None
    after: str | None
    ends: tuple[End, End] | None


def _files(before: End, after: End, old: Record, new: Record) -> Iterator[_File]:
    """Yield what two jobs read, matched by name: a job reads no two files of one name."""
    paths = [
        {PurePosixPath(path).name: PurePosixPath(path) for path in record["inputs"]}
        for record in (old, new)
    ]
    for name in dict.fromkeys((*paths[0], *paths[1])):
        first, second = (found.get(name) for found in paths)
        kind = "data" if (second or first or PurePosixPath()).parts[:1] == ("data",) else "upstream"
        ends = None
        if first and second:
            ends = End(before.place, first.parent), End(after.place, second.parent)
        yield _File(
            name,
            kind,
            old["inputs"].get(str(first)) if first else None,
            new["inputs"].get(str(second)) if second else None,
            ends,
        )


def _own(old: Record, new: Record, causes: list[Change], *, same: bool) -> list[Change]:
    """Return the changes of code, options, seed and environment, given those upstream."""
    job = _job(new)
    spec = differences.differences(old["spec"], new["spec"])
    spec.sort(key=lambda each: not _is_kind(each[0]))  # all else about a method follows from it
    # Another kind of method or attack is other code: that tells of no edit.
    other_kind = any(_is_kind(key) for key, _, _ in spec)
    changes = [Change(job, _kind(key), key, was, now) for key, was, now in spec]
    changes = [
        replace(each, follows=_repeats(each, causes) or (each.kind == "code" and other_kind))
        for each in changes
    ]
    surroundings = differences.differences(old.get("environment"), new.get("environment"))
    # Bytes that came out the same were not decided by it.
    return changes + [
        Change(job, "environment", key or "environment", was, now, decides=not same)
        for key, was, now in sorted(surroundings, key=lambda each: _rank(each[0]))
        if was not in _UNKNOWN or now not in _UNKNOWN
    ]


def _repeats(change: Change, causes: list[Change]) -> bool:
    """Return whether a spec says again what that of an earlier job says."""
    return any(
        cause.decides
        and (cause.before, cause.after) == (change.before, change.after)
        and f".{change.key}".endswith(f".{cause.key}")
        for cause in causes
    )


def _is_kind(key: str) -> bool:
    return key.rpartition(".")[2] == "kind"


def _kind(key: str) -> str:
    if key.rpartition(".")[2] == "code":
        return "code"
    return "seed" if key == "seed" else "options"


def _rank(key: str) -> int:
    part = key.partition(".")[0]
    return _FIRST.index(part) if part in _FIRST else len(_FIRST)


def _written(old: Record, new: Record) -> Iterator[Written]:
    for name in sorted({*old["outputs"], *new["outputs"]}):
        yield Written(_job(new), name, old["outputs"].get(name) == new["outputs"].get(name))


def _job(record: Record) -> str:
    return f"{record['stage']} {record['name']}"


def _at(record: Record, key: str) -> Any:  # noqa: ANN401  # JSON
    value: Any = record
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
