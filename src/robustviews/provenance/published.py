"""Checks of published files: frame, metrics and tables on disk, compared with the results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustviews import artifacts
from robustviews.artifacts import ArtifactError
from robustviews.provenance import seal
from robustviews.provenance.disk import Disk
from robustviews.provenance.findings import Finding, failed, judged, unknown, verified
from robustviews.provenance.values import is_equal
from robustviews.reporting import claims, results
from robustviews.reporting.tables import TABLES, writers
from robustviews.reporting.tables.metrics import CLAIMS, headline
from robustviews.study import folders
from robustviews.study.cells import Address
from robustviews.study.claims import measured
from robustviews.study.differences import leaves
from robustviews.study.jobs import Job
from robustviews.workflow.metadata import ProjectMetadata

if TYPE_CHECKING:
    from robustviews.study.plan import Cell

# Errors that wrong records or flags can raise; the checks of their jobs report them.
_UNREADABLE = (ArtifactError, AttributeError, LookupError, TypeError, ValueError)


def check(disk: Disk, metadata: ProjectMetadata, job: Job) -> Iterator[Finding]:
    """Check the files of a reporting job: a frame or table is made again, a page has a seal.

    Snakemake metadata state whether a missing file was ever made.
    """
    for path in job.writes:
        if not disk.exists(path):
            made = metadata.of(path) is not None
            text = "missing, but it was made before" if made else "not made yet, or removed"
            yield (failed if made else unknown)(job.rule, path, f"{text}; run: {disk.make(path)}")
    if job.rule in ("frame", "table"):
        yield from _made_again(disk, job)
    if job.rule == "report":
        yield from seal.check(disk, job)


def _made_again(disk: Disk, job: Job) -> Iterator[Finding]:
    """Read the results again, and compare the files of frame or table byte by byte."""
    table = disk.study.tables.get(job.name)
    try:
        rows = results.frame(disk.study, disk.root, blocks=[table] if table else ())
    except _UNREADABLE as error:
        yield _not_comparable(job, error)
        return
    if table is None:
        yield from _compare(disk, "frame", job.writes[0], results.to_csv(rows))
        return
    data = TABLES[table.kind](disk.study, table, rows)
    for path in job.writes:
        yield from _compare(disk, "table", path, writers.WRITERS[path.suffix](data))


def _compare(disk: Disk, check: str, path: Path, expected: str) -> Iterator[Finding]:
    if not disk.exists(path):
        return
    actual = (disk.root / path).read_bytes()
    if actual == expected.encode():
        yield verified(check, path, "the same bytes when made again")
        return
    lines = zip(actual.decode(errors="replace").splitlines(), expected.splitlines(), strict=False)
    line = next((number for number, (one, other) in enumerate(lines, 1) if one != other), "last")
    yield failed(
        check, path, f"differs from the results, first in line {line}; {disk.remake(path)}"
    )


def _not_comparable(job: Job, error: Exception) -> Finding:
    reason = str(error).partition("\n")[0]
    if not isinstance(error, ArtifactError):
        reason = f"its records or flags cannot be read ({type(error).__name__}: {reason})"
    elif "; " in reason:  # leaves out the fix, which the findings of the job state
        reason = f"{reason.partition('; ')[0]}; see its job"
    return unknown(job.rule, job.writes[0], f"cannot be made again to compare: {reason}")


def metrics(disk: Disk, computed: dict[Address, tuple[Cell, float | None]]) -> list[Finding]:
    """Compare each cell of metrics.json with its value as computed again, and each claim.

    A cell is left out exactly where the attack on one of its heads is not established. Values are
    fractions, or minutes; None is unknown.
    """
    path = folders.results_folder(disk.study) / "metrics.json"
    if not disk.exists(path):
        return []  # `check` reports it
    try:
        stated = dict(leaves(artifacts.read_json(disk.root / path)))
    except ArtifactError as error:
        return [failed("metrics", path, f"{error}")]
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
            if not (isinstance(found, int | float) and is_equal(found, expected)):
                problems.append(f"{address} is {found}, flags and records give {expected:.6g}")
    cells = {tuple(address) for address in computed}
    problems += [
        f"{':'.join(name)} is not a cell of the study" for name in stated if name not in cells
    ]
    count = sum(value is not None for _, value in computed.values())
    text = f"{count} cells as computed again"
    if not problems and count < len(computed):
        lost = f"{len(computed) - count} cannot be computed; see their jobs"
        return [unknown("metrics", path, f"{text}, {lost}")]
    judgement = judged("metrics", path, problems, text, fix=disk.remake(path))
    return judgement if problems else [*judgement, *_headline(disk, rows)]


def _headline(disk: Disk, rows: list[results.Result]) -> list[Finding]:
    """Compare headline.json with the same numbers of the results."""
    path = folders.results_folder(disk.study) / "headline.json"
    if not disk.exists(path):
        return []
    expected = headline(disk.study, rows)
    try:
        found = artifacts.read_json(disk.root / path)
    except ArtifactError as error:
        return [failed("metrics", path, f"{error}")]
    different = [f"{found} is stated, the results give {expected}"] if found != expected else []
    return judged("metrics", path, different, "as the results give them", fix=disk.remake(path))


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
