"""The audit: walks every cell of every table back to its bytes, and reports what it finds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustviews.machine.humanize import some
from robustviews.provenance import (
    checks,
    dvc,
    environment,
    established,
    history,
    installed,
    metadata,
    plausible,
    published,
    times,
    values,
)
from robustviews.provenance.disk import Disk
from robustviews.provenance.findings import Finding, State, worst
from robustviews.provenance.history import History
from robustviews.study import cells as cells_of_tables
from robustviews.study.cells import Address
from robustviews.study.jobs import Job, Key
from robustviews.study.plan import Cell
from robustviews.study.schema import Study
from robustviews.study.unused import unused
from robustviews.workflow.metadata import ProjectMetadata

Recheck = Callable[[Disk, Job], list[Finding]]  # of a job of rule `attack`

_LAST = ("frame", "metrics", "report")  # rules that end with the report or after it
_CHECKED = ("frame", "metrics", "table", "report")  # computed again, or with own checksums
_CHECKS_OF_FLAGS = {"attack": values.check_flags, "sanity": established.check}
_Values = dict[Address, tuple[Cell, float | None]]


@dataclass(frozen=True)
class JobAudit:
    """Findings of one job: one per check that passed, and one per problem."""

    key: Key
    findings: tuple[Finding, ...]

    @property
    def state(self) -> State:
        """The worst state of its findings."""
        return worst(self.findings)


@dataclass(frozen=True)
class CellAudit:
    """Findings of one cell itself; `Audit.state_of` includes its jobs.

    Attributes:
        address: table, row and column.
        jobs: behind the cell, each after the jobs that it needs.
        value: computed again: an accuracy as a fraction, or minutes; None if it cannot be.
        findings: of the cell, without its jobs.
    """

    address: Address
    jobs: tuple[Key, ...]
    value: float | None
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Audit:
    """Findings of a study.

    Attributes:
        study: slug.
        jobs: all jobs that write a record, or only those behind the requested cells.
        cells: all cells of all tables, or the requested cells.
        findings: of the study as a whole.
        remarks: lines that decide no state: tools not in use, unused parameters, differences from
            the commit that is checked out.
    """

    study: str
    jobs: dict[Key, JobAudit]
    cells: dict[Address, CellAudit]
    findings: tuple[Finding, ...]
    remarks: tuple[str, ...] = ()

    @property
    def state(self) -> State:
        """The worst state of all findings."""
        return worst(self.all_findings())

    def state_of(self, address: Address) -> State:
        """Return the worst state of a cell's findings and of the jobs behind the cell."""
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
    recheck: Recheck | None = None,
) -> Audit:
    """Check every number of a study against the bytes that it was made from.

    Args:
        study: as it is now.
        root: project folder.
        cells: cells to check; None for all cells and all jobs.
        settled: False while the workflow still runs, in the job that writes the report. The audit
            then leaves out what only becomes right later: frame.csv, metrics.json, the metadata of
            the report, dvc.lock.
        recheck: computes a part of each attack again, and compares; None computes nothing.

    Returns:
        The findings. Problems of results raise nothing.
    """
    return _Auditor(study, root, settled=settled, recheck=recheck).audit(cells)


def verified(study: Study, root: Path = Path(), *, rules: Collection[str]) -> list[Finding]:
    """Check the files of the jobs of some rules: bytes, records, metadata, and tables.

    This is the last step of each stage of dvc.yaml, before DVC locks anything. So it reads neither
    dvc.lock nor the repository, and it skips checks that only matter to readers of the numbers.
    """
    return _Auditor(study, root, settled=False).verify(rules)


