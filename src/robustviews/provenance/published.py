"""Checks of published files: frame, metrics and tables on disk, compared with the results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustviews import artifacts
from robustviews.artifacts import ArtifactError
from robustviews.provenance.disk import Disk
from robustviews.provenance.findings import Finding, State
from robustviews.reporting import claims, results
from robustviews.reporting.tables import TABLES, writers
from robustviews.reporting.tables.metrics import CLAIMS, headline
from robustviews.study import folders
from robustviews.study.cells import Address
from robustviews.study.claims import measured
from robustviews.study.jobs import Job
from robustviews.workflow.metadata import ProjectMetadata

if TYPE_CHECKING:
    from robustviews.study.plan import Cell

# Errors that wrong records or flags can raise; the checks of their jobs report them.
_UNREADABLE = (ArtifactError, AttributeError, LookupError, TypeError, ValueError)
_TOLERANCE = 1e-5  # relative; metrics.json holds six digits


def outputs(disk: Disk, metadata: ProjectMetadata, job: Job) -> list[Finding]:
    """Check that a reporting job's files exist.

    Args:
        disk: files of the study.
        metadata: of the project, which states whether a missing file was ever made.
        job: a job without a record.
    """
    return [
        _missing(disk, job.rule, path, made=metadata.of(path) is not None)
        for path in job.writes
        if not disk.exists(path)
    ]


def tables(disk: Disk, names: Iterable[str]) -> list[Finding]:
    """Make tables again and compare their files byte by byte.

    Args:
        disk: files of the study.
        names: of tables.
    """
    return [finding for name in names for finding in _table(disk, name)]


def frame(disk: Disk) -> list[Finding]:
    """Read all results again and compare frame.csv byte by byte."""
    path = folders.results_folder(disk.study) / "frame.csv"
    try:
        rows = results.frame(disk.study, disk.root)
    except _UNREADABLE as error:
        return [_unknown("frame", path, error)]
    return _compare(disk, "frame", path, results.to_csv(rows))


def metrics(disk: Disk, computed: dict[Address, tuple[Cell, float | None]]) -> list[Finding]:
    """Compare each cell of metrics.json with its value as computed again, and each claim.

    A cell is left out exactly where the attack on one of its heads is not established.

    Args:
        disk: files of the study.
        computed: each cell with its value: a fraction, or minutes.
    """
    path = folders.results_folder(disk.study) / "metrics.json"
    if not disk.exists(path):
        return []  # `outputs` reports it
    try:
        stated = dict(_leaves(artifacts.read_json(disk.root / path)))
    except ArtifactError as error:
        return [Finding("metrics", path.as_posix(), State.FAILED, f"{error}")]
    rows = _rows(disk)
    problems = list(_claims(disk, stated, rows))
    doubted = {
        (row["run"], row["probe"], row["attack"], eps)
        for row in rows
        if row["sanity"]
        for eps in (row["eps"], None)  # of one radius, and of what all radii decide
    }
    for address, (cell, value) in computed.items():
        found = stated.get(tuple(address))
        eps = None if cell.measure.statistic else cell.eps or 0.0
        if any((run, cell.probe, cell.attack, eps) in doubted for run in cell.runs):
            if found is not None:
                problems.append(f"{address} is {found}, the attack is not established")
        elif value is not None:
            expected = value * cell.measure.scale
            if not _equal(found, expected):
                problems.append(f"{address} is {found}, flags and records give {expected:.6g}")
    cells = {tuple(address) for address in computed}
    problems += [
        f"{':'.join(name)} is not a cell of the study" for name in stated if name not in cells
    ]
    if problems:
        return [
            Finding("metrics", path.as_posix(), State.FAILED, f"{text}; {disk.remake(path)}")
            for text in problems
        ]
    count = sum(value is not None for _, value in computed.values())
    text = f"{count} cells as computed again"
    if count < len(computed):
        text += f", {len(computed) - count} cannot be computed; see their jobs"
        return [Finding("metrics", path.as_posix(), State.UNKNOWN, text)]
    return [Finding("metrics", path.as_posix(), State.VERIFIED, text), *_headline(disk, rows)]


def _headline(disk: Disk, rows: list[results.Result]) -> list[Finding]:
    """Compare headline.json with the same numbers of the results."""
    path = folders.results_folder(disk.study) / "headline.json"
    if not disk.exists(path):
        return []
    expected = headline(disk.study, rows)
    try:
        found = artifacts.read_json(disk.root / path)
    except ArtifactError as error:
        return [Finding("metrics", path.as_posix(), State.FAILED, f"{error}")]
    if found == expected:
        return [Finding("metrics", path.as_posix(), State.VERIFIED, "as the results give them")]
    text = f"{found} is stated, the results give {expected}; {disk.remake(path)}"
    return [Finding("metrics", path.as_posix(), State.FAILED, text)]


def _rows(disk: Disk) -> list[results.Result]:
    """Return the results of all tables and claims; none if the check of the frame reports why."""
    try:
        return results.frame(disk.study, disk.root, blocks=measured(disk.study), partial=True)
    except _UNREADABLE:
        return []


def _claims(
    disk: Disk, stated: dict[tuple[str, ...], Any], rows: list[results.Result]
) -> Iterator[str]:
    """Remove the claims from the content of metrics.json; yield those that have another result."""
    of_file = {name: stated.pop(name) for name in list(stated) if name[:1] == (CLAIMS,)}
    if not rows:
        return
    outcomes = claims.evaluate(disk.study, rows)
    computed: dict[tuple[str, ...], str] = {(CLAIMS, one.name): one.state for one in outcomes}
    lost = {(CLAIMS, one.name) for one in outcomes if one.is_incomplete}
    for name in dict.fromkeys([*computed, *of_file]):
        if name in lost:
            continue  # the checks of the jobs report what is missing
        found, expected = of_file.get(name), computed.get(name)
        if found != expected:
            yield f"claim {name[-1]} is {found!r}, the results give {expected!r}"


def _table(disk: Disk, name: str) -> Iterator[Finding]:
    table = disk.study.tables[name]
    path = folders.results_folder(disk.study) / "tables" / name
    try:
        rows = results.frame(disk.study, disk.root, blocks=[table])
    except _UNREADABLE as error:
        yield _unknown("table", path.with_suffix(".md"), error)
        return
    data = TABLES[table.kind](disk.study, table, rows)
    for suffix, write in writers.WRITERS.items():
        yield from _compare(disk, "table", path.with_suffix(suffix), write(data))


def _compare(disk: Disk, check: str, path: Path, expected: str) -> list[Finding]:
    if not disk.exists(path):
        return []
    actual = (disk.root / path).read_bytes()
    if actual == expected.encode():
        return [Finding(check, path.as_posix(), State.VERIFIED, "the same bytes when made again")]
    lines = zip(actual.decode(errors="replace").splitlines(), expected.splitlines(), strict=False)
    line = next((number for number, (one, other) in enumerate(lines, 1) if one != other), "last")
    text = f"differs from the results, first in line {line}; {disk.remake(path)}"
    return [Finding(check, path.as_posix(), State.FAILED, text)]


def _leaves(tree: Any, *names: str) -> Iterator[tuple[tuple[str, ...], Any]]:  # noqa: ANN401  # JSON
    if isinstance(tree, dict):
        for name, inner in tree.items():
            yield from _leaves(inner, *names, str(name))
    else:
        yield names, tree


def _equal(stated: object, value: float) -> bool:
    tolerance = _TOLERANCE * max(1.0, abs(value))
    # Not all whole numbers of JSON fit into a float.
    return isinstance(stated, int | float) and value - tolerance <= stated <= value + tolerance


def _unknown(check: str, path: Path, error: Exception) -> Finding:
    reason = str(error).partition("\n")[0]
    if not isinstance(error, ArtifactError):
        reason = f"its records or flags cannot be read ({type(error).__name__}: {reason})"
    elif "; " in reason:  # leaves out the fix, which the findings of the job state
        reason = f"{reason.partition('; ')[0]}; see its job"
    text = f"cannot be made again to compare: {reason}"
    return Finding(check, path.as_posix(), State.UNKNOWN, text)


def _missing(disk: Disk, check: str, path: Path, *, made: bool) -> Finding:
    text = "missing, but it was made before" if made else "not made yet, or removed"
    state = State.FAILED if made else State.UNKNOWN
    return Finding(check, path.as_posix(), state, f"{text}; run: {disk.make(path)}")
