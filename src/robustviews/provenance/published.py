"""What the study shows: frame, metrics and tables on disk, against what the results give again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustviews import artifacts
from robustviews.artifacts import ArtifactError
from robustviews.provenance.disk import Disk
from robustviews.provenance.findings import Finding, State
from robustviews.reporting import results
from robustviews.reporting.tables import TABLES, writers
from robustviews.study import folders
from robustviews.study.cells import Address
from robustviews.study.jobs import Job
from robustviews.workflow.metadata import Notes

if TYPE_CHECKING:
    from robustviews.study.plan import Cell

# What a record or flags that are not what they should be can raise; told where they are checked.
_UNREADABLE = (ArtifactError, AttributeError, LookupError, TypeError, ValueError)
_DIGITS = 1e-5  # of a number that is written with six digits


def outputs(disk: Disk, notes: Notes, job: Job) -> list[Finding]:
    """Check that a reporting job's files are there.

    Args:
        disk: files of the study.
        notes: of Snakemake, which know whether a file that is not there was once made.
        job: one without a record.
    """
    return [
        _missing(disk, job.rule, path, made=notes.of(path) is not None)
        for path in job.writes
        if not disk.exists(path)
    ]


def tables(disk: Disk, names: Iterable[str]) -> list[Finding]:
    """Make tables again and compare their files byte for byte.

    Args:
        disk: files of the study.
        names: of tables.
    """
    return [finding for name in names for finding in _table(disk, name)]


def frame(disk: Disk) -> list[Finding]:
    """Read all results again and compare frame.csv byte for byte."""
    path = folders.results_folder(disk.study) / "frame.csv"
    try:
        rows = results.frame(disk.study, disk.root)
    except _UNREADABLE as error:
        return [_unknown("frame", path, error)]
    return _compare(disk, "frame", path, results.to_csv(rows))


def metrics(disk: Disk, computed: dict[Address, tuple[Cell, float | None]]) -> list[Finding]:
    """Compare each cell of metrics.json with its value as computed again.

    Args:
        disk: files of the study.
        computed: every cell, with its value: a fraction, or minutes.
    """
    path = folders.results_folder(disk.study) / "metrics.json"
    if not disk.exists(path):
        return []  # told where outputs are looked for
    try:
        said = dict(_leaves(artifacts.read_json(disk.root / path)))
    except ArtifactError as error:
        return [Finding("metrics", path.as_posix(), State.FAILED, f"{error}")]
    wrong = [
        f"{address} is {said.get(tuple(address))}, flags and records give {value * scale:.6g}"
        for address, (cell, value) in computed.items()
        if value is not None
        for scale in (1 if cell.attack is None else 100,)
        if not _equal(said.get(tuple(address)), value * scale)
    ]
    known = {tuple(address) for address in computed}
    wrong += [f"{':'.join(name)} is no cell of the study" for name in said if name not in known]
    if wrong:
        return [
            Finding("metrics", path.as_posix(), State.FAILED, f"{text}; {disk.remake(path)}")
            for text in wrong
        ]
    known_values = sum(value is not None for _, value in computed.values())
    text = f"{known_values} cells as computed again"
    if known_values < len(computed):
        text += f", {len(computed) - known_values} cannot be computed: see their jobs"
        return [Finding("metrics", path.as_posix(), State.UNKNOWN, text)]
    return [Finding("metrics", path.as_posix(), State.VERIFIED, text)]


def _table(disk: Disk, name: str) -> Iterator[Finding]:
    table = disk.study.tables[name]
    path = folders.results_folder(disk.study) / "tables" / name
    try:
        rows = results.frame(disk.study, disk.root, blocks=[table])
    except _UNREADABLE as error:
        yield _unknown("table", path.with_suffix(".md"), error)
        return
    made = TABLES[table.kind](disk.study, table, rows)
    for suffix, write in writers.WRITERS.items():
        yield from _compare(disk, "table", path.with_suffix(suffix), write(made))


def _compare(disk: Disk, check: str, path: Path, text: str) -> list[Finding]:
    if not disk.exists(path):
        return []
    found = (disk.root / path).read_bytes()
    if found == text.encode():
        return [Finding(check, path.as_posix(), State.VERIFIED, "the same bytes when made again")]
    lines = zip(found.decode(errors="replace").splitlines(), text.splitlines(), strict=False)
    where = next((number for number, (one, other) in enumerate(lines, 1) if one != other), "last")
    text = f"not what the results give, from line {where} on; {disk.remake(path)}"
    return [Finding(check, path.as_posix(), State.FAILED, text)]


def _leaves(tree: Any, *names: str) -> Iterator[tuple[tuple[str, ...], Any]]:  # noqa: ANN401  # JSON
    if isinstance(tree, dict):
        for name, inner in tree.items():
            yield from _leaves(inner, *names, str(name))
    else:
        yield names, tree


def _equal(said: object, value: float) -> bool:
    return isinstance(said, int | float) and abs(said - value) <= _DIGITS * max(1.0, abs(value))


def _unknown(check: str, path: Path, error: Exception) -> Finding:
    first = str(error).partition("\n")[0]
    if not isinstance(error, ArtifactError):
        first = f"its records or flags cannot be read ({type(error).__name__}: {first})"
    elif "; " in first:  # the way out, which its job tells too
        first = f"{first.partition('; ')[0]}; see its job"
    text = f"cannot be made again to compare, since {first}"
    return Finding(check, path.as_posix(), State.UNKNOWN, text)


def _missing(disk: Disk, check: str, path: Path, *, made: bool) -> Finding:
    text = "missing, though it was made once" if made else "not made yet, or removed"
    state = State.FAILED if made else State.UNKNOWN
    return Finding(check, path.as_posix(), state, f"{text}; run: {disk.make(path)}")
