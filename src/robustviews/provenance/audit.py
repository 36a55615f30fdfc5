"""The audit: every cell of every table walked back to its bytes, and what was seen on the way."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustviews.commands import DEFAULT_STUDY
from robustviews.provenance import (
    checks,
    dvc,
    environment,
    history,
    notes,
    published,
    times,
    values,
)
from robustviews.provenance.disk import Disk, files
from robustviews.provenance.findings import Finding, State, worst
from robustviews.provenance.history import History
from robustviews.study import cells as cells_of_tables
from robustviews.study.cells import Address
from robustviews.study.jobs import Job, Key
from robustviews.study.plan import Cell
from robustviews.study.schema import Study
from robustviews.study.unused import unused
from robustviews.workflow.metadata import Notes

_LAST = ("frame", "metrics", "report")  # rules that end with the report or after it
_MADE_AGAIN = ("frame", "metrics", "table")  # rules whose outputs are compared whole
_NAMED = 6  # files, before they are counted


@dataclass(frozen=True)
class JobAudit:
    """What was seen of one job.

    Attributes:
        key: rule and name of the job.
        findings: one a check, and one for each thing that is wrong.
    """

    key: Key
    findings: tuple[Finding, ...]

    @property
    def state(self) -> State:
        """The worst of its findings."""
        return worst(self.findings)


@dataclass(frozen=True)
class CellAudit:
    """What was seen of one cell itself; `Audit.state_of` knows its jobs too.

    Attributes:
        address: where it stands.
        jobs: behind it, each after those that it needs.
        value: computed again: an accuracy, a fraction, or minutes; None where it cannot be.
        findings: of the cell alone.
    """

    address: Address
    jobs: tuple[Key, ...]
    value: float | None
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Audit:
    """What was seen of a study.

    Attributes:
        study: slug.
        jobs: those that leave a record; with some cells alone, those behind them.
        cells: of all tables, or those asked for.
        findings: of the study as a whole.
        remarks: in words, what decides nothing: what is not in use, unused parameters, what differs
            from the commit that is checked out.
    """

    study: str
    jobs: dict[Key, JobAudit]
    cells: dict[Address, CellAudit]
    findings: tuple[Finding, ...]
    remarks: tuple[str, ...] = ()
    file: str = DEFAULT_STUDY

    @property
    def state(self) -> State:
        """The worst of everything."""
        return worst(self.all_findings())

    def state_of(self, address: Address) -> State:
        """Return the worst of what was seen of a cell and of the jobs behind it."""
        cell = self.cells[address]
        jobs = (finding for key in cell.jobs for finding in self.jobs[key].findings)
        return worst((*cell.findings, *jobs))

    def all_findings(self) -> list[Finding]:
        """Return all findings: of jobs, of cells, of the study."""
        jobs = (finding for job in self.jobs.values() for finding in job.findings)
        cells = (finding for cell in self.cells.values() for finding in cell.findings)
        return [*jobs, *cells, *self.findings]

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "study": self.study,
            "state": str(self.state),
            "cells": {
                str(address): {
                    "state": str(self.state_of(address)),
                    "value": cell.value,
                    "jobs": [list(key) for key in cell.jobs],
                    "findings": [finding.as_json() for finding in cell.findings],
                }
                for address, cell in self.cells.items()
            },
            "jobs": [
                {
                    "rule": job.key[0],
                    "name": job.key[1],
                    "state": str(job.state),
                    "findings": [finding.as_json() for finding in job.findings],
                }
                for job in self.jobs.values()
            ],
            "findings": [finding.as_json() for finding in self.findings],
            "remarks": list(self.remarks),
        }


def audit(
    study: Study,
    root: Path = Path(),
    *,
    cells: Iterable[Address] | None = None,
    settled: bool = True,
) -> Audit:
    """Check every number of a study against the bytes that it was made from.

    Args:
        study: as it now stands.
        root: project folder.
        cells: look at these alone; None for all cells and all jobs.
        settled: False while the workflow still runs, in the job that writes the report: what is
            right only afterwards (frame.csv, metrics.json, the report's notes, dvc.lock) is left
            out.

    Returns:
        What was seen. Nothing is raised for what is wrong with results.
    """
    return _Auditor(study, root, settled=settled).audit(cells)


def verified(study: Study, root: Path = Path(), *, rules: Collection[str]) -> list[Finding]:
    """Check what the jobs of some rules left: bytes, records, notes, and what tables show.

    The last step of each stage of dvc.yaml, before DVC locks anything: so neither dvc.lock nor the
    repository is looked at, and nothing that only matters to who reads the numbers.

    Args:
        study: as it now stands.
        root: project folder.
        rules: of the workflow.

    Returns:
        All findings.
    """
    return _Auditor(study, root, settled=False).verify(rules)


class _Auditor:
    """Looks at one study, at everything once."""

    def __init__(self, study: Study, root: Path, *, settled: bool) -> None:
        self._disk = Disk(study, root)
        self._notes = Notes(root)
        self._history = History(root)
        self._lock = dvc.locked(self._disk) if settled else None
        self._settled = settled

    def audit(self, cells: Iterable[Address] | None) -> Audit:
        every = dict(self._cells())
        wanted = every if cells is None else {address: every[address] for address in cells}
        chains = {
            address: cells_of_tables.chain(self._disk.study, cell)
            for address, cell in wanted.items()
        }
        scope = self._scope(None if cells is None else chains)
        by_key = self._by_key(scope)
        values_of = self._values(wanted)
        shown = self._shown(scope)
        if cells is None and self._settled and ("metrics", "") in self._disk.jobs:
            shown += published.metrics(self._disk, values_of)
        return Audit(
            study=self._disk.study.study,
            jobs={
                job.key: JobAudit(job.key, tuple(by_key[job.key]))
                for job in scope
                if job.folder is not None
            },
            cells={
                address: self._cell(address, cell, value, chains[address])
                for address, (cell, value) in values_of.items()
            },
            findings=(
                *(finding for job in scope if job.folder is None for finding in by_key[job.key]),
                *shown,
                *history.package(self._disk.root),
                *(self._lock.problems if self._lock else ()),
            ),
            remarks=tuple(self._remarks()),
            file=self._disk.study.file,
        )

    def verify(self, rules: Collection[str]) -> list[Finding]:
        scope = [job for job in self._disk.jobs.values() if job.rule in rules]
        found = [
            finding
            for job in scope
            if job.folder is not None
            for finding in (
                *checks.of_job(self._disk, job),
                *self._flags(job),
                *environment.determinism(self._disk, job),
            )
        ]
        for findings in notes.check(self._disk, self._notes, scope).values():
            found += findings
        if ("metrics", "") in {job.key for job in scope}:
            found += published.metrics(self._disk, self._values(dict(self._cells())))
        if not scope:  # as of `probe`, where every row reads a supervised network's own classifier
            name, text = self._disk.study.study, "the study has no such job, so nothing to check"
            found.append(Finding("jobs", name, State.VERIFIED, text))
        return [*found, *self._shown(scope), *history.package(self._disk.root)]

    def _scope(self, chains: dict[Address, list[Job]] | None) -> list[Job]:
        """Return the jobs to look at: with some cells alone, their chains and their tables."""
        jobs = list(self._disk.jobs.values())
        if chains is not None:
            needed = {job.key for chain in chains.values() for job in chain}
            needed |= {("table", address.table) for address in chains}
            jobs = [job for job in jobs if job.key in needed]
        return [job for job in jobs if self._settled or job.rule not in _LAST]

    def _cells(self) -> Iterator[tuple[Address, Cell]]:
        return cells_of_tables.every(self._disk.study)

    def _values(self, wanted: dict[Address, Cell]) -> dict[Address, tuple[Cell, float | None]]:
        return {address: (cell, values.value(self._disk, cell)) for address, cell in wanted.items()}

    def _flags(self, job: Job) -> list[Finding]:
        if job.rule != "attack" or not checks.is_readable(self._disk, job):
            return []
        return values.check_flags(self._disk, job)

    def _by_key(self, scope: list[Job]) -> dict[Key, list[Finding]]:
        """Return the findings of each job, and of what is said of its files elsewhere."""
        found: dict[Key, list[Finding]] = {job.key: [] for job in scope}
        for job in scope:
            if job.folder is not None:
                found[job.key] += self._of_job(job)
        told = [notes.check(self._disk, self._notes, scope)]
        if self._lock:
            told.append(dvc.check(self._disk, self._lock, scope))
        for each in told:
            for key, findings in each.items():
                if key in found:  # a table's note also knows the records of other cells
                    found[key] += findings
        return found

    def _of_job(self, job: Job) -> list[Finding]:
        findings = checks.of_job(self._disk, job)
        if checks.is_readable(self._disk, job):
            findings += self._flags(job)
            findings.append(history.check(self._disk, self._history, self._notes, job))
            findings += environment.check(self._disk, self._history, job)
            findings += times.check(self._disk, self._notes, job)
        return findings

    def _cell(
        self, address: Address, cell: Cell, value: float | None, chain: list[Job]
    ) -> CellAudit:
        finding = values.check_cell(self._disk, address, cell, value)
        return CellAudit(address, tuple(job.key for job in chain), value, (finding,))

    def _shown(self, scope: list[Job]) -> list[Finding]:
        jobs = [job for job in scope if job.folder is None]
        found = [
            finding for job in jobs for finding in published.outputs(self._disk, self._notes, job)
        ]
        found += published.tables(self._disk, [job.name for job in jobs if job.rule == "table"])
        if any(job.rule == "frame" for job in jobs):
            found += published.frame(self._disk)
        return found

    def _remarks(self) -> Iterator[str]:
        """Say what decides nothing, and yet a reader may take for checked."""
        yield from self._history.remarks()
        if not self._settled:
            yield "while the workflow runs, dvc.lock and the report's own notes are not looked at"
        elif self._lock is None:
            yield "not used: DVC (there is no dvc.lock)"
        elif not dvc.covers(self._disk, self._lock):
            yield f"not used: DVC (dvc.lock names no file of {self._disk.study.study})"
        loose = self._loose() if self._settled else []
        if loose:
            more = f" and {len(loose) - _NAMED} more" if len(loose) > _NAMED else ""
            named = ", ".join(loose[:_NAMED]) + more
            yield f"nothing keeps a hash of {named}; where DVC is used, dvc.lock does"
        yield from unused(self._disk.study)

    def _loose(self) -> list[str]:
        """Return the files that could be edited without a trace: no later job reads them."""
        jobs = self._disk.jobs.values()
        held = notes.vouched_for(self._notes, jobs) | (set(self._lock.md5) if self._lock else set())
        for job in jobs:
            own = files(job)[:-1] if job.folder is not None else job.writes
            if job.folder is not None or job.rule in _MADE_AGAIN:
                held |= {path.as_posix() for path in own}
        return [name for name in self._disk.owners if name not in held]