class _Auditor:
    """Audit of one study; reads each file once."""

    def __init__(
        self, study: Study, root: Path, *, settled: bool, recheck: Recheck | None = None
    ) -> None:
        self._recheck = recheck
        self._disk = Disk(study, root)
        self._metadata = ProjectMetadata(root)
        self._history = History(root)
        self._lock = dvc.locked(self._disk) if settled else None
        self._settled = settled

    def audit(self, cells: Iterable[Address] | None) -> Audit:
        computed = self._values(cells)
        chains = {
            address: cells_of_tables.chain(self._disk.study, cell)
            for address, (cell, _) in computed.items()
        }
        scope = self._scope(None if cells is None else chains)
        by_key = self._by_key(scope)
        audits = {
            job.key: JobAudit(job.key, tuple(by_key.pop(job.key)))
            for job in scope
            if job.folder is not None
        }
        shown = [finding for findings in by_key.values() for finding in findings]
        shown += self._published(scope)
        if cells is None and self._settled and ("metrics", "") in self._disk.jobs:
            shown += published.metrics(self._disk, computed)
        if self._settled:
            locks = self._lock.problems if self._lock else dvc.missing(self._disk, self._history)
            shown += [installed.check(), *locks]
        return Audit(
            study=self._disk.study.study,
            jobs=audits,
            cells={
                address: CellAudit(
                    address,
                    tuple(job.key for job in chains[address]),
                    value,
                    (values.check_cell(self._disk, address, cell, value),),
                )
                for address, (cell, value) in computed.items()
            },
            findings=tuple(shown),
            remarks=tuple(self._remarks()),
        )

    def verify(self, rules: Collection[str]) -> list[Finding]:
        scope = [job for job in self._disk.jobs.values() if job.rule in rules]
        result = [
            finding
            for job in scope
            if job.folder is not None
            for finding in (
                *checks.of_job(self._disk, job),
                *self._flags(job),
                *environment.determinism(self._disk, job),
            )
        ]
        for findings in metadata.check(self._disk, self._metadata, scope).values():
            result += findings
        if ("metrics", "") in {job.key for job in scope}:
            result += published.metrics(self._disk, self._values(None))
        if not scope:  # such as `probe` if every row uses a supervised network's own classifier
            text = "the study has no such job, so nothing to check"
            result.append(Finding("jobs", self._disk.study.study, State.VERIFIED, text))
        return [*result, *self._published(scope)]

    def _scope(self, chains: dict[Address, list[Job]] | None) -> list[Job]:
        """Return the jobs to check: all, or the chains and tables of the requested cells."""
        jobs = list(self._disk.jobs.values())
        if chains is not None:
            needed = {job.key for chain in chains.values() for job in chain}
            needed |= {("table", address.table) for address in chains}
            jobs = [job for job in jobs if job.key in needed]
        return [job for job in jobs if self._settled or job.rule not in _LAST]

    def _values(self, cells: Iterable[Address] | None) -> _Values:
        """Return the requested cells, or all, each with its value as computed again."""
        every = dict(cells_of_tables.every(self._disk.study))
        requested = every if cells is None else cells
        return {
            address: (every[address], values.value(self._disk, every[address]))
            for address in requested
        }

    def _flags(self, job: Job) -> list[Finding]:
        if job.rule not in _CHECKS_OF_FLAGS or not self._disk.is_readable(job):
            return []
        return _CHECKS_OF_FLAGS[job.rule](self._disk, job)

    def _by_key(self, scope: list[Job]) -> dict[Key, list[Finding]]:
        """Return the findings of each job, those of its files' metadata and locks included."""
        result: dict[Key, list[Finding]] = {job.key: [] for job in scope}
        for job in scope:
            if job.folder is not None:
                result[job.key] += self._of_job(job)
        by_tool = [metadata.check(self._disk, self._metadata, scope)]
        if self._lock:
            by_tool.append(dvc.check(self._disk, self._lock, scope))
        for findings_by_key in by_tool:
            for key, findings in findings_by_key.items():
                if key in result:  # metadata of a table also lists records of other cells
                    result[key] += findings
        return result

    def _of_job(self, job: Job) -> list[Finding]:
        findings = checks.of_job(self._disk, job)
        if self._disk.is_readable(job):
            findings += self._flags(job)
            findings.append(history.check(self._disk, self._history, self._metadata, job))
            findings += environment.check(self._disk, self._history, job)
            findings += times.check(self._disk, self._metadata, job)
            findings += plausible.check(self._disk, job)
            if self._recheck and job.rule == "attack":
                findings += self._recheck(self._disk, job)
        return findings

    def _published(self, scope: list[Job]) -> list[Finding]:
        """Return the findings of reporting jobs, and of the package that runs."""
        result = [
            finding
            for job in scope
            if job.folder is None
            for finding in published.check(self._disk, self._metadata, job)
        ]
        return result + history.package(self._disk.root)

    def _remarks(self) -> Iterator[str]:
        """Yield what decides no state, such as what a reader may wrongly believe was checked."""
        yield from self._history.remarks()
        if not self._settled:
            yield "not checked while the workflow runs: dvc.lock and the metadata of the report"
        elif self._lock is None:
            yield "not used: DVC (there is no dvc.lock)"
        elif not dvc.covers(self._disk, self._lock):
            yield f"not used: DVC (dvc.lock names no file of {self._disk.study.study})"
        uncovered = self._uncovered() if self._settled else []
        if uncovered:
            names = some(uncovered, history.NAMED)
            yield f"no checksum covers {names}; with DVC, dvc.lock does"
        yield from plausible.remarks(self._disk)
        yield from unused(self._disk.study)

    def _uncovered(self) -> list[str]:
        """Return the files that nobody would see edited: no later job reads them."""
        jobs = self._disk.jobs.values()
        covered = metadata.covered(self._metadata, jobs)
        covered |= set(self._lock.md5) if self._lock else set()
        for job in jobs:
            checked = self._disk.files(job)[: -1 if job.folder is not None else None]
            if job.folder is not None or job.rule in _CHECKED:
                covered |= {path.as_posix() for path in checked}
        return [name for name in self._disk.owners if name not in covered]
